//! ConfigMaps as objects.
//!
//! Source: `test/e2e/common/node/configmap.go`.

use serde_json::json;

use super::{
    objects::{STRATEGIC, names, refused},
    world::World,
};

const NAMESPACE: &str = "configmap";

/// An empty key is refused.
pub(super) async fn should_fail_to_create_configmap_with_empty_key() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = world.of("v1", "ConfigMap", NAMESPACE).await;
    let map = json!({"metadata": {"name": "configmap-test-emptykey"}, "data": {"": "value-1"}});
    assert_eq!(refused(maps.try_create(map).await), (422, "Invalid".into()));
}

/// Data that an update adds is read afterwards.
pub(super) async fn should_update_configmap_successfully() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = world.of("v1", "ConfigMap", NAMESPACE).await;
    let mut made = maps.create(json!({"metadata": {"name": "configmap-test"}})).await;
    assert!(made["data"].is_null());
    made["data"] = json!({"data": "value"});
    maps.replace(made).await;
    assert_eq!(maps.get("configmap-test").await["data"], json!({"data": "value"}));
}

/// A map is seen by a watch, patched, read and found by its labels, and deleted by one of them.
pub(super) async fn should_run_through_a_configmap_lifecycle() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = world.of("v1", "ConfigMap", NAMESPACE).await;
    let everywhere = world.all("v1", "ConfigMap").await;
    let selector = "test-configmap-static=true";
    let mut watch = maps.watch(selector, "").await;
    let labels = json!({"test-configmap-static": "true"});
    let map = json!({"metadata": {"name": "test-configmap", "labels": labels},
        "data": {"valueName": "value"}});
    let made = maps.create(map).await;
    watch.expect_object("ADDED", &made).await;

    let patch = json!({"metadata": {"labels": {"test-configmap": "patched"}},
        "data": {"valueName": "value1"}});
    let patched = maps.patch("test-configmap", STRATEGIC, patch).await;
    watch.expect_object("MODIFIED", &patched).await;
    let read = maps.get("test-configmap").await;
    assert_eq!(read["data"], json!({"valueName": "value1"}));
    assert_eq!(read["metadata"]["labels"]["test-configmap"], "patched");
    let found = everywhere.list(selector).await;
    assert_eq!(names(&found), ["test-configmap"]);
    assert_eq!(found[0]["data"]["valueName"], "value1");

    maps.delete_all(selector).await;
    watch.expect("DELETED", "test-configmap").await;
    assert_eq!(maps.list(selector).await.len(), 0);
}
