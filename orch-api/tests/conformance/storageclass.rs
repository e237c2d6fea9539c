//! StorageClasses as objects.
//!
//! Source: `test/e2e/storage/storageclass.go`.

use serde_json::json;

use super::{
    objects::{STRATEGIC, name},
    world::World,
};

/// One is labelled by a patch and deleted by its name, its successor labelled by an update and
/// deleted by the label.
pub(super) async fn should_run_through_the_lifecycle_of_a_storageclass() {
    let world = World::start().await;
    let classes = world.all("storage.k8s.io/v1", "StorageClass").await;
    let class = |prefix: &str| json!({"metadata": {"generateName": prefix}, "provisioner": "e2e-fake-provisioner"});
    let made = classes.create(class("e2e-")).await;
    let read = classes.get(name(&made)).await;
    assert_eq!(read["reclaimPolicy"], "Delete");
    classes.label(STRATEGIC, &read, name(&made), "patched").await;
    classes.delete(name(&made)).await;
    assert_eq!(classes.list(&format!("{}=patched", name(&made))).await.len(), 0);

    let made = classes.create(class("e2e-v2-")).await;
    let mut read = classes.get(name(&made)).await;
    read["metadata"]["labels"] = json!({name(&made): "updated"});
    let updated = classes.replace(read).await;
    assert_eq!(updated["metadata"]["labels"][name(&made)], "updated");
    let selector = format!("{}=updated", name(&made));
    assert_eq!(classes.list(&selector).await.len(), 1);
    classes.delete_all(&selector).await;
    assert_eq!(classes.list(&selector).await.len(), 0);
}
