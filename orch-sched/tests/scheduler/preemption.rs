//! Less important pods make room.

use std::time::Duration;

use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use orch_core::{
    client::{DeleteOptions, ListOptions, PatchKind},
    resource::ResourceType,
    testing::{FaultRates, rounds},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, faulty};

/// A pod of this priority that requests so many CPUs.
fn important(priority: i32, cpu: &str) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
    json!({"spec": {"priority": priority, "containers": [container]}})
}

/// Takes pods that are being deleted away after a while, as their node would.
async fn finish_deleted(cluster: &Cluster) {
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    for pod in cluster.pods.list(ListOptions::default()).await.unwrap() {
        if pod.metadata.deletion_timestamp.is_some() {
            let name = pod.metadata.name.clone().unwrap();
            drop(cluster.pods.delete(&name, now.clone()).await);
        }
    }
}

async fn deleting(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods.list(ListOptions::default()).await.unwrap();
    let deleting = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
    deleting.map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

fn nominated(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// One node, full of four pods of priority 1, placed one after the other.
async fn full() -> Cluster {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    for n in 0..4 {
        cluster.pod(&format!("low{n}"), important(1, "1")).await;
        cluster.placed(&format!("low{n}")).await;
        let started = json!({"status": {"startTime": format!("2026-01-01T00:00:0{n}Z")}});
        cluster.pods.patch_status(&format!("low{n}"), PatchKind::Merge, started).await.unwrap();
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_youngest_of_the_least_important_go() {
    let cluster = full().await;
    cluster.pod("high", important(100, "2")).await;
    let (reason, message) = cluster.refused("high").await;
    assert_eq!(reason, "Unschedulable");
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    wait(1).await;
    assert_eq!(deleting(&cluster).await, ["low2", "low3"]);
    let victim = cluster.pods.get("low3").await.unwrap();
    let conditions = victim.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let target = conditions.iter().find(|one| one.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.status, "True");
    assert_eq!(target.reason.as_deref(), Some("PreemptionByScheduler"));
    let words = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(target.message.as_deref(), Some(words));
    assert_eq!(nominated(&cluster.pods.get("high").await.unwrap()), Some("n1"));
    let uid = cluster.pods.get("high").await.unwrap().metadata.uid.clone().unwrap();
    let said = ("Preempted".to_owned(), format!("Preempted by pod {uid} on node n1"));
    assert_eq!(cluster.events().await.iter().filter(|event| **event == said).count(), 2);
    // Nobody else goes while these are on their way out.
    wait(60).await;
    assert_eq!(deleting(&cluster).await.len(), 2);
    finish_deleted(&cluster).await;
    assert_eq!(cluster.placed("high").await, "n1");
}

#[tokio::test(start_paused = true)]
async fn room_that_is_made_is_kept_from_the_less_important() {
    let cluster = full().await;
    cluster.pod("high", important(100, "2")).await;
    wait(5).await;
    for (name, priority) in [("same", 100), ("small", 5)] {
        let mut pod = important(priority, "1");
        pod["spec"]["preemptionPolicy"] = "Never".into();
        cluster.pod(name, pod).await;
    }
    let (_, message) = cluster.refused("small").await;
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
         not eligible due to preemptionPolicy=Never."
    );
    finish_deleted(&cluster).await;
    assert_eq!(cluster.placed("high").await, "n1");
    // Not when one of them has just been tried again: who backs off goes behind who does not.
    wait(950).await;
    for name in ["same", "small"] {
        let pod = cluster.pods.get(name).await.unwrap();
        assert_eq!(pod.spec.as_ref().unwrap().node_name, None, "{name}");
    }
    // What is left over is for anybody.
    cluster
        .pods
        .delete("low0", DeleteOptions { grace_period_s: Some(0), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(cluster.placed("same").await, "n1");
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_over_what_was_promised() {
    let cluster = full().await;
    cluster.pod("middle", important(50, "4")).await;
    wait(5).await;
    assert_eq!(nominated(&cluster.pods.get("middle").await.unwrap()), Some("n1"));
    cluster.pod("high", important(100, "4")).await;
    wait(5).await;
    assert_eq!(nominated(&cluster.pods.get("high").await.unwrap()), Some("n1"));
    assert_eq!(nominated(&cluster.pods.get("middle").await.unwrap()), None);
    finish_deleted(&cluster).await;
    assert_eq!(cluster.placed("high").await, "n1");
    wait(900).await;
    let middle = cluster.pods.get("middle").await.unwrap();
    assert_eq!(middle.spec.as_ref().unwrap().node_name, None);
}

#[tokio::test(start_paused = true)]
async fn where_it_does_not_help_upstreams_words_say_so() {
    let cluster = Cluster::plain();
    for n in 0..4 {
        let kind = if n == 0 { "a" } else { "b" };
        cluster.node(&format!("n{n}"), json!({"metadata": {"labels": {"kind": kind}}}));
    }
    let mut pod = important(5, "4");
    pod["spec"]["nodeSelector"] = json!({"kind": "a"});
    cluster.pod("first", pod.clone()).await;
    cluster.placed("first").await;
    cluster.pod("second", pod).await;
    let (_, message) = cluster.refused("second").await;
    assert_eq!(
        message,
        "0/4 nodes are available: 1 Insufficient cpu, 3 node(s) didn't match Pod's node \
         affinity/selector. no new claims to deallocate, preemption: 0/4 nodes are available: 1 \
         No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
    );
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_kept_where_that_is_possible() {
    let cluster = Cluster::plain();
    let budget = json!({
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "kept"}}, "minAvailable": 1},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
                   "expectedPods": 1},
    });
    cluster.memory.seed(&ResourceType::of::<PodDisruptionBudget>(), budget).unwrap();
    for (n, app, priority) in [(1, "kept", 1), (2, "other", 50)] {
        cluster.node(&format!("n{n}"), json!({}));
        let mut pod = important(priority, "4");
        pod["metadata"]["labels"] = json!({"app": app});
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": format!("n{n}")});
        cluster.pod(app, pod).await;
        cluster.placed(app).await;
    }
    cluster.pod("high", important(100, "1")).await;
    wait(5).await;
    assert_eq!(deleting(&cluster).await, ["other"], "rather than the less important one");
    cluster.pod("higher", important(200, "4")).await;
    wait(5).await;
    // The first one has lost its room, and there is no other.
    assert_eq!(deleting(&cluster).await, ["kept", "other"], "where it is not, it is broken");
    finish_deleted(&cluster).await;
    assert_eq!(cluster.placed("higher").await, "n2");
    assert_eq!(cluster.placed("high").await, "n1");
}

/// Every node's CPUs that are requested; more than four would be over.
async fn check_nodes(cluster: &Cluster, seed: u64) -> usize {
    let mut counts = std::collections::BTreeMap::new();
    for pod in cluster.pods.list(ListOptions::default()).await.unwrap() {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            *counts.entry(node).or_insert(0) += 1;
        }
    }
    assert!(counts.values().all(|count| *count <= 4), "seed {seed}: {counts:?}");
    counts.values().sum()
}

#[tokio::test(start_paused = true)]
async fn with_faults_nothing_leaks_and_nothing_is_counted_twice() {
    for seed in 0..u64::from(rounds(6)) {
        let rates = FaultRates {
            conflict_permille: 50,
            server_error_permille: 150,
            transport_permille: 150,
            watch_drop_permille: 50,
            expired_permille: 20,
            ..FaultRates::default()
        };
        let wrap = faulty(seed, rates);
        let cluster = Cluster::start(seed, wrap, |builder| builder);
        for n in 0..3 {
            cluster.node(&format!("n{n}"), json!({}));
        }
        for n in 0..12 {
            cluster.pod(&format!("low{n}"), important(n % 3, "1")).await;
        }
        wait(900).await;
        assert_eq!(check_nodes(&cluster, seed).await, 12, "seed {seed}");
        for n in 0..5 {
            cluster.pod(&format!("high{n}"), important(100 + n % 2, "1")).await;
            for _ in 0..10 {
                wait(1).await;
                check_nodes(&cluster, seed).await;
                finish_deleted(&cluster).await;
            }
        }
        for _ in 0..60 {
            wait(30).await;
            check_nodes(&cluster, seed).await;
            finish_deleted(&cluster).await;
        }
        for n in 0..5 {
            let high = cluster.pods.get(&format!("high{n}")).await.unwrap();
            assert!(high.spec.as_ref().unwrap().node_name.is_some(), "seed {seed}: high{n}");
        }
        // A promise that outlived its pod would keep these out.
        for n in 0..12 {
            cluster.pod(&format!("more{n}"), important(0, "1")).await;
        }
        wait(900).await;
        assert_eq!(check_nodes(&cluster, seed).await, 12, "seed {seed}");
    }
}
