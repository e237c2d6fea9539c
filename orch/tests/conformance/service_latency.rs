//! Source: `test/e2e/network/service_latency.go`.
//!
//! Latencies are of virtual time: what is counted is what somebody waits for, not what the machine
//! takes.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Service},
};
use kube::{Api, ResourceExt as _, api::WatchParams};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    watching::{Watching, version},
    world::{MINUTE, World, eventually, pod_template},
};

const TRIALS: usize = 200;
const AT_ONCE: usize = 15;
const NAME: &str = "svc-latency-rc";

/// When Endpoints first had an address, by name.
type Seen = watch::Receiver<BTreeMap<String, Instant>>;

fn has_address(endpoints: &Endpoints) -> bool {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    subsets.first().is_some_and(|subset| subset.addresses.as_ref().is_some_and(|a| !a.is_empty()))
}

/// Follows the Endpoints for as long as somebody wants to know.
async fn follow(world: &World) -> (Seen, tokio::task::JoinHandle<()>) {
    let endpoints: Api<Endpoints> = world.api();
    let from = version(&endpoints).await;
    let (seen, receiver) = watch::channel(BTreeMap::new());
    let following = tokio::spawn(async move {
        let mut watching = Watching::since(&endpoints, WatchParams::default(), &from).await;
        loop {
            let (_, changed) = watching.next().await;
            if has_address(&changed) {
                seen.send_modify(|seen| {
                    seen.entry(changed.name_any()).or_insert_with(Instant::now);
                });
            }
        }
    });
    (receiver, following)
}

/// How long it takes from asking for a Service to its first address.
async fn trial(world: &World, mut seen: Seen) -> Duration {
    let service = json!({
        "metadata": {"generateName": "latency-svc-"},
        "spec": {
            "ports": [{"protocol": "TCP", "port": 80}], "selector": {"name": NAME},
            "type": "ClusterIP", "sessionAffinity": "None",
        },
    });
    let start = Instant::now();
    let name = world.create::<Service>(service).await.name_any();
    let found = seen.wait_for(|seen| seen.contains_key(&name));
    let found = tokio::time::timeout(5 * MINUTE, found).await.expect("there is an address");
    found.expect("somebody follows")[&name].saturating_duration_since(start)
}

#[tokio::test(start_paused = true)]
async fn should_not_be_very_high() {
    let world = World::start(1).await;
    let labels = json!({"name": NAME});
    let deployment = json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels}, "strategy": {"type": "Recreate"},
            "template": pod_template(&labels),
        },
    });
    world.create::<Deployment>(deployment).await;
    eventually("the pod is available", 5 * MINUTE, async || {
        let status = world.api::<Deployment>().get(NAME).await.expect("there").status?;
        (status.available_replicas == Some(1)).then_some(())
    })
    .await;
    let (seen, following) = follow(&world).await;
    trial(&world, seen.clone()).await;
    let trials = stream::iter(0..TRIALS).map(|_| trial(&world, seen.clone()));
    let mut latencies: Vec<Duration> = trials.buffer_unordered(AT_ONCE).collect().await;
    latencies.sort_unstable();
    let percentile = |p: usize| latencies[TRIALS * p / 100];
    assert!(percentile(50) <= Duration::from_secs(20), "{latencies:?}");
    assert!(percentile(99) <= Duration::from_secs(50), "{latencies:?}");
    following.abort();
    world.shutdown().await;
}
