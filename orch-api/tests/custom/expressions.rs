//! Rules of custom resources that are expressions.

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::support::{define, definitions, objects, refusal, server, typed, widget, widgets};

/// Whatever is not said to be short or few is as long as a request lets it be.
fn text() -> Value {
    json!({"type": "string", "maxLength": 20})
}

fn ruled() -> Value {
    let mut definition = widgets(json!({
        "replicas": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self <= 10", "message": "too many"},
        ]},
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "fixed": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "is immutable", "reason": "FieldValueForbidden"},
        ]},
        "once": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true},
        ]},
        "names": {"type": "array", "maxItems": 5, "items": text(), "x-kubernetes-validations": [
            {"rule": "self.all(n, n.startsWith('a'))",
             "messageExpression": "'the first is ' + self[0]"},
        ]},
        "ports": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
            "required": ["name"], "properties": {"name": text(), "port": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.port >= oldSelf.port"}]}},
    }));
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{
        "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
        "message": "min must not be above max", "fieldPath": ".min",
    }]);
    schema["x-kubernetes-validations"] =
        json!([{"rule": "self.metadata.name.startsWith('w')", "reason": "FieldValueInvalid"}]);
    definition
}

#[tokio::test]
async fn objects_are_held_to_their_rules_in_upstreams_words() {
    let (_server, client) = server().await;
    define(&client, ruled()).await;
    let check = async |name: &str, spec: Value, expected: &str| {
        let made = objects(&client).create(&PostParams::default(), &widget(name, spec)).await;
        let (code, message) = refusal(made);
        let expected = format!("Widget.example.com \"{name}\" is invalid: {expected}");
        assert_eq!((code, message), (422, expected));
    };
    let rule = "self.metadata.name.startsWith('w')";
    check("a", json!({}), &format!("<nil>: Invalid value: failed rule: {rule}")).await;
    check("w", json!({"replicas": 11}), "spec.replicas: Invalid value: 11: too many").await;
    check("w", json!({"min": 2, "max": 1}), "spec.min: Invalid value: min must not be above max")
        .await;
    check("w", json!({"names": ["b", "a"]}), "spec.names: Invalid value: the first is b").await;
    let once = "oldSelf.hasValue() || self == 'new'";
    check(
        "w",
        json!({"once": "x"}),
        &format!("spec.once: Invalid value: \"x\": failed rule: {once}"),
    )
    .await;
    // What is wrong otherwise keeps the rules from being looked at.
    check(
        "w",
        json!({"replicas": 11, "ports": [{}]}),
        "[spec.ports[0].name: Required value, <nil>: Invalid value: null: some validation rules \
         were not checked because the object was invalid; correct the existing errors to complete \
         validation]",
    )
    .await;
    let good = json!({"replicas": 1, "min": 1, "max": 2, "names": ["a"], "once": "new"});
    objects(&client).create(&PostParams::default(), &widget("w", good)).await.unwrap();
}

#[tokio::test]
async fn transitions_are_compared_with_what_was() {
    let (_server, client) = server().await;
    define(&client, ruled()).await;
    let spec = json!({"fixed": "x", "once": "new", "ports": [{"name": "a", "port": 2}]});
    objects(&client).create(&PostParams::default(), &widget("w", spec)).await.unwrap();
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        objects(&client).patch("w", &PatchParams::default(), &patch).await
    };
    let refused = |result| refusal::<kube::api::DynamicObject>(result).1;
    let message = refused(patch(json!({"fixed": "y"})).await);
    assert!(message.ends_with("spec.fixed: Forbidden: is immutable"), "{message}");
    let message = refused(patch(json!({"ports": [{"name": "a", "port": 1}]})).await);
    let rule = "failed rule: self.port >= oldSelf.port";
    assert!(message.ends_with(&format!("spec.ports[0]: Invalid value: {rule}")), "{message}");
    // Another key is another port, and an optional old value needs none.
    patch(json!({"ports": [{"name": "b", "port": 1}], "once": "other"})).await.unwrap();
}

#[tokio::test]
async fn what_was_wrong_before_the_rule_may_stay_until_it_is_touched() {
    let (_server, client) = server().await;
    define(&client, widgets(json!({"replicas": {"type": "integer"}, "note": text()}))).await;
    let old = json!({"replicas": 20});
    objects(&client).create(&PostParams::default(), &widget("w", old)).await.unwrap();
    let mut definition = definitions(&client).get("widgets.example.com").await.unwrap();
    let schema = definition.spec.versions[0].schema.as_mut().unwrap();
    let spec = schema.open_api_v3_schema.as_mut().unwrap().properties.as_mut().unwrap();
    let fields = spec.get_mut("spec").unwrap().properties.as_mut().unwrap();
    fields.get_mut("replicas").unwrap().x_kubernetes_validations =
        Some(vec![typed(json!({"rule": "self <= 10"}))]);
    definitions(&client)
        .replace("widgets.example.com", &PostParams::default(), &definition)
        .await
        .unwrap();
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        objects(&client).patch("w", &PatchParams::default(), &patch).await
    };
    patch(json!({"note": "touched"})).await.unwrap();
    let (_, message) = refusal(patch(json!({"replicas": 21})).await);
    let expected = "spec.replicas: Invalid value: 21: failed rule: self <= 10";
    assert!(message.ends_with(expected), "{message}");
}

#[tokio::test]
async fn definitions_say_what_is_wrong_with_their_expressions() {
    let (_server, client) = server().await;
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties";
    let check = async |field: Value, expected: &str| {
        let definition = widgets(json!({"f": field}));
        let made = definitions(&client).create(&PostParams::default(), &typed(definition)).await;
        let (code, message) = refusal(made);
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(expected), "{message}");
    };
    let rules = |rules: Value| json!({"type": "string", "maxLength": 20, "x-kubernetes-validations": rules});
    let rule = format!("{at}[f].x-kubernetes-validations[0]");
    check(
        rules(json!([{"rule": " "}])),
        &format!("{rule}.rule: Required value: rule is not specified"),
    )
    .await;
    check(
        rules(json!([{"rule": "self == 1"}])),
        "compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied \
         to '(string, int)'",
    )
    .await;
    check(rules(json!([{"rule": "self"}])), "cel expression must evaluate to a bool").await;
    check(
        rules(json!([{"rule": "true", "messageExpression": "1"}])),
        "messageExpression must evaluate to a string",
    )
    .await;
    check(
        rules(json!([{"rule": "true", "reason": "Odd"}])),
        "Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \
         \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
    )
    .await;
    check(
        rules(json!([{"rule": "true", "optionalOldSelf": true}])),
        "may not be set if oldSelf is not used in rule",
    )
    .await;
    let list = json!({"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let within = format!("the uncorrelatable portion of the schema within {at}[f]");
    check(list, &format!("oldSelf cannot be used on {within}")).await;
}

#[tokio::test]
async fn definitions_whose_rules_may_cost_too_much_are_refused() {
    let (_server, client) = server().await;
    let nested = json!({"type": "array", "items": {"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self.contains('x')"}]}}});
    let list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
        {"rule": "self.all(x, self.all(y, x == y))"},
    ]});
    for (field, words) in [
        (nested, "estimated rule cost exceeds budget by factor of"),
        (list, "exceeds budget by factor of more than 100x (try simplifying the rule"),
    ] {
        let definition = widgets(json!({"f": field}));
        let made = definitions(&client).create(&PostParams::default(), &typed(definition)).await;
        let (code, message) = refusal(made);
        assert_eq!(code, 422);
        assert!(message.contains(words), "{message}");
    }
}
