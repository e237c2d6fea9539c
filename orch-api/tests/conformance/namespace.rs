//! Namespaces as objects.
//!
//! Source: `test/e2e/apimachinery/namespace.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, Objects, STRATEGIC, call, text, version},
    world::World,
};

async fn namespace(world: &World) -> (Objects, Value) {
    let namespaces = world.all("v1", "Namespace").await;
    let made = namespaces.create(json!({"metadata": {"name": "nstest"}})).await;
    (namespaces, made)
}

/// A label that a strategic merge patch sets is there afterwards.
pub(super) async fn should_patch_a_namespace() {
    let world = World::start().await;
    let (namespaces, made) = namespace(&world).await;
    namespaces.label(STRATEGIC, &made, "testLabel", "testValue").await;
    let read = namespaces.get("nstest").await;
    assert_eq!(read["metadata"]["labels"]["testLabel"], "testValue");
    assert_eq!(read["metadata"]["labels"]["kubernetes.io/metadata.name"], "nstest");
}

/// A new namespace is active; conditions are patched into its status and put there by an update.
pub(super) async fn should_apply_changes_to_a_namespace_status() {
    let world = World::start().await;
    let (namespaces, _) = namespace(&world).await;
    let path = format!("{}/nstest/status", namespaces.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(read["status"]["phase"], "Active");
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "E2E",
            "message": "Set by an e2e test"})
    };
    let patch = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "nstest"}},
        "status": {"conditions": [condition("StatusPatch")]}});
    let mut patched = namespaces.patch("nstest/status", MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["e2e-patched-ns-status"], "nstest");
    assert_eq!(patched["status"]["phase"], "Active");
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    patched["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate"));
    let updated = namespaces.replace_status(patched).await;
    let last = updated["status"]["conditions"].as_array().unwrap().last().unwrap();
    let found = (text(last, "/type"), text(last, "/status"), text(last, "/reason"));
    assert_eq!(found, ("StatusUpdate", "True", "E2E"));
}

/// A label that an update sets is there afterwards.
pub(super) async fn should_apply_an_update_to_a_namespace() {
    let world = World::start().await;
    let (namespaces, mut made) = namespace(&world).await;
    let before = version(&made);
    made["metadata"]["labels"]["nstest"] = json!("updated");
    let updated = namespaces.replace(made).await;
    assert_eq!(updated["metadata"]["labels"]["nstest"], "updated");
    assert!(version(&updated) > before);
}

/// `finalize` adds a finalizer to the specification, and takes it away.
pub(super) async fn should_apply_a_finalizer_to_a_namespace() {
    let world = World::start().await;
    let (namespaces, mut made) = namespace(&world).await;
    let has = |object: &Value| {
        let all = object["spec"]["finalizers"].as_array().unwrap();
        assert!(all.contains(&json!("kubernetes")), "{all:?}");
        all.contains(&json!("e2e.example.com/fakeFinalizer"))
    };
    let fake = json!("e2e.example.com/fakeFinalizer");
    made["spec"]["finalizers"].as_array_mut().unwrap().push(fake.clone());
    let mut with = namespaces.try_replace("/finalize", made).await.unwrap();
    assert!(has(&with));
    assert!(has(&namespaces.get("nstest").await));
    with["spec"]["finalizers"].as_array_mut().unwrap().retain(|one| *one != fake);
    let without = namespaces.try_replace("/finalize", with).await.unwrap();
    assert!(!has(&without));
}
