//! Managed fields and server-side apply, as clients see them.

use orch_core::{
    ApiError,
    patch::{ApplyError, FieldSet, Writer, apply, update},
    schema,
};
use serde_json::{Value, json};

fn deployment() -> Option<&'static schema::Definition> {
    schema::of("apps", "v1", "Deployment")
}

fn writer<'a>(manager: &'a str, second: i64, ignored: &'a FieldSet) -> Writer<'a> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: None,
        time: jiff::Timestamp::from_second(second).unwrap(),
        ignored,
    }
}

fn web(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn applied(live: Option<&Value>, manager: &str, spec: &Value) -> Value {
    let none = FieldSet::default();
    apply(deployment(), live, &web(spec), &writer(manager, 100, &none), false).unwrap()
}

fn updated(live: Option<&Value>, manager: &str, second: i64, spec: &Value) -> Value {
    let (none, mut new) = (FieldSet::default(), web(spec));
    update(deployment(), live, &mut new, &writer(manager, second, &none));
    new
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    found.unwrap_or_else(|| panic!("{manager} owns nothing in {object}"))["fieldsV1"].clone()
}

#[test]
fn a_create_gives_its_fields_to_its_writer() {
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "a", "image": "1", "args": ["x"], "resources": {},
             "ports": [{"containerPort": 80}]}]}}});
    let object = updated(None, "kubectl-create", 10, &spec);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["time"], "1970-01-01T00:00:10Z");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:args": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                    {".": {}, "f:containerPort": {}}}}}}}}})
    );
}

#[test]
fn an_update_takes_what_it_changes_from_its_owner() {
    let first = updated(None, "a", 1, &json!({"replicas": 1, "paused": true}));
    let second = updated(Some(&first), "b", 2, &json!({"replicas": 2, "minReadySeconds": 1}));
    assert_eq!(owned(&second, "b"), json!({"f:spec": {"f:replicas": {}, "f:minReadySeconds": {}}}));
    let entries = second["metadata"]["managedFields"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["manager"] != "a"), "{second}");
}

