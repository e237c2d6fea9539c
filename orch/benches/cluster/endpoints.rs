//! A service with thousands of endpoints of which a thousand change in every second.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use orch::ClusterBuilder;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    size,
    world::{IN_FLIGHT, World, processor_seconds, template},
};

const PER_SECOND: usize = 1000;
const NAMES: [&str; 3] =
    ["endpointslice-controller", "endpoints-controller", "serviceaccount-controller"];

fn status(number: usize, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    let ip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
    json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready}]}})
}

async fn set(pods: &Api<Pod>, number: usize, ready: bool) {
    let patch = Patch::Merge(status(number, ready));
    let name = format!("web-{number}");
    pods.patch_status(&name, &PatchParams::default(), &patch).await.expect("a pod");
}

/// Waits until so many endpoints are ready in the slices.
async fn until_ready(world: &World, count: usize, changed: &Notify) {
    let slices = world.cluster.informers().of::<EndpointSlice>();
    let ready = || {
        let slices = slices.list();
        let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        all.filter(|one| one.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    while ready() != count {
        changed.notified().await;
    }
}

async fn service(world: &World, endpoints: usize) {
    let pods: Api<Pod> = world.api();
    let create = async |n: usize| {
        let mut pod = template("web", "Always");
        pod["metadata"]["name"] = json!(format!("web-{n}"));
        world.create::<Pod>(pod).await;
        set(&pods, n, true).await;
    };
    stream::iter(0..endpoints).for_each_concurrent(IN_FLIGHT, create).await;
    world
        .create::<Service>(json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }))
        .await;
}

fn permits(count: &Semaphore) -> usize {
    count.available_permits()
}

pub(crate) async fn run() {
    let endpoints = size("endpoints", 5000);
    let world = World::start(&NAMES, ClusterBuilder::without_scheduler).await;
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    let slices = world.cluster.informers().of::<EndpointSlice>();
    slices.on_change(move |_| wake.notify_one());
    service(&world, endpoints).await;
    until_ready(&world, endpoints, &changed).await;

    let slice_writes = world.count::<EndpointSlice>(|_| true);
    let endpoints_writes = world.count::<Endpoints>(|_| true);
    let before = (permits(&slice_writes), permits(&endpoints_writes));
    let (start, busy) = (Instant::now(), processor_seconds());
    let pods: Api<Pod> = world.api();
    // Each goes once, and comes again.
    for change in 0..endpoints * 2 {
        let due = start + Duration::from_secs_f64(change as f64 / PER_SECOND as f64);
        tokio::time::sleep_until(due).await;
        set(&pods, change % endpoints, change >= endpoints).await;
    }
    let made = start.elapsed();
    until_ready(&world, endpoints, &changed).await;
    let seen = start.elapsed();
    println!(
        "{PER_SECOND} changes per second of {endpoints} endpoints: {} changes in {:.1} s, in the \
         slices {:.0} ms later; {:.0} % of a core; {} slices and {} Endpoints written, of {} slices",
        endpoints * 2,
        made.as_secs_f64(),
        (seen - made).as_secs_f64() * 1000.0,
        (processor_seconds() - busy) / seen.as_secs_f64() * 100.0,
        permits(&slice_writes) - before.0,
        permits(&endpoints_writes) - before.1,
        slices.len(),
    );
    world.cluster.shutdown().await;
}
