//! Source: `test/e2e/node/taints.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::{
    running::{condition, node_of, pause_pod, runs, selected},
    watching::{Change, Watching, version},
    world::{MINUTE, World, object, update},
};

const KEY: &str = "kubernetes.io/e2e-evict-taint-key";

fn tolerating(name: &str, group: &str, seconds: u64, selector: &Value) -> Value {
    let toleration = json!({
        "key": KEY, "value": "evictTaintVal", "effect": "NoExecute", "tolerationSeconds": seconds,
    });
    let spec = json!({"tolerations": [toleration], "nodeSelector": selector});
    let mut pod = pause_pod(name, spec);
    pod["metadata"]["labels"] = json!({"group": group});
    pod
}

async fn taint(world: &World, node: &str) {
    let added = world.cluster.environment().clock.now().to_string();
    let taint: Taint = object(json!({
        "key": KEY, "value": "evictTaintVal", "effect": "NoExecute", "timeAdded": added,
    }));
    let tainted = update(&world.nodes(), node, |node: &mut Node| {
        let spec = node.spec.get_or_insert_default();
        spec.taints.get_or_insert_default().push(taint.clone());
    })
    .await;
    let taints = tainted.spec.and_then(|spec| spec.taints).unwrap_or_default();
    assert!(taints.iter().any(|taint| taint.key == KEY && taint.effect == "NoExecute"));
}

async fn untaint(world: &World, node: &str) {
    update(&world.nodes(), node, |node: &mut Node| {
        let taints = node.spec.as_mut().and_then(|spec| spec.taints.as_mut());
        taints.expect("taints").retain(|taint| taint.key != KEY);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn removing_taint_cancels_eviction() {
    let (world, name) = (World::start(2).await, "taint-eviction-4");
    let pods: Api<Pod> = world.api();
    let mut watching = Watching::labelled(&pods, "group=taint-eviction-4", "0").await;
    world.create::<Pod>(tolerating(name, name, 10, &json!({}))).await;
    let pod = runs(&pods, name).await;
    taint(&world, node_of(&pod)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    untaint(&world, node_of(&pod)).await;
    // Longer than the pod would have tolerated the taint and would have taken to stop.
    let deletion = async {
        loop {
            let (change, seen) = watching.next().await;
            if change == Change::Deleted || seen.metadata.deletion_timestamp.is_some() {
                return;
            }
        }
    };
    let evicted = tokio::time::timeout(Duration::from_secs(75), deletion).await;
    assert!(evicted.is_err(), "the pod was evicted");
    assert_eq!(runs(&pods, name).await.uid(), pod.uid());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn evicts_pods_with_mintolerationseconds() {
    let (world, group) = (World::start(2).await, "taint-eviction-b");
    let pods: Api<Pod> = world.api();
    let (first, second) = ("taint-eviction-b1", "taint-eviction-b2");
    world.create::<Pod>(tolerating(first, group, 5, &json!({}))).await;
    let node = node_of(&runs(&pods, first).await).to_owned();
    let host = world.nodes().get(&node).await.expect("there");
    let host = host.labels()["kubernetes.io/hostname"].clone();
    let selector = json!({"kubernetes.io/hostname": host});
    world.create::<Pod>(tolerating(second, group, 25, &selector)).await;
    assert_eq!(node_of(&runs(&pods, second).await), node);
    let mut watching =
        Watching::labelled(&pods, "group=taint-eviction-b", &version(&pods).await).await;
    let tainted = tokio::time::Instant::now();
    taint(&world, &node).await;
    for (name, seconds) in [(first, 5), (second, 25)] {
        let gone = watching
            .until("an eviction", 2 * MINUTE + Duration::from_secs(10), |change, _| {
                change == Change::Deleted
            })
            .await;
        assert_eq!(gone.name_any(), name);
        assert!(tainted.elapsed() >= Duration::from_secs(seconds), "{name} went too early");
        // Upstream's controller says why on the pod before it deletes it.
        let target = condition(&gone, "DisruptionTarget").expect("a condition");
        assert_eq!(target.reason.as_deref(), Some("DeletionByTaintManager"));
    }
    assert_eq!(selected(&pods, "group=taint-eviction-b").await.len(), 0);
    world.shutdown().await;
}
