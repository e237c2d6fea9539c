//! What a schema does to objects: pruning, defaults, checks.

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::support::{define, definitions, objects, refusal, server, widget, widgets};

fn rich() -> Value {
    widgets(json!({
        "size": {"type": "integer", "minimum": 1, "default": 3},
        "port": {"x-kubernetes-int-or-string": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "nothing": {"type": "string", "nullable": true},
        "list": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "value": {"type": "string"},
            }}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true},
    }))
}

#[tokio::test]
async fn unknown_fields_are_pruned_and_defaults_filled_in() {
    let (_server, client) = server().await;
    define(&client, rich()).await;
    let spec = json!({
        "unknown": 1, "port": "http", "free": {"any": {"thing": 1}}, "labels": {"a": "b"},
        "nothing": null, "template": {"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}},
    });
    let made = objects(&client).create(&PostParams::default(), &widget("a", spec)).await.unwrap();
    let expected = json!({
        "size": 3, "port": "http", "free": {"any": {"thing": 1}}, "labels": {"a": "b"},
        "nothing": null, "template": {"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}},
    });
    assert_eq!(made.data["spec"], expected);
}

#[tokio::test]
async fn strict_validation_refuses_unknown_fields() {
    let (_server, client) = server().await;
    define(&client, rich()).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets?fieldValidation=Strict";
    let draft = serde_json::to_vec(&widget("a", json!({"unknown": 1}))).unwrap();
    let request = http::Request::builder().method("POST").uri(path);
    let request = request.header("content-type", "application/json").body(draft).unwrap();
    let (code, message) = refusal(client.request::<Value>(request).await);
    assert_eq!(code, 400);
    assert!(message.contains("strict decoding error: unknown field \"spec.unknown\""), "{message}");
}

#[tokio::test]
async fn values_are_checked_and_nothing_wrong_is_stored() {
    let (_server, client) = server().await;
    define(&client, rich()).await;
    let check = async |spec: Value, expected: &str| {
        let made = objects(&client).create(&PostParams::default(), &widget("a", spec)).await;
        let (code, message) = refusal(made);
        assert!(code == 422 && message.contains(expected), "{code} {message}");
    };
    check(
        json!({"size": 0}),
        "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
    )
    .await;
    check(
        json!({"size": "big"}),
        "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
    )
    .await;
    check(json!({"port": 1.5}), "spec.port in body must be of type").await;
    check(json!({"list": [{}]}), "spec.list[0].name: Required value").await;
    check(json!({"list": [{"name": "a"}, {"name": "a"}]}), "spec.list[1]: Duplicate value").await;
    check(json!({"labels": {"a": 1}}), "spec.labels.a in body must be of type string").await;
    assert!(objects(&client).get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn what_an_update_leaves_as_it_was_may_break_a_younger_rule() {
    let (_server, client) = server().await;
    let spec = |least: i64| {
        json!({"size": {"type": "integer", "minimum": least},
        "note": {"type": "string"}})
    };
    define(&client, widgets(spec(0))).await;
    let all = objects(&client);
    all.create(&PostParams::default(), &widget("a", json!({"size": 1}))).await.unwrap();
    let stricter = widgets(spec(5))["spec"]["versions"].clone();
    let patch = Patch::Merge(json!({"spec": {"versions": stricter}}));
    let params = PatchParams::default();
    definitions(&client).patch("widgets.example.com", &params, &patch).await.unwrap();
    let change = |spec: Value| Patch::Merge(json!({"spec": spec}));
    all.patch("a", &params, &change(json!({"note": "still"}))).await.unwrap();
    let (code, message) = refusal(all.patch("a", &params, &change(json!({"size": 2}))).await);
    assert!(code == 422 && message.contains("greater than or equal to 5"), "{message}");
}
