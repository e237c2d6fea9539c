//! Nodes that go silent.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use orch_controllers::{
    daemon_set::daemon_set,
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

#[tokio::test(start_paused = true)]
async fn a_daemon_set_has_one_pod_on_every_node_that_suits() {
    let world = World::start(|informers| vec![daemon_set(informers)]);
    for (name, disk) in [("n1", "ssd"), ("n2", "ssd"), ("n3", "hdd")] {
        let labels = json!({"disk": disk});
        world.create_cluster::<Node>(json!({"metadata": {"name": name, "labels": labels}})).await;
    }
    let mut wanted = template("agent", "v1");
    wanted["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let set = json!({
        "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": wanted},
    });
    world.create::<DaemonSet>(set).await;
    let settled = async |world: &World, nodes: &[&str], image: &str| {
        let set = world.get::<DaemonSet>("agent").await?;
        let status = set.status.as_ref()?;
        let mut found = Vec::new();
        for pod in world.list::<Pod>().await {
            let spec = pod.spec.as_ref()?;
            if spec.containers[0].image.as_deref() != Some(image) {
                return None;
            }
            found.push(spec.node_name.clone()?);
        }
        found.sort();
        let count = i32::try_from(nodes.len()).unwrap();
        (found == nodes
            && (status.number_ready, status.desired_number_scheduled) == (count, count)
            && status.updated_number_scheduled == Some(count))
        .then_some(())
    };
    let both = async |world: &World| settled(world, &["n1", "n2"], "v1").await;
    world.eventually("a pod on each", both).await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    let patch = json!({"metadata": {"labels": {"disk": "ssd"}}});
    world.all::<Node>().patch("n3", PatchKind::Merge, patch).await.unwrap();
    let taint = json!({"spec": {"taints": [{"key": "own", "effect": "NoExecute"}]}});
    world.all::<Node>().patch("n1", PatchKind::Merge, taint).await.unwrap();
    let moved = async |world: &World| settled(world, &["n2", "n3"], "v1").await;
    world.eventually("it follows the nodes", moved).await;

    let containers = json!([{"name": "main", "image": "v2"}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    world.patch::<DaemonSet>("agent", patch).await;
    let updated = async |world: &World| settled(world, &["n2", "n3"], "v2").await;
    world.eventually("the new version", updated).await;
}
