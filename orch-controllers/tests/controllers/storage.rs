//! Volumes and claims.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use orch_controllers::volumes::{
    LocalPath, LocalPathOptions, claim_protection, ensure_storage_class, volume_binder,
    volume_protection,
};
use serde_json::{Value, json};

use crate::world::{World, template};

fn world(folder: &std::path::Path) -> World {
    let provisioner = Arc::new(LocalPath::new(LocalPathOptions::new(folder)));
    World::start(|informers| {
        vec![
            volume_binder(informers, vec![provisioner]),
            claim_protection(informers),
            volume_protection(informers),
        ]
    })
}

pub(crate) fn volume(name: &str, size: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy, "hostPath": {"path": "/tmp/x"}},
    })
}

pub(crate) fn claim(name: &str, size: &str, class: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": size}}},
    })
}

pub(crate) fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

pub(crate) async fn bound(world: &World, name: &str) -> String {
    world
        .eventually("the claim is bound", async |world| {
            let claim = world.get::<PersistentVolumeClaim>(name).await?;
            (phase(&claim) == Some("Bound")).then(|| claim.spec.clone()?.volume_name).flatten()
        })
        .await
}

pub(crate) async fn volume_phase(world: &World, name: &str) -> Option<String> {
    world.all::<PersistentVolume>().get(name).await.ok()?.status.clone()?.phase
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_and_leaves_it_released() {
    let world = world(std::path::Path::new("/nonexistent"));
    for (name, size) in [("small", "1Gi"), ("large", "100Gi"), ("medium", "10Gi")] {
        world.create_cluster::<PersistentVolume>(volume(name, size, "Retain")).await;
    }
    world.create::<PersistentVolumeClaim>(claim("data", "5Gi", Some(""))).await;
    assert_eq!(bound(&world, "data").await, "medium");
    assert_eq!(volume_phase(&world, "medium").await.as_deref(), Some("Bound"));
    assert_eq!(volume_phase(&world, "large").await.as_deref(), Some("Available"));
    let data = world.get::<PersistentVolumeClaim>("data").await.unwrap();
    assert_eq!(data.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0, "10Gi");
    assert!(
        data.metadata.finalizers.as_ref().unwrap().iter().any(|f| f.ends_with("pvc-protection"))
    );
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
    world.delete::<PersistentVolumeClaim>("data").await;
    world
        .eventually("the volume is released", async |world| {
            (volume_phase(world, "medium").await.as_deref() == Some("Released")).then_some(())
        })
        .await;
    assert!(world.get::<PersistentVolumeClaim>("data").await.is_none());
    // A released volume is not for anybody else.
    world.create::<PersistentVolumeClaim>(claim("other", "5Gi", Some(""))).await;
    assert_eq!(bound(&world, "other").await, "large");
}

#[tokio::test(start_paused = true)]
async fn many_claims_never_share_a_volume() {
    let world = world(std::path::Path::new("/nonexistent"));
    for number in 0..10 {
        let name = format!("claim-{number}");
        world.create::<PersistentVolumeClaim>(claim(&name, "1Gi", Some(""))).await;
    }
    for number in 0..10 {
        let name = format!("volume-{number}");
        world.create_cluster::<PersistentVolume>(volume(&name, "1Gi", "Retain")).await;
    }
    let mut volumes = std::collections::BTreeSet::new();
    for number in 0..10 {
        volumes.insert(bound(&world, &format!("claim-{number}")).await);
    }
    assert_eq!(volumes.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_made_where_the_first_consumer_runs_and_deleted_with_the_claim() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path());
    let node =
        json!({"metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "host-1"}}});
    world.create_cluster::<Node>(node).await;
    let client = Arc::new(world.cluster.clone());
    ensure_storage_class(client.clone(), &LocalPath::storage_class()).await.unwrap();
    ensure_storage_class(client, &LocalPath::storage_class()).await.unwrap();
    assert_eq!(world.all::<StorageClass>().list(Default::default()).await.unwrap().len(), 1);
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", None)).await;
    world.pass(60).await;
    let waiting = world.get::<PersistentVolumeClaim>("data").await.unwrap();
    assert_eq!(phase(&waiting), Some("Pending"));
    assert_eq!(waiting.spec.as_ref().unwrap().storage_class_name.as_deref(), Some("standard"));

    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!("user");
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    world.create::<Pod>(pod).await;
    let name = bound(&world, "data").await;
    let volume = world.all::<PersistentVolume>().get(&name).await.unwrap();
    let spec = volume.spec.as_ref().unwrap();
    let path = std::path::PathBuf::from(&spec.host_path.as_ref().unwrap().path);
    assert_eq!(path, folder.path().join(&name));
    let affinity = serde_json::to_value(&spec.node_affinity).unwrap();
    let values = affinity.pointer("/required/nodeSelectorTerms/0/matchExpressions/0/values");
    assert_eq!(values, Some(&json!(["host-1"])));
    std::fs::create_dir_all(path.join("content")).unwrap();

    // In use, the claim stays; then it goes, and the volume and its folder with it.
    world.delete::<PersistentVolumeClaim>("data").await;
    world.pass(60).await;
    assert!(world.get::<PersistentVolumeClaim>("data").await.is_some());
    world.delete::<Pod>("user").await;
    for _ in 0..2000 {
        // Deleting the folder is real work in another thread, during which virtual time may run.
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        if world.all::<PersistentVolume>().get_opt(&name).await.unwrap().is_none() {
            break;
        }
        world.pass(1).await;
    }
    assert!(world.get::<PersistentVolumeClaim>("data").await.is_none());
    assert!(world.all::<PersistentVolume>().get_opt(&name).await.unwrap().is_none());
    assert!(!path.exists());
}
