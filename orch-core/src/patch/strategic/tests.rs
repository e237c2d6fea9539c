use serde_json::json;

use super::*;
use crate::schema;

fn patched(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut value = json!({"spec": original});
    strategic_merge_patch(schema::of("", "v1", "Pod"), &mut value, &json!({"spec": patch}))?;
    Ok(value["spec"].take())
}

#[track_caller]
fn check(original: &Value, patch: &Value, expected: &Value) {
    assert_eq!(patched(original, patch).unwrap(), *expected);
}

#[test]
fn lists_merge_by_their_keys_and_deeply() {
    check(
        &json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "1"}]}),
        &json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]}),
        &json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"},
            {"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]}),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        &json!({"containers": [{"name": "a", "args": ["1", "2"]}]}),
        &json!({"containers": [{"name": "a", "args": ["3"]}]}),
        &json!({"containers": [{"name": "a", "args": ["3"]}]}),
    );
}

#[test]
fn directives_replace_and_delete() {
    let volumes = json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b"}]});
    check(
        &volumes,
        &json!({"volumes": [{"name": "a", "$patch": "delete"}]}),
        &json!({"volumes": [{"name": "b"}]}),
    );
    check(
        &volumes,
        &json!({"volumes": [{"name": "c"}, {"$patch": "replace"}]}),
        &json!({"volumes": [{"name": "c"}]}),
    );
    check(
        &json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        &json!({"securityContext": {"fsGroup": 3, "$patch": "replace"}}),
        &json!({"securityContext": {"fsGroup": 3}}),
    );
    check(&volumes, &json!({"$patch": "delete"}), &json!({}));
}

#[test]
fn retained_keys_drop_the_rest() {
    check(
        &json!({"volumes": [{"name": "a", "emptyDir": {}}]}),
        &json!({"volumes": [{"name": "a", "hostPath": {"path": "/"},
            "$retainKeys": ["name", "hostPath"]}]}),
        &json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}),
    );
    let error =
        patched(&json!({}), &json!({"securityContext": {}, "$retainKeys": ["containers"], "x": 1}));
    assert_eq!(error.unwrap_err().to_string(), "invalid patch format of retainKeys");
}

#[test]
fn element_orders_are_kept() {
    check(
        &json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        &json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "1"}]}),
        &json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a", "image": "1"}]}),
    );
    check(
        &json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        &json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        &json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
}

#[test]
fn primitive_lists_lose_and_gain_elements() {
    let mut value = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"]}});
    strategic_merge_patch(schema::of("", "v1", "Pod"), &mut value, &patch).unwrap();
    assert_eq!(value, json!({"metadata": {"finalizers": ["b", "c"]}}));
}

#[test]
fn nulls_remove_and_maps_merge() {
    let mut value = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": null}}});
    strategic_merge_patch(schema::of("", "v1", "Pod"), &mut value, &patch).unwrap();
    let expected = json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {}}});
    assert_eq!(value, expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let check = |patch: Value, message: &str| {
        let error = patched(&json!({"containers": [{"name": "a"}]}), &patch).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    };
    check(json!({"containers": [{"image": "a"}]}), "does not contain declared merge key: name");
    check(json!({"$patch": "turn"}), "unknown patch type: turn in map");
    check(json!({"containers": ["a"]}), "list element types are not identical");
    check(json!({"$setElementOrder/containers": 1}), "setElementOrder");
    let none = strategic_merge_patch(None, &mut json!({}), &json!({}));
    assert!(matches!(none, Err(PatchError::NotSupported)));
}
