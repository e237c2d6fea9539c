//! Pods scheduled per second, end to end: created through the API, placed by the default profile,
//! their bindings stored.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use orch::{Cluster, core::informer::Change};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

use crate::{median, resident_mib};

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 3;

fn node(n: usize) -> Node {
    let node = json!({
        "metadata": {"name": format!("node-{n}"), "labels": {
            "kubernetes.io/hostname": format!("node-{n}"),
            "topology.kubernetes.io/zone": format!("zone-{}", n % 10),
        }},
        "status": {
            "allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"},
            "capacity": {"cpu": "32", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    serde_json::from_value(node).expect("a node")
}

/// What a workload adds to its pods' spec.
fn pod(n: usize, more: &Value) -> Pod {
    let requests = json!({"cpu": "100m", "memory": "500Mi"});
    let mut pod = json!({
        "metadata": {"name": format!("pod-{n}"), "labels": {"app": "bench"}},
        "spec": {"containers": [
            {"name": "c", "image": "pause", "resources": {"requests": requests}},
        ]},
    });
    let spec = pod["spec"].as_object_mut().expect("an object");
    spec.extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(pod).expect("a pod")
}

/// Nodes as objects only: nothing runs on them, and no controller misses their heartbeats.
pub(crate) async fn create_nodes(client: &kube::Client, count: usize) {
    let nodes: Api<Node> = Api::all(client.clone());
    let create = |n: usize| {
        let nodes = nodes.clone();
        async move {
            let created = nodes.create(&PostParams::default(), &node(n)).await;
            created.expect("a node");
            // New nodes are tainted as not ready; the controller that mends that does not run.
            let free = Patch::Merge(json!({"spec": {"taints": null}}));
            let patched = nodes.patch(&format!("node-{n}"), &PatchParams::default(), &free).await;
            patched.expect("a node without taints");
        }
    };
    stream::iter(0..count).for_each_concurrent(IN_FLIGHT, create).await;
}

/// From the first creation to the last binding that is stored.
async fn schedule(nodes: usize, pods: usize, more: &Value) -> Duration {
    let none: [&str; 0] = [];
    let cluster = Cluster::builder().controllers(none).start().await.expect("it starts");
    let client = cluster.client();
    create_nodes(&client, nodes).await;
    // Pods are not admitted without; the controller that makes it does not run.
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}}));
    let account = account.expect("a service account");
    accounts.create(&PostParams::default(), &account).await.expect("a service account");
    let bound = Arc::new(Semaphore::new(0));
    let count = bound.clone();
    cluster.informers().of::<Pod>().on_change(move |change| {
        let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if let Change::Updated { old, new } = change
            && !is_bound(old)
            && is_bound(new)
        {
            count.add_permits(1);
        }
    });
    let start = Instant::now();
    let api: Api<Pod> = Api::default_namespaced(client);
    let create = |n: usize| {
        let (api, pod) = (api.clone(), pod(n, more));
        async move {
            api.create(&PostParams::default(), &pod).await.expect("a pod");
        }
    };
    stream::iter(0..pods).for_each_concurrent(IN_FLIGHT, create).await;
    let pods = u32::try_from(pods).expect("a small number");
    let _all = bound.acquire_many(pods).await.expect("it is never closed");
    let took = start.elapsed();
    cluster.shutdown().await;
    took
}

pub(crate) async fn run() {
    let selector = json!({"matchLabels": {"app": "bench"}});
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 5, "labelSelector": selector,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]});
    let apart = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}}});
    for (name, nodes, pods, more) in [
        ("basic", 1000, 5000, json!({})),
        ("basic", 5000, 5000, json!({})),
        ("topology spreading", 5000, 5000, spread),
        ("pod anti-affinity", 5000, 2000, apart),
    ] {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(pods as f64 / schedule(nodes, pods, &more).await.as_secs_f64());
        }
        println!(
            "schedule {pods} pods on {nodes} nodes, {name}: {:.0} pods/s (resident {:.0} MiB)",
            median(rates),
            resident_mib("self")
        );
    }
}
