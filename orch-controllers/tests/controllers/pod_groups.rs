//! Groups of pods.

use std::sync::atomic::Ordering;

use k8s_openapi::api::{core::v1::Pod, scheduling::v1alpha2::PodGroup};
use orch_controllers::pod_group_protection::pod_group_protection;
use orch_core::client::PatchKind;
use serde_json::json;

use crate::world::World;

const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

async fn is_protected(world: &World) -> Option<bool> {
    let group = world.get::<PodGroup>("gang").await?;
    Some(group.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER))
}

#[tokio::test(start_paused = true)]
async fn a_group_stays_while_pods_name_it_that_are_not_over() {
    let world = World::start(|informers| vec![pod_group_protection(informers)]);
    world.ready.store(false, Ordering::Relaxed);
    let group = json!({"metadata": {"name": "gang"}, "spec": {"schedulingPolicy": {"basic": {}}}});
    world.create::<PodGroup>(group).await;
    world.pass(10).await;
    assert_eq!(is_protected(&world).await, Some(false), "nobody names it");
    for name in ["a", "b"] {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "schedulingGroup": {"podGroupName": "gang"}}});
        world.create::<Pod>(pod).await;
    }
    world
        .eventually("it is protected", async |world| {
            is_protected(world).await.filter(|protected| *protected)
        })
        .await;
    world.delete::<PodGroup>("gang").await;
    let over = json!({"status": {"phase": "Succeeded"}});
    world.resources::<Pod>().patch_status("a", PatchKind::Merge, over).await.unwrap();
    world.pass(10).await;
    assert_eq!(is_protected(&world).await, Some(true), "one pod is not over");
    world.delete::<Pod>("b").await;
    world
        .eventually("the group goes", async |world| {
            world.get::<PodGroup>("gang").await.is_none().then_some(())
        })
        .await;
}
