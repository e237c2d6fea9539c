//! Watches of custom resources.
//!
//! Source: `test/e2e/apimachinery/crd_watch.go`.

use serde_json::json;

use super::{
    definitions::{anything, definition},
    objects::JSON_PATCH,
    world::World,
};

/// Two watchers that look at one name each see the creation, the patch and the deletion of the
/// object of that name, and none of the other's.
pub(super) async fn watch_on_custom_resource_definition_objects() {
    let world = World::start().await;
    let group = "mygroup.example.com";
    world.define(definition(group, "Noxu", "Cluster", &["v1beta1"], &anything())).await;
    let objects = world.all(&format!("{group}/v1beta1"), "Noxu").await;
    let mut a = objects.watch_by("fieldSelector=metadata.name%3Dname1").await;
    let mut b = objects.watch_by("fieldSelector=metadata.name%3Dname2").await;
    let made_a = objects.create(json!({"metadata": {"name": "name1"}, "num": 1})).await;
    let made_b = objects.create(json!({"metadata": {"name": "name2"}, "num": 1})).await;
    let patch = json!([{"op": "add", "path": "/dummy", "value": "test"}]);
    objects.patch("name1", JSON_PATCH, patch.clone()).await;
    objects.patch("name2", JSON_PATCH, patch).await;
    objects.delete("name1").await;
    objects.delete("name2").await;
    for (watch, made, name) in [(&mut a, &made_a, "name1"), (&mut b, &made_b, "name2")] {
        watch.expect_object("ADDED", made).await;
        assert_eq!(watch.expect("MODIFIED", name).await["dummy"], "test");
        watch.expect("DELETED", name).await;
    }
}
