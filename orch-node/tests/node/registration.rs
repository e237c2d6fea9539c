//! The Node and its Lease.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use orch_core::{Client, Resources};

use crate::cluster::{Cluster, NODE};

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
