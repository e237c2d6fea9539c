//! Source: `test/e2e/storage/persistent_volumes.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::world::{Kind, World, eventually, object, patch, update};

/// How long upstream's test waits for each deletion.
const PATIENCE: Duration = Duration::from_secs(30);

/// A volume and a claim of a class of their own.
async fn create(world: &World) -> (PersistentVolume, PersistentVolumeClaim) {
    let namespace = &world.namespace;
    let volume = object(json!({
        "metadata": {"generateName": format!("{namespace}-"), "labels": {"e2e-pv-pool": namespace}},
        "spec": {
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": namespace,
            "csi": {"driver": "inline-driver.example.com", "volumeHandle": "e2e-conformance"},
        },
    }));
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let volume = volumes.create(&PostParams::default(), &volume).await.expect("a volume");
    let claim = json!({
        "metadata": {"generateName": "pvc-"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": namespace,
            "resources": {"requests": {"storage": "2Gi"}},
        },
    });
    (volume, world.create(claim).await)
}

fn revision(object: &impl kube::ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).expect("a revision")
}

/// Patches a label, and reads the object again.
async fn patched<K: Kind>(api: &Api<K>, object: &K) -> K {
    let name = object.name_any();
    let patched = patch(api, &name, json!({"metadata": {"labels": {&name: "patched"}}})).await;
    assert_eq!(patched.labels().get(&name).map(String::as_str), Some("patched"));
    assert!(revision(&patched) > revision(object));
    let read = api.get(&name).await.expect("there");
    assert_eq!(read.uid(), patched.uid());
    read
}

async fn none_left<K: Kind>(api: &Api<K>, selected: &ListParams) {
    eventually("none is left", PATIENCE, async || {
        api.list(selected).await.expect("a list").items.is_empty().then_some(())
    })
    .await;
}

/// Changes a label, and deletes by it.
async fn deleted_by_label<K: Kind>(api: &Api<K>, everywhere: &Api<K>, name: &str) {
    let updated = update(api, name, |object: &mut K| {
        object.labels_mut().insert(name.to_owned(), "updated".to_owned());
    })
    .await;
    assert_eq!(updated.labels().get(name).map(String::as_str), Some("updated"));
    let selected = ListParams::default().labels(&format!("{name}=updated"));
    assert_eq!(everywhere.list(&selected).await.expect("a list").items.len(), 1);
    api.delete_collection(&DeleteParams::default(), &selected).await.expect("it is deleted");
    none_left(api, &selected).await;
}

#[tokio::test(start_paused = true)]
async fn should_run_through_the_lifecycle_of_a_pv_and_a_pvc() {
    let world = World::start(0).await;
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let claims: Api<PersistentVolumeClaim> = world.api();
    let everywhere: Api<PersistentVolumeClaim> = Api::all(world.client.clone());
    create(&world).await;
    let pool = ListParams::default().labels(&format!("e2e-pv-pool={}", world.namespace));
    let listed = volumes.list(&pool).await.expect("a list").items;
    assert_eq!(listed.len(), 1);
    let listed_claims = claims.list(&ListParams::default()).await.expect("a list").items;
    assert_eq!(listed_claims.len(), 1);
    let volume = patched(&volumes, &listed[0]).await;
    let claim = patched(&claims, &listed_claims[0]).await;
    claims.delete(&claim.name_any(), &DeleteParams::default()).await.expect("it is deleted");
    none_left(&claims, &ListParams::default()).await;
    volumes.delete(&volume.name_any(), &DeleteParams::default()).await.expect("it is deleted");
    none_left(&volumes, &pool).await;

    let (volume, claim) = create(&world).await;
    // The claim before its volume, which is protected as long as it is bound.
    deleted_by_label(&claims, &everywhere, &claim.name_any()).await;
    deleted_by_label(&volumes, &volumes, &volume.name_any()).await;
    world.shutdown().await;
}
