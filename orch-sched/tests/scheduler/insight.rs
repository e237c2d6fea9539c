//! Why a pod goes where it goes, and what would happen if.

use std::{sync::Arc, time::Duration};

use orch_core::informer::Informers;
use orch_sched::{Changes, PodInfo, Scheduler};
use serde_json::{Value, json};

use crate::cluster::{Cluster, cpu, environment, node, pod};

fn info(pod: Value) -> PodInfo {
    PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
}

/// A scheduler that sees the cluster and does not run.
async fn watching(cluster: &Cluster) -> Scheduler {
    let informers = Informers::new(cluster.memory.clone(), environment(1));
    let scheduler = Scheduler::builder(&informers).build().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    scheduler
}

/// Two zones; one node is full and one is tainted.
async fn cluster() -> Cluster {
    let cluster = Cluster::plain();
    for (name, zone) in [("full", "a"), ("free", "a"), ("half", "b"), ("tainted", "b")] {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        let taints = match name {
            "tainted" => json!([{"key": "k", "effect": "NoSchedule"}]),
            _ => json!([]),
        };
        cluster.node(name, json!({"metadata": {"labels": labels}, "spec": {"taints": taints}}));
    }
    for (name, node, amount) in [("a", "full", "4"), ("b", "half", "2")] {
        let mut pod = cpu(amount);
        pod["spec"]["nodeName"] = node.into();
        cluster.pod(name, pod).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn every_verdict_and_every_score_is_told() {
    let cluster = cluster().await;
    let scheduler = watching(&cluster).await;
    let mut wanted = pod("new", cpu("1"));
    wanted["spec"]["priority"] = 5.into();
    let explanation = scheduler.explain(&info(wanted)).unwrap();
    assert_eq!(explanation.best, ["free"]);
    let told = serde_json::to_value(&explanation).unwrap();
    assert_eq!(told["pod"], "default/new");
    let by_name = |name: &str| {
        let nodes = told["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["node"] == name).unwrap().clone()
    };
    assert_eq!(
        by_name("full")["objections"],
        json!([{"plugin": "NodeResourcesFit", "reasons": ["Insufficient cpu"],
                "unresolvable": false, "besideNominated": false}])
    );
    assert_eq!(by_name("full")["total"], Value::Null);
    assert_eq!(by_name("tainted")["objections"][0]["plugin"], "TaintToleration");
    assert_eq!(by_name("tainted")["objections"][0]["unresolvable"], true);
    // One of four CPUs and no memory: 75 and 97 of what is free.
    let fit = &by_name("free")["scores"]["NodeResourcesFit"];
    assert_eq!(*fit, json!({"raw": 86, "normalized": 86, "weighted": 86}));
    let taints = &by_name("half")["scores"]["TaintToleration"];
    assert_eq!(*taints, json!({"raw": 0, "normalized": 100, "weighted": 300}));
    let scores = by_name("free")["scores"].as_object().unwrap().clone();
    let sum: i64 = scores.values().map(|score| score["weighted"].as_i64().unwrap()).sum();
    assert_eq!(by_name("free")["total"], sum);
    let nowhere = scheduler.explain(&info(pod("huge", cpu("5")))).unwrap();
    assert_eq!(
        nowhere.message.as_deref(),
        Some("0/4 nodes are available: 1 node(s) had untolerated taint(s), 3 Insufficient cpu.")
    );
    assert!(nowhere.best.is_empty());
    let mut lost = pod("lost", json!({}));
    lost["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    let lost = scheduler.explain(&info(lost)).unwrap();
    assert_eq!(lost.objections[0].reasons, ["persistentvolumeclaim \"c\" not found"]);
}

#[tokio::test(start_paused = true)]
async fn what_if_changes_nothing() {
    let cluster = cluster().await;
    let scheduler = watching(&cluster).await;
    let typed = |value: Value| Arc::new(serde_json::from_value(value).unwrap());
    let more = Arc::new(serde_json::from_value(pod("more", cpu("1"))).unwrap());
    let changes = Changes { fill_with: Some(more), ..Changes::default() };
    let outcome = scheduler.what_if(&changes).unwrap();
    assert_eq!(outcome.filled_total, 6);
    assert_eq!((outcome.filled["free"], outcome.filled["half"]), (4, 2));
    assert!(outcome.full.unwrap().contains("Insufficient cpu"));
    let drained = Changes {
        drain: vec!["full".into(), "half".into()],
        add_nodes: vec![typed(node("new", json!({"status": {"allocatable": {"cpu": "3"}}})))],
        fill_max: Some(1),
        ..changes.clone()
    };
    let outcome = scheduler.what_if(&drained).unwrap();
    let mut placed: Vec<(&str, &str)> =
        outcome.placed.iter().map(|one| (&*one.pod, &*one.node)).collect();
    placed.sort_unstable();
    assert_eq!(placed, [("default/a", "free"), ("default/b", "new")]);
    assert_eq!(outcome.placed[0].from.as_deref(), Some("full"));
    assert_eq!((outcome.filled_total, outcome.full), (1, None));
    let too_much = Changes { drain: vec!["full".into(), "free".into()], ..Changes::default() };
    let outcome = scheduler.what_if(&too_much).unwrap();
    assert_eq!(outcome.unplaced[0].pod, "default/a");
    assert!(outcome.unplaced[0].message.starts_with("0/2 nodes are available"));
    // Asked again, everything is as it was.
    assert_eq!(scheduler.what_if(&changes).unwrap().filled_total, 6);
}
