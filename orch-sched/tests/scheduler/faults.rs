//! Nothing leaks and nothing is counted twice, whatever goes wrong between scheduler and cluster.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use orch_core::{
    Resources,
    client::{DeleteOptions, ListOptions},
    testing::{FaultRates, rounds},
};
use serde_json::json;

use crate::cluster::{Cluster, cpu, faulty};

/// How many pods are on each node; more than four would be over.
async fn check_nodes(cluster: &Cluster, seed: u64) -> BTreeMap<String, usize> {
    let pods: Resources<Pod> = cluster.pods.clone();
    let mut counts = BTreeMap::new();
    for pod in pods.list(ListOptions::default()).await.unwrap() {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            *counts.entry(node).or_insert(0) += 1;
        }
    }
    assert!(counts.values().all(|count| *count <= 4), "seed {seed}: {counts:?}");
    counts
}

#[tokio::test(start_paused = true)]
async fn with_faults_everything_is_placed_in_the_end() {
    for seed in 0..u64::from(rounds(8)) {
        let rates = FaultRates {
            conflict_permille: 50,
            server_error_permille: 150,
            transport_permille: 200,
            watch_drop_permille: 50,
            expired_permille: 20,
            ..FaultRates::default()
        };
        let wrap = faulty(seed, rates);
        let cluster = Cluster::start(seed, wrap, |builder| builder);
        for n in 0..3 {
            cluster.node(&format!("n{n}"), json!({}));
        }
        // Twelve fit; sixteen are asked for.
        for n in 0..16 {
            cluster.pod(&format!("p{n}"), cpu("1")).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            check_nodes(&cluster, seed).await;
        }
        tokio::time::sleep(Duration::from_secs(900)).await;
        let full = check_nodes(&cluster, seed).await;
        assert_eq!(full.values().sum::<usize>(), 12, "seed {seed}: {full:?}");
        // Whatever goes makes room for who waits.
        let placed = cluster.pods.list(ListOptions::default()).await.unwrap();
        let placed = placed.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some());
        for pod in placed.take(4) {
            let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
            cluster.pods.delete(pod.metadata.name.as_deref().unwrap(), now).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(900)).await;
        let again = check_nodes(&cluster, seed).await;
        assert_eq!(again.values().sum::<usize>(), 12, "seed {seed}: {again:?}");
    }
}