#[test]
fn an_apply_removes_what_it_no_longer_states() {
    let labels =
        |labels: Value| json!({"replicas": 1, "template": {"metadata": {"labels": labels}}});
    let first = applied(None, "me", &labels(json!({"a": "1", "b": "2"})));
    let second = applied(Some(&first), "me", &labels(json!({"a": "1"})));
    assert_eq!(second["spec"]["template"]["metadata"]["labels"], json!({"a": "1"}));
    let third = applied(Some(&second), "me", &json!({"replicas": 1}));
    assert_eq!(third["spec"], json!({"replicas": 1}));
    assert_eq!(owned(&third, "me"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn what_two_own_stays_until_both_let_go() {
    let first = applied(None, "me", &json!({"replicas": 1, "paused": true}));
    let both = applied(Some(&first), "you", &json!({"replicas": 1}));
    let mine = applied(Some(&both), "me", &json!({"paused": true}));
    assert_eq!(mine["spec"], json!({"replicas": 1, "paused": true}));
    let none = applied(Some(&mine), "you", &json!({}));
    assert_eq!(none["spec"], json!({"paused": true}));
}

#[test]
fn conflicts_are_upstreams_and_force_resolves_them() {
    let live = updated(None, "kubectl-client-side-apply", 1, &json!({"replicas": 1}));
    let (none, config) = (FieldSet::default(), web(&json!({"replicas": 3})));
    let me = writer("me", 2, &none);
    let error = apply(deployment(), Some(&live), &config, &me, false).unwrap_err();
    let why = "conflict with \"kubectl-client-side-apply\" using apps/v1";
    let message = format!("Apply failed with 1 conflict: {why}: .spec.replicas");
    assert_eq!(error.to_string(), message);
    let error = ApiError::from(error);
    assert_eq!(error.code(), 409);
    let causes = error.status().details.clone().unwrap().causes.unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(causes[0].message.as_deref(), Some(why));
    assert_eq!(causes[0].field.as_deref(), Some(".spec.replicas"));
    let forced = apply(deployment(), Some(&live), &config, &me, true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn an_equal_value_is_shared_without_conflict() {
    let live = updated(None, "kubectl", 1, &json!({"replicas": 1}));
    let both = applied(Some(&live), "me", &json!({"replicas": 1}));
    assert_eq!(owned(&both, "me"), owned(&both, "kubectl"));
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let mut live = updated(None, "kubectl-client-side-apply", 1, &json!({"replicas": 1}));
    let last = web(&json!({"replicas": 1})).to_string();
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let object = applied(Some(&live), "kubectl", &json!({"replicas": 2}));
    assert_eq!(object["spec"]["replicas"], 2);
    let annotations = &object["metadata"]["annotations"];
    let last = annotations["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last, web(&json!({"replicas": 2})));
}

#[test]
fn an_untracked_object_is_tracked_from_its_first_apply() {
    let live = web(&json!({"replicas": 1}));
    assert_eq!(updated(Some(&live), "a", 1, &json!({"replicas": 2})), web(&json!({"replicas": 2})));
    let (none, config) = (FieldSet::default(), web(&json!({"replicas": 3})));
    let error = apply(deployment(), Some(&live), &config, &writer("me", 1, &none), false);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("\"before-first-apply\" using apps/v1"), "{message}");
}

#[test]
fn old_updaters_become_one() {
    let mut object = updated(None, "m0", 0, &json!({"replicas": 0}));
    let mut spec = json!({"template": {"metadata": {"labels": {}}}});
    for at in 1..15 {
        spec["template"]["metadata"]["labels"][format!("l{at}")] = json!("x");
        object = updated(Some(&object), &format!("m{at}"), at, &spec);
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
}

#[test]
fn what_the_schema_lacks_is_refused() {
    let none = FieldSet::default();
    let check = |spec: Value, message: &str| {
        let error = apply(deployment(), None, &web(&spec), &writer("me", 1, &none), false);
        let error = error.unwrap_err();
        assert!(matches!(error, ApplyError::NotTyped { .. }));
        let head = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): ";
        assert_eq!(error.to_string(), format!("{head}{message}"));
    };
    check(json!({"replicaz": 1}), ".spec.replicaz: field not declared in schema");
    check(
        json!({"template": {"spec": {"containers": [{"image": "a"}]}}}),
        ".spec.template.spec.containers: element 0: associative list with keys has an element \
         that omits key field \"name\" (and doesn't have default value)",
    );
}

#[test]
fn ignored_fields_are_never_owned() {
    let ignored = FieldSet::of_names(&["status"]);
    let mut config = web(&json!({"replicas": 1}));
    config["status"] = json!({"replicas": 5});
    let object = apply(deployment(), None, &config, &writer("me", 1, &ignored), false).unwrap();
    assert_eq!(owned(&object, "me"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn ignored_fields_make_no_conflicts() {
    let (none, ignored) = (FieldSet::default(), FieldSet::of_names(&["status"]));
    let mut live = web(&json!({"replicas": 1}));
    live["status"] = json!({"replicas": 1});
    update(deployment(), None, &mut live, &writer("controller", 1, &none));
    let mut config = web(&json!({"paused": true}));
    config["status"] = json!({"replicas": 5});
    let me = writer("me", 2, &ignored);
    let object = apply(deployment(), Some(&live), &config, &me, false).unwrap();
    let status = json!({"f:replicas": {}});
    assert_eq!(owned(&object, "controller")["f:status"], status);
}

#[test]
fn custom_resources_are_granular_objects_and_atomic_lists() {
    let none = FieldSet::default();
    let config = |spec: Value| {
        json!({"apiVersion": "x.io/v1", "kind": "X",
        "metadata": {"name": "x"}, "spec": spec})
    };
    let me = writer("me", 1, &none);
    let first = apply(None, None, &config(json!({"a": {"b": 1}, "c": [1, 2]})), &me, false);
    let first = first.unwrap();
    let fields = json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:c": {}}});
    assert_eq!(owned(&first, "me"), fields);
    let second = apply(None, Some(&first), &config(json!({"c": [3]})), &me, false).unwrap();
    assert_eq!(second["spec"], json!({"c": [3]}));
}
