//! Taints of devices, and the pods that use these.

use std::sync::atomic::Ordering;

use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{ResourceClaim, ResourceSlice},
};
use orch_controllers::device_taint_eviction::device_taint_eviction;
use serde_json::{Value, json};

use crate::world::World;

const REASON: &str = "DeviceTaintManagerEviction";

/// Before time begins in these worlds.
const LONG_AGO: &str = "1970-01-01T00:00:00Z";

fn slice(generation: i64, taints: Value) -> Value {
    json!({
        "metadata": {"name": format!("slice-{generation}")},
        "spec": {"driver": "d", "nodeName": "node",
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "gpu", "taints": taints}, {"name": "spare"}]},
    })
}

fn broken(effect: &str, since: &str) -> Value {
    json!([{"key": "broken", "effect": effect, "timeAdded": since}])
}

async fn taint(world: &World, generation: i64, taints: Value) {
    let patch = json!({"spec": {"devices": [{"name": "gpu", "taints": taints}]}});
    let slices = world.all::<ResourceSlice>();
    let name = format!("slice-{generation}");
    slices.patch(&name, orch_core::client::PatchKind::Merge, patch).await.expect("patched");
}

/// A pod on a node, and the claim that it uses, which has a device.
async fn user(world: &World, name: &str, device: &str, tolerations: Value) {
    let pod = json!({
        "metadata": {"name": name, "finalizers": ["example.com/keep"]},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}],
            "resourceClaims": [{"name": "c", "resourceClaimName": name}]},
    });
    let pod = world.create::<Pod>(pod).await;
    let claim = json!({
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "gpu", "tolerations": tolerations}},
        ]}},
    });
    let claim = world.create::<ResourceClaim>(claim).await;
    let mut claim = serde_json::to_value(&*claim).unwrap();
    let result = json!({"request": "r", "driver": "d", "pool": "p", "device": device,
        "tolerations": tolerations});
    let users = json!([{"resource": "pods", "name": name, "uid": pod.metadata.uid}]);
    claim["status"] = json!({"allocation": {"devices": {"results": [result]}},
        "reservedFor": users});
    let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
    world.resources::<ResourceClaim>().update_status(&claim).await.unwrap();
}

fn world() -> World {
    let world = World::start(|informers| vec![device_taint_eviction(informers)]);
    world.ready.store(false, Ordering::Relaxed);
    world
}

async fn is_going(world: &World, name: &str) -> bool {
    let pod = world.get::<Pod>(name).await;
    pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

async fn goes(world: &World, name: &str) {
    let what = format!("{name} goes");
    world.eventually(&what, async |world| is_going(world, name).await.then_some(())).await;
}

fn tolerating(seconds: Option<i64>) -> Value {
    let mut toleration = json!({"key": "broken", "operator": "Exists", "effect": "NoExecute"});
    if let Some(seconds) = seconds {
        toleration["tolerationSeconds"] = json!(seconds);
    }
    json!([toleration])
}

#[tokio::test(start_paused = true)]
async fn pods_leave_devices_that_are_tainted() {
    let world = world();
    world.create_cluster::<ResourceSlice>(slice(1, json!([]))).await;
    user(&world, "web", "gpu", json!([])).await;
    user(&world, "patient", "gpu", tolerating(None)).await;
    user(&world, "elsewhere", "spare", json!([])).await;
    taint(&world, 1, broken("NoSchedule", LONG_AGO)).await;
    world.pass(60).await;
    assert!(!is_going(&world, "web").await, "NoSchedule drives nobody away");
    taint(&world, 1, broken("NoExecute", LONG_AGO)).await;
    let message = world.hears("web", REASON).await;
    assert_eq!(message, "Marking for deletion");
    goes(&world, "web").await;
    world.pass(3600).await;
    for name in ["patient", "elsewhere"] {
        assert!(!is_going(&world, name).await, "{name}");
        assert!(world.told(name).await.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_tolerates_a_taint_for_a_while_stays_as_long() {
    let world = world();
    world.create_cluster::<ResourceSlice>(slice(1, json!([]))).await;
    user(&world, "web", "gpu", tolerating(Some(300))).await;
    let now = world.create::<Pod>(json!({"metadata": {"name": "clock"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let now = now.await.metadata.creation_timestamp.clone().unwrap();
    taint(&world, 1, broken("NoExecute", &now.0.to_string())).await;
    world.pass(290).await;
    assert!(!is_going(&world, "web").await);
    taint(&world, 1, json!([])).await;
    let message = world.hears("web", REASON).await;
    assert_eq!(message, "Cancelling deletion");
    world.pass(60).await;
    assert!(!is_going(&world, "web").await, "it was spared");
    taint(&world, 1, broken("NoExecute", &now.0.to_string())).await;
    goes(&world, "web").await;
    let pod = world.get::<Pod>("web").await.expect("its finalizer keeps it");
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let target = conditions.into_iter().flatten().find(|one| one.type_ == "DisruptionTarget");
    let target = target.expect("it is told why it goes");
    assert_eq!(target.reason.as_deref(), Some("DeletionByDeviceTaintManager"));
}

#[tokio::test(start_paused = true)]
async fn of_a_pool_only_the_newest_generation_counts() {
    let world = world();
    world.create_cluster::<ResourceSlice>(slice(2, json!([]))).await;
    world.create_cluster::<ResourceSlice>(slice(1, broken("NoExecute", LONG_AGO))).await;
    user(&world, "web", "gpu", json!([])).await;
    world.pass(60).await;
    assert!(!is_going(&world, "web").await, "the tainted slice is outdated");
    world.create_cluster::<ResourceSlice>(slice(3, broken("NoExecute", LONG_AGO))).await;
    goes(&world, "web").await;
}
