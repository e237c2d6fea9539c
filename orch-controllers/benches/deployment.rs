//! How long a Deployment of 1000 replicas takes until all of its pods exist.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use orch_controllers::{Manager, deployment::deployment, replicas::replica_set};
use orch_core::{
    Client, Environment, ResourceType, Resources, informer::Informers, testing::MemoryClient,
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const REPLICAS: usize = 1000;
const ROUNDS: usize = 5;

async fn round() -> Duration {
    let environment = Environment::system();
    let cluster = MemoryClient::new(environment.clone());
    let client: Arc<dyn Client> = Arc::new(cluster.clone());
    let informers = Informers::new(client.clone(), environment);
    let stop = CancellationToken::new();
    let manager = Manager::new().with(deployment(&informers)).with(replica_set(&informers));
    let running = tokio::spawn(manager.run(stop.clone()));
    let wanted: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "web:1"}]}}},
    }))
    .expect("a deployment");
    let start = Instant::now();
    Resources::namespaced(client, "default").create(&wanted).await.expect("created");
    while cluster.count(&ResourceType::of::<Pod>()) < REPLICAS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let taken = start.elapsed();
    stop.cancel();
    running.await.expect("a graceful end");
    taken
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[tokio::main]
async fn main() {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(round().await);
    }
    times.sort_unstable();
    let median = times[ROUNDS / 2];
    let rate = REPLICAS as f64 / median.as_secs_f64();
    println!(
        "deployment of {REPLICAS}: all pods after {median:?} (median of {ROUNDS}), {rate:.0} pods/s, \
         {} MiB resident",
        resident_mib()
    );
}
