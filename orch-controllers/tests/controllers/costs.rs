//! What controllers cost: calls while nothing happens, and writes for what does.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Node, Pod, ResourceQuota, Service},
    discovery::v1::{EndpointConditions, EndpointSlice},
    policy::v1::PodDisruptionBudget,
};
use orch_controllers::{
    Runnable,
    daemon_set::daemon_set,
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

/// The spec of a workload: `replicas` pods of one app.
fn workload(name: &str, replicas: i32) -> Value {
    let mut object = web(name);
    object["spec"]["replicas"] = json!(replicas);
    object
}

async fn create_all(world: &World) {
    for at in 1..=3 {
        world.create_cluster::<Node>(json!({"metadata": {"name": format!("node-{at}")}})).await;
    }
    world.create::<Deployment>(workload("web", 5)).await;
    world.create::<DaemonSet>(web("daemon")).await;
    let mut set = workload("set", 3);
    set["spec"]["serviceName"] = json!("set");
    world.create::<StatefulSet>(set).await;
    let mut template = template("job", "v1");
    template["spec"]["restartPolicy"] = json!("Never");
    // What the API server puts where a Job says nothing.
    let job = json!({"completions": 4, "parallelism": 2, "backoffLimit": 6, "suspend": false,
        "completionMode": "NonIndexed", "selector": {"matchLabels": {"app": "job"}},
        "template": template});
    world.create::<Job>(json!({"metadata": {"name": "job"}, "spec": job})).await;
    let budget = json!({"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}});
    world
        .create::<PodDisruptionBudget>(json!({"metadata": {"name": "budget"}, "spec": budget}))
        .await;
    let quota = json!({"hard": {"pods": "100", "count/configmaps": "10"}});
    world.create::<ResourceQuota>(json!({"metadata": {"name": "quota"}, "spec": quota})).await;
}

#[tokio::test(start_paused = true)]
async fn no_status_is_written_twice() {
    let world = World::start(all);
    create_all(&world).await;
    world.pass(600).await;
    // A rollout, more and fewer pods, one that fails, and one that ends.
    let next =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "v2"}]}}}});
    world.patch::<Deployment>("web", next.clone()).await;
    world.patch::<StatefulSet>("set", next.clone()).await;
    world.patch::<DaemonSet>("daemon", next).await;
    world.pass(600).await;
    world.patch::<Deployment>("web", json!({"spec": {"replicas": 8}})).await;
    world.pass(60).await;
    world.patch::<Deployment>("web", json!({"spec": {"replicas": 2}})).await;
    world.delete::<Pod>("set-1").await;
    for pod in world.list::<Pod>().await {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if name.starts_with("job-") {
            write_status(&world, &name, json!({"status": {"phase": "Succeeded"}})).await;
        }
    }
    world.pass(600).await;
    let set = world.get::<StatefulSet>("set").await.expect("it is there");
    assert_eq!(set.status.as_ref().and_then(|status| status.ready_replicas), Some(3));
    let web = world.get::<Deployment>("web").await.expect("it is there");
    assert_eq!(web.status.as_ref().and_then(|status| status.available_replicas), Some(2));
    let job = world.get::<Job>("job").await.expect("it is there");
    assert!(job.status.as_ref().and_then(|status| status.succeeded) >= Some(2), "{job:?}");
    assert_eq!(world.repeated(), Vec::<String>::new(), "written as they were already");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_writes_little_but_its_pods() {
    const NODES: u64 = 300;
    // Events about one object are 25 at once, as client-go has it; then there is the revision, and a
    // status for each burst of pods, whose pods then become ready.
    const BESIDES: u64 = 25 + 1 + 10;
    let world = World::start(|informers| vec![daemon_set(informers)]);
    for at in 0..NODES {
        world.create_cluster::<Node>(json!({"metadata": {"name": format!("node-{at}")}})).await;
    }
    world.create::<DaemonSet>(web("daemon")).await;
    world
        .eventually("all are ready", async |world| {
            let set = world.get::<DaemonSet>("daemon").await?;
            (set.status.as_ref()?.number_ready == NODES as i32).then_some(())
        })
        .await;
    let writes = world.writes();
    assert!((NODES..=NODES + BESIDES).contains(&writes), "{writes} writes");
}
