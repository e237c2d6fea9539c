//! Nodes that fail, and taints: who is evicted, and when, in virtual time.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use orch::node::{NodeAgent, runtime::simulated::SimulatedRuntime};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{create, is_ready, node_of, seeded, taints, template, until, workload};

#[tokio::test(start_paused = true)]
async fn pods_of_a_silent_node_are_replaced_after_five_minutes() {
    let cluster = seeded(7).start().await.expect("it starts");
    let start_node = |name: &str| {
        let environment = cluster.environment().clone();
        let runtime = Arc::new(SimulatedRuntime::new(environment.clone()));
        let agent = NodeAgent::builder(cluster.core_client(), environment, name, runtime).build();
        let stop = CancellationToken::new();
        tokio::spawn(agent.run(stop.clone()));
        stop
    };
    let doomed = start_node("doomed");
    create::<Deployment>(&cluster, workload("web", 4)).await;
    let all_run_on = |pods: &[Arc<Pod>], node: &str| {
        pods.iter().filter(|pod| is_ready(pod) && node_of(pod) == node).count() == 4
    };
    until::<Pod>(&cluster, |pods| all_run_on(pods, "doomed")).await;
    let spare = start_node("spare");
    until::<Node>(&cluster, |nodes| nodes.iter().filter(|n| taints(n).is_empty()).count() == 2)
        .await;

    doomed.cancel();
    let silent = Instant::now();
    until::<Node>(&cluster, |nodes| {
        let doomed = nodes.iter().find(|node| node.name_any() == "doomed");
        doomed.is_some_and(|node| taints(node).contains(&"node.kubernetes.io/unreachable"))
    })
    .await;
    // Leases are renewed every 10 s, and a node is given 50 s.
    let noticed = silent.elapsed().as_secs();
    assert!((40..=65).contains(&noticed), "noticed after {noticed} s");
    until::<Pod>(&cluster, |pods| all_run_on(pods, "spare")).await;
    let replaced = silent.elapsed().as_secs();
    // Pods tolerate an unreachable node for 300 s unless they say otherwise.
    assert!((340..=380).contains(&replaced), "replaced after {replaced} s");
    spare.cancel();
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_taint_evicts_at_once_or_after_what_is_tolerated() {
    let cluster = seeded(8).simulated_nodes(1).start().await.expect("it starts");
    let pod = |name: &str, tolerations: serde_json::Value| {
        let mut pod = template("app");
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["tolerations"] = tolerations;
        pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
        pod
    };
    let tolerate = |seconds: Option<u64>| {
        let mut toleration = json!({"key": "maintenance", "operator": "Exists"});
        if let Some(seconds) = seconds {
            toleration["effect"] = json!("NoExecute");
            toleration["tolerationSeconds"] = json!(seconds);
        }
        json!([toleration])
    };
    create::<Pod>(&cluster, pod("leaves", json!([]))).await;
    create::<Pod>(&cluster, pod("lingers", tolerate(Some(60)))).await;
    create::<Pod>(&cluster, pod("stays", tolerate(None))).await;
    until::<Pod>(&cluster, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 3).await;

    let nodes: Api<Node> = Api::all(cluster.client());
    let taint = json!({"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}});
    nodes
        .patch("node-1", &PatchParams::default(), &Patch::Merge(taint))
        .await
        .expect("it is tainted");
    let tainted = Instant::now();
    let names =
        |pods: &[Arc<Pod>]| -> Vec<String> { pods.iter().map(|pod| pod.name_any()).collect() };
    until::<Pod>(&cluster, |pods| names(pods) == ["lingers", "stays"]).await;
    assert!(tainted.elapsed() < Duration::from_secs(10), "after {:?}", tainted.elapsed());
    until::<Pod>(&cluster, |pods| names(pods) == ["stays"]).await;
    let lingered = tainted.elapsed().as_secs();
    assert!((60..=65).contains(&lingered), "after {lingered} s");
    cluster.shutdown().await;
}
