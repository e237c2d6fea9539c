//! PriorityClasses as objects.
//!
//! Source: `test/e2e/scheduling/preemption.go`.

use serde_json::{Value, json};

use super::{
    objects::{JSON_PATCH, name, refused},
    world::World,
};

/// What may change is changed by an update and a patch; the value and the policy of preemption
/// are not; classes are found and deleted by a label.
pub(super) async fn verify_priorityclass_endpoints_can_be_operated_with_different_http_methods() {
    let world = World::start().await;
    let classes = world.all("scheduling.k8s.io/v1", "PriorityClass").await;
    let mut made = Vec::new();
    for value in [1, 2] {
        let class = json!({
            "metadata": {"name": format!("p{value}"), "labels": {"e2e": "true"}},
            "value": value, "preemptionPolicy": "PreemptLowerPriority",
        });
        made.push(classes.create(class).await);
    }
    assert_eq!(classes.list("").await.len(), 4, "the system has two of its own");
    for (at, value) in [("/value", json!(10)), ("/preemptionPolicy", json!("Never"))] {
        for class in &made {
            let mut changed = class.clone();
            *changed.pointer_mut(at).unwrap() = value.clone();
            let invalid = (422, "Invalid".to_owned());
            assert_eq!(refused(classes.try_replace("", changed).await), invalid);
            let patch = json!([{"op": "replace", "path": at, "value": value}]);
            let answer = classes.try_patch(name(class), JSON_PATCH, patch).await;
            assert_eq!(refused(answer), invalid);
        }
    }
    for class in &made {
        let mut changed = class.clone();
        changed["description"] = json!("updated");
        assert_eq!(classes.replace(changed).await["description"], "updated");
        let patch = json!([{"op": "replace", "path": "/description", "value": "patched"}]);
        let patched = classes.patch(name(class), JSON_PATCH, patch).await;
        assert_eq!(patched["description"], "patched");
        let read: Value = classes.get(name(class)).await;
        assert_eq!((&read["description"], &read["value"]), (&json!("patched"), &class["value"]));
    }
    classes.delete_all("e2e=true").await;
    assert_eq!(classes.list("e2e=true").await.len(), 0);
    assert_eq!(classes.list("").await.len(), 2);
}
