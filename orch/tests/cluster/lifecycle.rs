//! How clusters start, refuse to start, and end.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use orch::{
    Cluster, StartError, cluster::NodeSetup, core::Environment,
    node::runtime::simulated::SimulatedRuntime,
};
use tokio::runtime::Handle;

use crate::world::{create, is_ready, seeded, until, workload};

/// A cluster that has run something, so that every kind of task has been started.
async fn used(seed: u64) -> Cluster {
    let cluster = seeded(seed).simulated_nodes(3).start().await.expect("it starts");
    cluster.nodes_ready().await;
    create::<Deployment>(&cluster, workload("web", 6)).await;
    until::<Pod>(&cluster, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 6).await;
    cluster
}

/// Tasks that are left once everything that can end has ended.
async fn tasks_left() -> usize {
    // Virtual time passes only when nothing else can run.
    tokio::time::sleep(Duration::from_secs(600)).await;
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_no_task_behind() {
    let cluster = used(9).await;
    assert!(Handle::current().metrics().num_alive_tasks() > 10, "a cluster is many tasks");
    cluster.shutdown().await;
    assert_eq!(tasks_left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_leaves_no_task_behind() {
    drop(used(10).await);
    assert_eq!(tasks_left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn one_cluster_outlives_another() {
    let (first, second) = tokio::join!(used(11), used(12));
    first.shutdown().await;
    create::<Deployment>(&second, workload("later", 2)).await;
    until::<Pod>(&second, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 8).await;
    second.shutdown().await;
    assert_eq!(tasks_left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_together_does_not_start() {
    let runtime = Arc::new(SimulatedRuntime::new(Environment::system()));
    let twice = seeded(13).simulated_nodes(2).node(NodeSetup::new("node-2", runtime)).start();
    let error = twice.await.expect_err("node-2 is there twice");
    assert!(matches!(&error, StartError::DuplicateNode(name) if name == "node-2"), "{error}");
    let unknown = seeded(14).controllers(["*", "-deploymint-controller"]).start();
    let error = unknown.await.expect_err("there is no such controller");
    assert!(matches!(error, StartError::UnknownController(_)), "{error}");
    assert!(error.to_string().contains("deploymint-controller"), "{error}");
    assert_eq!(tasks_left().await, 0, "nothing runs after a failed start");
}

#[tokio::test(start_paused = true)]
async fn controllers_can_be_left_out() {
    let cluster = seeded(15).simulated_nodes(1).controllers(["*", "-replicaset-controller"]);
    let cluster = cluster.start().await.expect("it starts");
    create::<Deployment>(&cluster, workload("web", 1)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let pods = kube::Api::<Pod>::all(cluster.client()).list(&Default::default()).await;
    assert_eq!(pods.expect("a list").items.len(), 0, "nobody makes pods of replica sets");
    cluster.shutdown().await;
}
