//! Claims and the volumes made for them.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::world::{create, is_ready, seeded, template, until};

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_volume_with_its_first_consumer_and_takes_it_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let builder = seeded(6).simulated_nodes(1).local_volumes(folder.path());
    let cluster = builder.start().await.expect("it starts");
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    create::<PersistentVolumeClaim>(&cluster, claim).await;
    until::<PersistentVolumeClaim>(&cluster, |all| all.iter().any(|c| phase(c) == "Pending")).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client());
    let count = async || volumes.list(&Default::default()).await.expect("a list").items.len();
    assert_eq!(count().await, 0, "nobody uses it yet");

    let mut pod = template("db");
    pod["metadata"]["name"] = json!("db");
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    create::<Pod>(&cluster, pod).await;
    until::<Pod>(&cluster, |pods| pods.iter().any(|pod| is_ready(pod))).await;
    until::<PersistentVolumeClaim>(&cluster, |all| all.iter().all(|c| phase(c) == "Bound")).await;
    let volume = volumes.list(&Default::default()).await.expect("a list").items.remove(0);
    let path = volume.spec.and_then(|spec| spec.host_path).expect("a folder").path;
    assert!(std::path::Path::new(&path).starts_with(folder.path()), "{path}");

    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    claims.delete("data", &DeleteParams::default()).await.expect("it is deleted");
    // In use, it is protected: only with its pod it goes, and its volume after it.
    assert!(claims.get("data").await.expect("still there").metadata.deletion_timestamp.is_some());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("db", &DeleteParams::default()).await.expect("it is deleted");
    until::<PersistentVolumeClaim>(&cluster, <[_]>::is_empty).await;
    until::<PersistentVolume>(&cluster, <[_]>::is_empty).await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_grows_and_an_ephemeral_one_goes_with_its_pod() {
    let folder = tempfile::tempdir().expect("a folder");
    let builder = seeded(7).simulated_nodes(1).local_volumes(folder.path());
    let cluster = builder.start().await.expect("it starts");
    let mut pod = template("db");
    pod["metadata"]["name"] = json!("db");
    pod["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }}}]);
    create::<Pod>(&cluster, pod).await;
    until::<Pod>(&cluster, |pods| pods.iter().any(|pod| is_ready(pod))).await;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let claim = claims.get("db-scratch").await.expect("it was made");
    assert_eq!(phase(&claim), "Bound");

    let more = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
    let more = kube::api::Patch::Merge(more);
    claims.patch("db-scratch", &Default::default(), &more).await.expect("it may grow");
    let size = |list: Option<&std::collections::BTreeMap<_, Quantity>>| {
        list.and_then(|list| list.get("storage")).map(|size| size.0.clone())
    };
    until::<PersistentVolumeClaim>(&cluster, |all| {
        let status = all.first().and_then(|claim| claim.status.as_ref());
        size(status.and_then(|status| status.capacity.as_ref())).as_deref() == Some("5Gi")
    })
    .await;
    let claim = claims.get("db-scratch").await.expect("it is there");
    let resizer = "volume.kubernetes.io/storage-resizer";
    assert_eq!(claim.metadata.annotations.expect("some")[resizer], "orch.dev/local-path");
    let status = claim.status.expect("a status");
    assert_eq!(size(status.allocated_resources.as_ref()).as_deref(), Some("5Gi"));
    assert!(status.allocated_resource_statuses.is_none(), "{status:?}");
    assert!(status.conditions.unwrap_or_default().is_empty());
    let volumes: Api<PersistentVolume> = Api::all(cluster.client());
    let volume = volumes.list(&Default::default()).await.expect("a list").items.remove(0);
    let spec = volume.spec.expect("a spec");
    assert_eq!(size(spec.capacity.as_ref()).as_deref(), Some("5Gi"));
    assert_eq!(volume.metadata.finalizers.unwrap_or_default().len(), 2);

    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("db", &DeleteParams::default()).await.expect("it is deleted");
    until::<PersistentVolumeClaim>(&cluster, <[_]>::is_empty).await;
    until::<PersistentVolume>(&cluster, <[_]>::is_empty).await;
    cluster.shutdown().await;
}
