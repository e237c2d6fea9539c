//! A large Deployment, and the end of the namespace that holds it; a small one until it is Available.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use orch::{Cluster, core::informer::Change};
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    median_duration, resident_mib, size,
    world::{World, deployment},
};

const REPLICAS: u32 = 5000;
const ROUNDS: usize = 3;
const SMALL_ROUNDS: usize = 20;
const NODES: usize = 3;

/// From the creation of a Deployment until all of its pods are available, on simulated nodes, and
/// the writes of that.
async fn available(replicas: usize) -> (Duration, u64) {
    let world = World::start(&["*"], |builder| builder.simulated_nodes(NODES)).await;
    world.cluster.nodes_ready().await;
    let reached = world.count::<Deployment>(move |change| {
        orch::testing::conditions::is_available(Some(&**change.object()))
    });
    let (start, before) = (Instant::now(), world.store.revision());
    world.create::<Deployment>(deployment("web", replicas)).await;
    let _permit = reached.acquire().await.expect("it is never closed");
    let figures = (start.elapsed(), world.store.revision() - before);
    world.cluster.shutdown().await;
    figures
}

/// On a runtime of one thread, which is what tests have, and on one of all threads.
pub(crate) fn small() {
    let replicas = size("available", 100);
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let multi = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    for (name, runtime) in [("one thread", single), ("all threads", multi)] {
        let runtime = runtime.expect("a runtime");
        let round = |_| runtime.block_on(available(replicas));
        let rounds: Vec<(Duration, u64)> = (0..SMALL_ROUNDS).map(round).collect();
        let (times, writes): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        println!(
            "Deployment of {replicas} replicas on {NODES} simulated nodes until Available, {name}: \
             {:?} (best {:?}), {} writes",
            median_duration(&times),
            times.iter().min().expect("there are rounds"),
            writes.iter().min().expect("there are rounds"),
        );
    }
}

async fn round() -> [Duration; 2] {
    let cluster = Cluster::builder().start().await.expect("it starts");
    let client = cluster.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let team = serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &team).await.expect("a namespace");
    let created = Arc::new(Semaphore::new(0));
    let count = created.clone();
    cluster.informers().of::<Pod>().on_change(move |change| {
        if matches!(change, Change::Added(_)) {
            count.add_permits(1);
        }
    });
    let start = Instant::now();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]},
            },
        },
    }))
    .expect("a Deployment");
    let deployments: Api<Deployment> = Api::namespaced(client, "team");
    deployments.create(&PostParams::default(), &deployment).await.expect("a Deployment");
    let _all = created.acquire_many(REPLICAS).await.expect("it is never closed");
    let deployed = start.elapsed();

    let uid = namespaces.get("team").await.expect("it is there").metadata.uid.unwrap_or_default();
    let start = Instant::now();
    namespaces.delete("team", &DeleteParams::default()).await.expect("it is deleted");
    let gone = await_condition(namespaces, "team", conditions::is_deleted(&uid)).await;
    gone.expect("the watch works");
    let emptied = start.elapsed();
    cluster.shutdown().await;
    [deployed, emptied]
}

pub(crate) async fn run() {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    let of = |at: usize| median_duration(&rounds.iter().map(|r| r[at]).collect::<Vec<_>>());
    println!("Deployment of {REPLICAS} replicas until all Pods exist: {:?}", of(0));
    println!(
        "namespace with {REPLICAS} Pods deleted after {:?} (resident {:.0} MiB)",
        of(1),
        resident_mib("self")
    );
}
