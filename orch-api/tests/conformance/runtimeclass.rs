//! RuntimeClasses as objects, and pods that ask for one.
//!
//! Source: `test/e2e/common/node/runtimeclass.go`.

use serde_json::{Value, json};

use super::{
    objects::refused,
    operations::{every_verb, nothing_more},
    world::World,
};

const NAMESPACE: &str = "runtimeclass";

fn pod(class: &str) -> Value {
    json!({
        "metadata": {"generateName": "test-runtimeclass-"},
        "spec": {"runtimeClassName": class, "automountServiceAccountToken": false,
            "containers": [{"name": "test", "image": "busybox", "command": ["true"]}]},
    })
}

/// A pod that asks for a class that is not there is refused.
pub(super) async fn should_reject_a_pod_requesting_a_non_existent_runtimeclass() {
    let world = World::with_namespace(NAMESPACE).await;
    let pods = world.of("v1", "Pod", NAMESPACE).await;
    assert_eq!(refused(pods.try_create(pod("nonexistent")).await), (403, "Forbidden".into()));
}

/// And so is one that asks for a class that is not there any more.
pub(super) async fn should_reject_a_pod_requesting_a_deleted_runtimeclass() {
    let world = World::with_namespace(NAMESPACE).await;
    let pods = world.of("v1", "Pod", NAMESPACE).await;
    let classes = world.all("node.k8s.io/v1", "RuntimeClass").await;
    classes.create(json!({"metadata": {"name": "delete-me"}, "handler": "runc"})).await;
    pods.create(pod("delete-me")).await;
    classes.delete("delete-me").await;
    classes.gone("delete-me").await;
    assert_eq!(refused(pods.try_create(pod("delete-me")).await), (403, "Forbidden".into()));
}

/// All verbs of runtime classes.
pub(super) async fn should_support_runtimeclasses_api_operations() {
    let world = World::start().await;
    world.discover("node.k8s.io", "v1", &["runtimeclasses"]).await;
    let classes = world.all("node.k8s.io/v1", "RuntimeClass").await;
    let make = |number| {
        json!({"metadata": {"name": format!("conformance-runtime-class{number}")},
            "handler": format!("e2e-handler{number}")})
    };
    every_verb(&classes, None, make, nothing_more).await;
}
