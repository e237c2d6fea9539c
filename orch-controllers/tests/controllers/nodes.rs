//! Nodes that go silent.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet},
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

async fn daemons(world: &World, strategy: serde_json::Value) {
    for name in ["n1", "n2", "n3"] {
        world.create_cluster::<Node>(json!({"metadata": {"name": name}})).await;
    }
    let set = json!({
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": template("agent", "v1"),
            "updateStrategy": strategy, "revisionHistoryLimit": 1,
        },
    });
    world.create::<DaemonSet>(set).await;
}

async fn set_image(world: &World, image: &str) {
    let containers = json!([{"name": "main", "image": image}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    world.patch::<DaemonSet>("agent", patch).await;
}

async fn all_run(world: &World, image: &str) {
    world
        .eventually(image, async |world| {
            let set = world.get::<DaemonSet>("agent").await?;
            let available = set.status.as_ref()?.number_available;
            let pods = world.list::<Pod>().await;
            let right = pods.iter().all(|pod| {
                pod.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some(image))
            });
            (right && pods.len() == 3 && available == Some(3)).then_some(())
        })
        .await;
}

async fn revisions(world: &World) -> Vec<(i64, String)> {
    let mut all: Vec<(i64, String)> = world
        .list::<ControllerRevision>()
        .await
        .iter()
        .map(|revision| {
            let data = &revision.data.as_ref().unwrap().0;
            let image = data.pointer("/spec/template/spec/containers/0/image").unwrap();
            (revision.revision, image.as_str().unwrap().to_owned())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_keeps_its_versions_to_go_back_to() {
    let world = World::start(|informers| vec![daemon_set(informers)]);
    daemons(&world, json!({"type": "RollingUpdate"})).await;
    all_run(&world, "v1").await;
    assert_eq!(revisions(&world).await, [(1, "v1".to_owned())]);
    set_image(&world, "v2").await;
    all_run(&world, "v2").await;
    set_image(&world, "v3").await;
    all_run(&world, "v3").await;
    world.pass(10).await;
    // One old version is kept.
    assert_eq!(revisions(&world).await, [(2, "v2".to_owned()), (3, "v3".to_owned())]);
    set_image(&world, "v2").await;
    all_run(&world, "v2").await;
    assert_eq!(revisions(&world).await, [(3, "v3".to_owned()), (4, "v2".to_owned())]);
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_surging_daemon_set_starts_new_pods_first() {
    let world = World::start(|informers| vec![daemon_set(informers)]);
    let rolling = json!({"maxSurge": 1, "maxUnavailable": 0});
    daemons(&world, json!({"type": "RollingUpdate", "rollingUpdate": rolling})).await;
    all_run(&world, "v1").await;
    world.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    set_image(&world, "v2").await;
    world.pass(30).await;
    // One more on one node, and no old one goes before the new one is ready.
    let images = |pods: Vec<Arc<Pod>>| -> Vec<String> {
        let image = |pod: &Arc<Pod>| pod.spec.as_ref().unwrap().containers[0].image.clone();
        let mut images: Vec<String> = pods.iter().filter_map(image).collect();
        images.sort();
        images
    };
    assert_eq!(images(world.list::<Pod>().await), ["v1", "v1", "v1", "v2"]);
    world.ready.store(true, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..200 {
        world.pass(1).await;
        let pods = world.list::<Pod>().await;
        let ready = pods.iter().filter(|pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            pod.metadata.deletion_timestamp.is_none()
                && conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
        });
        assert!(ready.count() >= 3, "no node is ever without an available pod");
        assert!(pods.len() <= 4, "one node surges at a time: {}", pods.len());
    }
    all_run(&world, "v2").await;
}
