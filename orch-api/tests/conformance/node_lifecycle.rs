//! Nodes as objects.
//!
//! Source: `test/e2e/node/node_lifecycle.go`.

use serde_json::json;

use super::{
    objects::{STRATEGIC, names},
    world::World,
};

/// A node comes with a status, is labelled by a patch and by an update, found by its label, and
/// gone after its deletion.
pub(super) async fn should_run_through_the_lifecycle_of_a_node() {
    let world = World::start().await;
    let nodes = world.all("v1", "Node").await;
    let name = "e2e-fake-node-x1y2z";
    let condition = json!({"type": "Ready", "status": "True", "reason": "E2E",
        "message": "Set from e2e test"});
    let made = nodes
        .create(json!({
            "metadata": {"name": name}, "spec": {"unschedulable": true},
            "status": {"phase": "Running", "conditions": [condition]},
        }))
        .await;
    let read = nodes.get(name).await;
    assert_eq!(read["metadata"]["name"], name);
    assert_eq!(read["status"]["conditions"][0]["reason"], "E2E");
    nodes.label(STRATEGIC, &made, name, "patched").await;
    assert_eq!(names(&nodes.list(&format!("{name}=patched")).await), [name]);
    let mut changed = nodes.get(name).await;
    changed["metadata"]["labels"][name] = json!("updated");
    let updated = nodes.replace(changed).await;
    assert_eq!(updated["metadata"]["labels"][name], "updated");
    nodes.delete(name).await;
    nodes.gone(name).await;
}
