//! Nodes that go silent.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use orch_controllers::{
    node_lifecycle::{NodeLifecycleOptions, node_lifecycle},
    taint_eviction::taint_eviction,
};
use orch_core::{Resources, client::PatchKind};
use serde_json::json;
use std::sync::Arc;

use crate::world::{World, template};

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_tainted_and_its_pods_leave_when_they_no_longer_tolerate_that() {
    let world = World::start(|informers| {
        vec![node_lifecycle(informers, NodeLifecycleOptions::default()), taint_eviction(informers)]
    });
    world
        .create_cluster::<Node>(json!({
            "metadata": {"name": "node-1"},
            "status": {"conditions": [{"type": "Ready", "status": "True",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
        }))
        .await;
    let leases: Resources<Lease> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "kube-node-lease");
    let lease = json!({"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "node-1"}});
    leases.create(&serde_json::from_value(lease).unwrap()).await.unwrap();
    for (name, seconds) in [("patient", json!(300)), ("hasty", json!(30)), ("steady", json!(null))]
    {
        let mut pod = template("web", "v1");
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable",
            "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        world.create::<Pod>(pod).await;
    }
    for beat in 0..10 {
        let patch = json!({"spec": {"renewTime": format!("2026-01-01T00:00:0{beat}.000000Z")}});
        leases.patch("node-1", PatchKind::Merge, patch).await.unwrap();
        world.pass(10).await;
    }
    let node = world.all::<Node>().get("node-1").await.unwrap();
    assert!(node.spec.as_ref().is_none_or(|spec| spec.taints.is_none()), "it is alive");
    world.pass(45).await;
    let node = world.all::<Node>().get("node-1").await.unwrap();
    let ready = &node.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    let taints = node.spec.as_ref().unwrap().taints.as_ref().unwrap();
    assert!(taints.iter().all(|taint| taint.key == "node.kubernetes.io/unreachable"));
    assert_eq!(taints.len(), 2);
    let patient = world.get::<Pod>("patient").await.unwrap();
    assert_eq!(patient.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].status, "False");
    world.pass(30).await;
    assert!(world.get::<Pod>("hasty").await.is_none());
    assert!(world.get::<Pod>("patient").await.is_some());
    world.pass(300).await;
    assert!(world.get::<Pod>("patient").await.is_none());
    assert!(world.get::<Pod>("steady").await.is_some());

    // It comes back.
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.all::<Node>().patch_status("node-1", PatchKind::Merge, patch).await.unwrap();
    world
        .eventually("no taints", async |world| {
            let node = world.all::<Node>().get("node-1").await.ok()?;
            node.spec.as_ref()?.taints.as_ref().is_none_or(Vec::is_empty).then_some(())
        })
        .await;
    let writes = world.writes();
    world.pass(20).await;
    assert_eq!(world.writes(), writes);
}
