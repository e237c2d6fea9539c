//! What befalls nodes on demand.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
};
use kube::{Api, ResourceExt};
use orch::testing::{self, TestCluster, conditions};

use crate::world::{deployment, pods};

fn says(node: Option<&Node>, status: &str) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == status))
}

async fn two_nodes(seed: u64) -> (TestCluster, Api<Node>, Api<Deployment>) {
    let cluster = testing::cluster().seed(seed).nodes(2).await;
    let web = deployment(&cluster, 4).await;
    cluster.expect(&web, "web").to("be available", conditions::is_available).await;
    let nodes = Api::all(cluster.client());
    (cluster, nodes, web)
}

fn nodes_of(pods: &[Pod]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect()
}

fn restarts(pods: &[Pod]) -> i32 {
    let statuses = |pod: &Pod| pod.status.clone()?.container_statuses;
    pods.iter().filter_map(statuses).flatten().map(|status| status.restart_count).sum()
}

#[tokio::test(start_paused = true)]
async fn pods_leave_a_node_without_power_and_it_comes_back() {
    let (cluster, nodes, web) = two_nodes(1).await;
    cluster.node("node-1").power_off();
    cluster.expect(&nodes, "node-1").to("be lost", |node| says(node, "Unknown")).await;
    let on_the_other = |pods: &[Pod]| {
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        let staying: Vec<Pod> = pods.iter().filter(stays).cloned().collect();
        staying.len() == 4 && nodes_of(&staying).iter().all(|node| *node == "node-2")
    };
    cluster.expect_all(&pods(&cluster)).to("run elsewhere", on_the_other).await;
    cluster.expect(&web, "web").to("be available", conditions::is_available).await;
    cluster.node("node-1").power_on();
    cluster.expect(&nodes, "node-1").to("be back", |node| says(node, "True")).await;
    // Its agent says that what had to go is gone.
    cluster.expect_all(&pods(&cluster)).to("be four", |pods| pods.len() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn containers_outlive_their_agent_and_a_cut() {
    let (cluster, nodes, _) = two_nodes(2).await;
    let node = cluster.node("node-1");
    node.stop_agent();
    cluster.expect(&nodes, "node-1").to("be lost", |node| says(node, "Unknown")).await;
    node.start_agent();
    cluster.expect(&nodes, "node-1").to("be back", |node| says(node, "True")).await;
    node.cut();
    cluster.expect(&nodes, "node-1").to("be lost", |node| says(node, "Unknown")).await;
    node.mend();
    cluster.expect(&nodes, "node-1").to("be back", |node| says(node, "True")).await;
    cluster.settle().await;
    let pods = pods(&cluster).list(&Default::default()).await.unwrap().items;
    assert_eq!((pods.len(), restarts(&pods)), (4, 0));
    assert!(nodes_of(&pods).contains(&"node-1"));
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_while_the_runtime_is_broken() {
    let cluster = testing::cluster().seed(3).nodes(1).await;
    cluster.node("node-1").break_runtime();
    let web = deployment(&cluster, 1).await;
    cluster.advance(Duration::from_secs(60)).await;
    let waiting = pods(&cluster).list(&Default::default()).await.unwrap().items;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    assert_eq!(waiting.iter().filter_map(phase).collect::<Vec<_>>(), ["Pending"]);
    cluster.node("node-1").mend_runtime();
    cluster.expect(&web, "web").to("be available", conditions::is_available).await;
    let running = pods(&cluster).list(&Default::default()).await.unwrap().items;
    assert_eq!(running[0].name_any(), waiting[0].name_any());
}
