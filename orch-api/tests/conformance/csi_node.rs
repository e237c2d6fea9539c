//! CSINodes as objects.
//!
//! Source: `test/e2e/storage/csi_node.go`.

use serde_json::json;

use super::{
    objects::{STRATEGIC, name},
    world::World,
};

/// One is labelled by a patch and deleted by its name, its successor labelled by an update and
/// deleted by the label.
pub(super) async fn should_run_through_the_lifecycle_of_a_csinode() {
    let world = World::start().await;
    let nodes = world.all("storage.k8s.io/v1", "CSINode").await;
    let empty = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": null}});
    let first = nodes.create(empty("e2e-csinode-1")).await;
    assert_eq!(nodes.get("e2e-csinode-1").await["metadata"]["uid"], first["metadata"]["uid"]);
    nodes.label(STRATEGIC, &first, name(&first), "patched").await;
    assert_eq!(nodes.list("e2e-csinode-1=patched").await.len(), 1);
    nodes.delete("e2e-csinode-1").await;
    assert_eq!(nodes.list("e2e-csinode-1=patched").await.len(), 0);

    nodes.create(empty("e2e-csinode-2")).await;
    let mut read = nodes.get("e2e-csinode-2").await;
    read["metadata"]["labels"] = json!({"e2e-csinode-2": "updated"});
    let updated = nodes.replace(read).await;
    assert_eq!(updated["metadata"]["labels"]["e2e-csinode-2"], "updated");
    nodes.delete_all("e2e-csinode-2=updated").await;
    assert_eq!(nodes.list("e2e-csinode-2=updated").await.len(), 0);
}
