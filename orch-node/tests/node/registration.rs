//! The Node and its Lease.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use orch_core::{
    Client, Resources,
    client::{DeleteOptions, PatchKind},
};
use serde_json::json;

use crate::cluster::{Cluster, NODE, phase};

#[tokio::test(start_paused = true)]
async fn a_node_registers_and_renews_its_lease() {
    let cluster = Cluster::start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let client: Arc<dyn Client> = cluster.client.clone();
    let node = Resources::<Node>::all(client.clone()).get(NODE).await.unwrap();
    let labels = node.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/hostname"], NODE);
    let status = node.status.as_ref().unwrap();
    assert_eq!(status.allocatable.as_ref().unwrap()["cpu"].0, "4");
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    let info = status.node_info.as_ref().unwrap();
    assert!(info.kubelet_version.starts_with("v1.36."), "{}", info.kubelet_version);

    let leases = Resources::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let renewed =
        async || leases.get(NODE).await.unwrap().spec.as_ref().unwrap().renew_time.clone();
    let first = renewed().await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(renewed().await.unwrap().0 > first.0);

    // An unchanged status is not written with every heartbeat.
    let nodes = Resources::<Node>::all(client);
    let before = nodes.get(NODE).await.unwrap().metadata.resource_version.clone();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(nodes.get(NODE).await.unwrap().metadata.resource_version, before);
}

/// The lease is written without being read before. Who changes or removes it does not end that.
#[tokio::test(start_paused = true)]
async fn a_lease_that_others_wrote_is_renewed_too() {
    let cluster = Cluster::start().await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let client: Arc<dyn Client> = cluster.client.clone();
    let leases = Resources::<Lease>::namespaced(client, "kube-node-lease");
    let renewed = |lease: &Lease| lease.spec.as_ref().unwrap().renew_time.clone().unwrap();
    let labels = json!({"metadata": {"labels": {"seen": "yes"}}});
    let changed = leases.patch(NODE, PatchKind::Merge, labels).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lease = leases.get(NODE).await.unwrap();
    assert!(renewed(&lease).0 > renewed(&changed).0);
    assert_eq!(lease.metadata.labels.as_ref().unwrap()["seen"], "yes");

    leases.delete(NODE, DeleteOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lease = leases.get(NODE).await.unwrap();
    assert_eq!(lease.spec.as_ref().unwrap().holder_identity.as_deref(), Some(NODE));
}

/// What the registration said is not said again, and an image whose size is not known has none in
/// the status: a zero would not be kept, and so be written with every heartbeat.
#[tokio::test(start_paused = true)]
async fn a_status_that_is_known_is_not_written_again() {
    let cluster = Cluster::start().await;
    let client: Arc<dyn Client> = cluster.client.clone();
    let nodes = Resources::<Node>::all(client);
    let created = loop {
        match nodes.get_opt(NODE).await.unwrap() {
            Some(node) => break node,
            None => tokio::task::yield_now().await,
        }
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    let later = nodes.get(NODE).await.unwrap();
    assert_eq!(later.metadata.resource_version, created.metadata.resource_version);

    let spec = json!({"containers": [{"name": "main", "image": "registry.example/web:v1"}]});
    cluster.create("web", json!({}), spec).await;
    cluster.until("web", |status| phase(status) == "Running").await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let node = nodes.get(NODE).await.unwrap();
    let images = node.status.as_ref().unwrap().images.as_ref().expect("an image");
    assert_eq!(images.iter().map(|image| image.size_bytes).collect::<Vec<_>>(), [None]);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let later = nodes.get(NODE).await.unwrap();
    assert_eq!(later.metadata.resource_version, node.metadata.resource_version);
}
