//! Pods with claims.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSINode, StorageClass, VolumeAttachment},
};
use orch_core::{
    Resources,
    client::{DeleteOptions, PatchKind},
    resource::ResourceType,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn volume(cluster: &Cluster, name: &str, node: &str, size: &str, claim: Value) {
    let volume = json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local", "claimRef": claim,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
        },
        "status": {"phase": if claim.is_null() { "Available" } else { "Bound" }},
    });
    cluster.memory.seed(&ResourceType::of::<PersistentVolume>(), volume).unwrap();
}

fn claim(cluster: &Cluster, name: &str, class: &str, volume: Value) {
    let claim = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": if volume.is_null() { "Pending" } else { "Bound" }},
    });
    cluster.memory.seed(&ResourceType::of::<PersistentVolumeClaim>(), claim).unwrap();
}

fn class(cluster: &Cluster, name: &str, provisioner: &str, mode: &str) {
    let class =
        json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
    cluster.memory.seed(&ResourceType::of::<StorageClass>(), class).unwrap();
}

fn using(claim: &str) -> Value {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
    json!({"spec": {"volumes": [volume]}})
}

fn cluster() -> Cluster {
    let cluster = Cluster::plain();
    for name in ["n1", "n2", "n3"] {
        cluster.node(name, json!({}));
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_where_its_bound_volume_is() {
    let cluster = cluster();
    volume(&cluster, "v1", "n2", "1Gi", json!({"name": "data", "namespace": "default"}));
    claim(&cluster, "data", "local", "v1".into());
    cluster.pod("p", using("data")).await;
    assert_eq!(cluster.placed("p").await, "n2");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_missing_or_unbound_is_waited_for() {
    let cluster = cluster();
    cluster.pod("p", using("data")).await;
    let (_, message) = cluster.refused("p").await;
    // The last words are upstream's too: of a plugin that comes later and was not asked.
    let words = "0/3 nodes are available: persistentvolumeclaim \"data\" not found. not found";
    assert_eq!(message, words);
    claim(&cluster, "other", "local", Value::Null);
    cluster.pod("q", using("other")).await;
    let (_, message) = cluster.refused("q").await;
    let words =
        "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found";
    assert_eq!(message, words);
    volume(&cluster, "v1", "n3", "1Gi", json!({"name": "data", "namespace": "default"}));
    claim(&cluster, "data", "local", "v1".into());
    assert_eq!(cluster.placed("p").await, "n3");
}

/// Binds the claim as the volume controller would, once the scheduler has decided.
async fn bind_when<K>(
    cluster: &Cluster,
    resources: Resources<K>,
    decided: fn(&K) -> bool,
    volume: &str,
) where
    K: orch_core::informer::Watchable,
{
    let stream = resources.watch(Default::default()).await.unwrap();
    let seen = Resources::first_match(stream, decided);
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.expect("the scheduler decides").unwrap().unwrap();
    let claims: Resources<PersistentVolumeClaim> =
        Resources::namespaced(cluster.memory.clone(), "default");
    let bound = json!({"spec": {"volumeName": volume},
                       "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
    claims.patch("data", PatchKind::Merge, bound).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_smallest_volume_that_suits_is_promised_to_the_first_consumer() {
    let cluster = cluster();
    class(&cluster, "local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
    volume(&cluster, "large", "n2", "9Gi", Value::Null);
    volume(&cluster, "small", "n2", "2Gi", Value::Null);
    volume(&cluster, "tiny", "n1", "1Mi", Value::Null);
    claim(&cluster, "data", "local", Value::Null);
    cluster.pod("p", using("data")).await;
    let volumes: Resources<PersistentVolume> = Resources::all(cluster.memory.clone());
    let decided = |volume: &PersistentVolume| {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        claim.is_some_and(|claim| claim.name.as_deref() == Some("data"))
    };
    bind_when(&cluster, volumes.clone(), decided, "small").await;
    assert_eq!(cluster.placed("p").await, "n2");
    assert!(decided(&volumes.get("small").await.unwrap()));
    assert!(!decided(&volumes.get("large").await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_provisioner_is_told_the_node() {
    let cluster = cluster();
    class(&cluster, "made", "example.com/provisioner", "WaitForFirstConsumer");
    claim(&cluster, "data", "made", Value::Null);
    let mut pod = using("data");
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n3"});
    cluster.pod("p", pod).await;
    let claims: Resources<PersistentVolumeClaim> =
        Resources::namespaced(cluster.memory.clone(), "default");
    let decided = |claim: &PersistentVolumeClaim| {
        let annotations = claim.metadata.annotations.as_ref();
        let node = annotations.and_then(|a| a.get("volume.kubernetes.io/selected-node"));
        node.is_some_and(|node| node == "n3")
    };
    bind_when(&cluster, claims, decided, "v").await;
    assert_eq!(cluster.placed("p").await, "n3");
}

/// A claim of the same name as its volume and the volume's handle.
fn driven(cluster: &Cluster, name: &str) {
    let volume = json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
            "csi": {"driver": "csi.example", "volumeHandle": name},
            "claimRef": {"namespace": "default", "name": name},
        },
        "status": {"phase": "Bound"},
    });
    cluster.memory.seed(&ResourceType::of::<PersistentVolume>(), volume).unwrap();
    claim(cluster, name, "", name.into());
}

fn limit(cluster: &Cluster, node: &str, count: u32) {
    let driver = json!({"name": "csi.example", "nodeID": node, "allocatable": {"count": count}});
    let node = json!({"metadata": {"name": node}, "spec": {"drivers": [driver]}});
    cluster.memory.seed(&ResourceType::of::<CSINode>(), node).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_attached_counts_until_it_is_detached() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    limit(&cluster, "n1", 1);
    for name in ["a", "b", "c"] {
        driven(&cluster, name);
    }
    cluster.pod("first", using("a")).await;
    assert_eq!(cluster.placed("first").await, "n1");
    cluster.pod("same", using("a")).await;
    assert_eq!(cluster.placed("same").await, "n1", "it is there already");

    cluster.pod("second", using("b")).await;
    let (_, message) = cluster.refused("second").await;
    assert!(message.contains("1 node(s) exceed max volume count"), "{message}");
    limit(&cluster, "n1", 2);
    assert_eq!(cluster.placed("second").await, "n1", "the driver can do more now");

    let attachment = json!({
        "metadata": {"name": "a-on-n1"},
        "spec": {"attacher": "csi.example", "nodeName": "n1",
                 "source": {"persistentVolumeName": "a"}},
    });
    cluster.memory.seed(&ResourceType::of::<VolumeAttachment>(), attachment).unwrap();
    let pods: Resources<Pod> = Resources::namespaced(cluster.memory.clone(), "default");
    for name in ["first", "same"] {
        let at_once = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
        pods.delete(name, at_once).await.unwrap();
    }
    cluster.pod("third", using("c")).await;
    let (_, message) = cluster.refused("third").await;
    assert!(message.contains("1 node(s) exceed max volume count"), "{message}");
    let attachments: Resources<VolumeAttachment> = Resources::all(cluster.memory.clone());
    attachments.delete("a-on-n1", Default::default()).await.unwrap();
    assert_eq!(cluster.placed("third").await, "n1");
}
