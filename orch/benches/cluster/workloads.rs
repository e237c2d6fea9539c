//! A large Deployment, and the end of the namespace that holds it.

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

use crate::{median_duration, resident_mib};

const REPLICAS: u32 = 5000;
const ROUNDS: usize = 3;

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
