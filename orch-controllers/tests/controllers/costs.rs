//! What controllers cost: calls while nothing happens, and writes for what does.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod, Service},
    discovery::v1::{EndpointConditions, EndpointSlice},
};
use orch_controllers::{
    Runnable,
    endpoint_slice::endpoint_slice,
    standard::{StandardOptions, standard},
};
use orch_core::{ResourceType, client::PatchKind, informer::Informers};
use serde_json::{Value, json};

use crate::world::{World, template};

/// What removes pods from nodes that are not there or give no sign of life, as those here do.
const OF_NODES: [&str; 3] =
    ["node-lifecycle-controller", "pod-garbage-collector-controller", "taint-eviction-controller"];

/// Every controller but those.
fn all(informers: &Informers) -> Vec<Runnable> {
    let types = vec![
        ResourceType::of::<Pod>(),
        ResourceType::of::<ConfigMap>(),
        ResourceType::of::<ReplicaSet>(),
        ResourceType::of::<Deployment>(),
    ];
    let mut options = StandardOptions::new(types);
    options.controllers.extend(OF_NODES.map(|name| format!("-{name}")));
    standard(informers, &options).expect("all of them")
}

fn web(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": template(name, "v1")},
    })
}

/// Says of a pod what its node would.
async fn write_status(world: &World, name: &str, status: Value) {
    let pods = world.resources::<Pod>();
    pods.patch_status(name, PatchKind::Merge, status).await.expect("patched");
}

/// Calls in a day in which nothing happens to so many Deployments.
async fn calls_of_an_idle_day(deployments: usize) -> u64 {
    let world = World::start(all);
    for at in 0..deployments {
        world.create::<Deployment>(web(&format!("web-{at}"))).await;
    }
    let available = |deployment: &Deployment| {
        deployment.status.as_ref().and_then(|status| status.available_replicas) == Some(1)
    };
    world
        .eventually("all are available", async |world| {
            let all = world.list::<Deployment>().await;
            all.iter().all(|deployment| available(deployment)).then_some(())
        })
        .await;
    // What is still told of their start is told by then.
    world.pass(3600).await;
    let (calls, writes) = (world.calls(), world.writes());
    world.pass(24 * 3600).await;
    assert_eq!(world.writes(), writes, "nothing changed, and nothing was written");
    assert_eq!(world.repeated(), Vec::<String>::new(), "statuses written as they were already");
    world.calls() - calls
}

#[tokio::test(start_paused = true)]
async fn idle_deployments_cost_no_calls() {
    // What a cluster does for itself alone is the same whatever is in it.
    let (few, many) = (calls_of_an_idle_day(1).await, calls_of_an_idle_day(20).await);
    assert!(many <= few, "{few} calls a day with one Deployment, {many} with twenty");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_an_endpoint_is_one_write_of_its_slice() {
    const PODS: usize = 250;
    let world = World::start(|informers| vec![endpoint_slice(informers)]);
    world
        .create::<Service>(json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }))
        .await;
    for at in 0..PODS {
        let mut pod = template("web", "v1");
        pod["metadata"]["name"] = json!(format!("web-{at}"));
        world.create::<Pod>(pod).await;
    }
    let ready = |slices: &[std::sync::Arc<EndpointSlice>]| {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let is_ready = |conditions: &EndpointConditions| conditions.ready == Some(true);
        endpoints.filter(|e| e.conditions.as_ref().is_some_and(is_ready)).count()
    };
    world
        .eventually("all endpoints", async |world| {
            (ready(&world.list::<EndpointSlice>().await) == PODS).then_some(())
        })
        .await;
    world.pass(60).await;
    let slices = world.list::<EndpointSlice>().await.len();
    assert!(slices >= 3, "{slices} slices");
    for changes in 1..=20u64 {
        let before = world.writes();
        let name = format!("web-{}", changes * 11);
        let gone = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        write_status(&world, &name, gone).await;
        world.pass(5).await;
        assert_eq!(world.writes() - before, 1, "for {name}");
        let left = ready(&world.list::<EndpointSlice>().await);
        assert_eq!(left, PODS - changes as usize);
    }
}
