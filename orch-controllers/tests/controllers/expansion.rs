//! Volumes that grow, ephemeral ones, and classes that are in use.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::VolumeAttributesClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_controllers::volumes::{
    Expansion, LocalPath, LocalPathOptions, ProvisionError, StorageMetrics, VolumeExpander,
    attributes_class_protection, ephemeral_volume, volume_binder, volume_expansion,
};
use orch_core::client::PatchKind;
use serde_json::{Value, json};

use crate::{
    storage::{bound, claim, volume},
    world::{World, template},
};

/// Grows what has no other driver, after it failed so many times, and leaves the rest to a node.
#[derive(Debug)]
struct Disks {
    failures: AtomicU32,
    needs_node: bool,
}

#[async_trait]
impl VolumeExpander for Disks {
    fn name(&self) -> &str {
        "example.com/disks"
    }

    fn answers_for(&self, volume: &PersistentVolume) -> bool {
        volume.spec.as_ref().is_some_and(|spec| spec.csi.is_none())
    }

    async fn expand(
        &self,
        _: &PersistentVolume,
        _: &Quantity,
        to: &Quantity,
    ) -> Result<Expansion, ProvisionError> {
        let left = self.failures.load(Ordering::Relaxed);
        if left > 0 {
            self.failures.store(left - 1, Ordering::Relaxed);
            return Err(ProvisionError::Unsupported("no space left in the pool".to_owned()));
        }
        Ok(Expansion { size: to.clone(), needs_node: self.needs_node })
    }
}

fn world(failures: u32, needs_node: bool) -> World {
    let disks = Arc::new(Disks { failures: AtomicU32::new(failures), needs_node });
    World::start(|informers| {
        vec![volume_binder(informers, Vec::new()), volume_expansion(informers, vec![disks])]
    })
}

async fn ask_for(world: &World, size: &str) {
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    world.patch::<PersistentVolumeClaim>("data", patch).await;
}

async fn status(world: &World) -> Value {
    let claim = world.get::<PersistentVolumeClaim>("data").await.unwrap();
    let mut status = serde_json::to_value(claim.status.clone().unwrap()).unwrap();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        assert!(condition.as_object_mut().unwrap().remove("lastTransitionTime").is_some());
    }
    status
}

async fn capacity(world: &World) -> String {
    let volume = world.all::<PersistentVolume>().get("disk").await.unwrap();
    volume.spec.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0.clone()
}

async fn start(world: &World) {
    world.create_cluster::<PersistentVolume>(volume("disk", "1Gi", "Retain")).await;
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", Some(""))).await;
    bound(world, "data").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_grows_with_its_claim_and_says_so() {
    let world = world(2, false);
    start(&world).await;
    ask_for(&world, "5Gi").await;
    assert_eq!(
        world.hears("data", "VolumeResizeSuccessful").await,
        "ExpandVolume succeeded for volume default/data"
    );
    assert_eq!(
        world.hears("data", "VolumeResizeFailed").await,
        "error expanding pvc default/data: no space left in the pool"
    );
    assert_eq!(capacity(&world).await, "5Gi");
    assert_eq!(
        status(&world).await,
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"},
            "allocatedResources": {"storage": "5Gi"}, "conditions": []})
    );
    let claim = world.get::<PersistentVolumeClaim>("data").await.unwrap();
    let annotations = claim.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["volume.kubernetes.io/storage-resizer"], "example.com/disks");
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_less_and_less_often_at_the_size_that_was_begun() {
    let world = world(u32::MAX, false);
    start(&world).await;
    ask_for(&world, "5Gi").await;
    world.hears("data", "VolumeResizeFailed").await;
    ask_for(&world, "9Gi").await;
    let writes = world.writes();
    world.pass(3600).await;
    // Each try is a note of what is begun and an event: 5 ms, doubled, up to 1000 s.
    assert!(world.writes() - writes < 2 * 25, "{}", world.writes() - writes);
    let status = status(&world).await;
    assert_eq!(status["allocatedResources"]["storage"], "5Gi");
    assert_eq!(status["allocatedResourceStatuses"]["storage"], "ControllerResizeInProgress");
    assert_eq!(status["conditions"], json!([{"type": "Resizing", "status": "True"}]));
    assert_eq!(capacity(&world).await, "1Gi");
}

#[tokio::test(start_paused = true)]
async fn a_node_finishes_what_it_has_to_and_the_note_goes() {
    const NOTE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
    let world = world(0, true);
    start(&world).await;
    ask_for(&world, "5Gi").await;
    let note = async |world: &World| {
        let volume = world.all::<PersistentVolume>().get("disk").await.unwrap();
        volume.metadata.annotations.as_ref().and_then(|all| all.get(NOTE).cloned())
    };
    let before = world.eventually("the note", async |world| note(world).await).await;
    assert_eq!((before.as_str(), capacity(&world).await.as_str()), ("1Gi", "5Gi"));
    let pending = status(&world).await;
    assert_eq!(pending["capacity"]["storage"], "1Gi");
    assert_eq!(pending["allocatedResourceStatuses"]["storage"], "NodeResizePending");
    assert_eq!(
        pending["conditions"],
        json!([{"type": "Resizing", "status": "True"},
            {"type": "FileSystemResizePending", "status": "True", "message": "Waiting for user to \
                (re-)start a pod to finish file system resize of volume on node."}])
    );
    // The binder leaves the size alone that a node has not reached yet.
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes);

    let done = json!({"status": {"capacity": {"storage": "5Gi"}, "conditions": [],
        "allocatedResourceStatuses": null}});
    let claims = world.resources::<PersistentVolumeClaim>();
    claims.patch_status("data", PatchKind::Merge, done).await.unwrap();
    world.eventually("no note", async |world| note(world).await.is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn volumes_of_drivers_elsewhere_are_left_to_those() {
    let world = world(0, false);
    let mut disk = volume("disk", "1Gi", "Retain");
    disk["spec"]["hostPath"] = Value::Null;
    disk["spec"]["csi"] = json!({"driver": "csi.example.com", "volumeHandle": "v1"});
    world.create_cluster::<PersistentVolume>(disk).await;
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", Some(""))).await;
    bound(&world, "data").await;
    ask_for(&world, "5Gi").await;
    let message = world.hears("data", "ExternalExpanding").await;
    assert_eq!(message, "waiting for an external controller to expand this PVC");
    assert_eq!(status(&world).await["capacity"]["storage"], "1Gi");
    assert_eq!(capacity(&world).await, "1Gi");
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_has_a_claim_of_its_own_pod() {
    let folder = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalPath::new(LocalPathOptions::new(folder.path())));
    let metrics = StorageMetrics::default();
    let counted = metrics.clone();
    let world = World::start(|informers| {
        vec![volume_binder(informers, vec![local]), ephemeral_volume(informers, metrics)]
    });
    // Somebody else's claim has the name that the first pod's volume needs.
    world.create::<PersistentVolumeClaim>(claim("first-scratch", "1Gi", Some(""))).await;
    let pod = |name: &str| {
        let mut pod = template("web", "v1");
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["volumes"] = json!([
            {"name": "config", "emptyDir": {}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"kind": "scratch"}, "annotations": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                    "resources": {"requests": {"storage": "2Gi"}}}}}},
        ]);
        pod
    };
    world.create::<Pod>(pod("first")).await;
    let second = world.create::<Pod>(pod("second")).await;
    let made = world
        .eventually("the claim", async |world| {
            world.get::<PersistentVolumeClaim>("second-scratch").await
        })
        .await;
    let owners = serde_json::to_value(&made.metadata.owner_references).unwrap();
    assert_eq!(
        owners,
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "second", "uid": second.metadata.uid,
            "controller": true, "blockOwnerDeletion": true}])
    );
    assert_eq!(made.metadata.labels.as_ref().unwrap()["kind"], "scratch");
    assert_eq!(made.metadata.annotations.as_ref().unwrap()["a"], "b");
    assert_eq!(
        world.hears("first", "FailedBinding").await,
        "ephemeral volume scratch: PVC default/first-scratch was not created for pod \
         default/first (pod is not owner)"
    );
    let writes = world.writes();
    world.pass(3600).await;
    assert!(world.writes() - writes < 25, "{}", world.writes() - writes);

    // Once the name is free the claim is made; one that is deleted is made again.
    world.delete::<PersistentVolumeClaim>("first-scratch").await;
    world.delete::<PersistentVolumeClaim>("second-scratch").await;
    for name in ["first-scratch", "second-scratch"] {
        world
            .eventually("the claim is made", async |world| {
                let claim = world.get::<PersistentVolumeClaim>(name).await?;
                claim.metadata.owner_references.is_some().then_some(())
            })
            .await;
    }
    let mut registry = prometheus_client::registry::Registry::default();
    counted.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("ephemeral_volume_controller_create_total 3"), "{text}");
    assert!(text.contains("ephemeral_volume_controller_create_failures_total 0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_attributes_class_stays_while_a_claim_names_it() {
    let world = World::start(|informers| vec![attributes_class_protection(informers)]);
    for name in ["gold", "silver"] {
        let class = json!({"metadata": {"name": name}, "driverName": "csi.example.com"});
        world.create_cluster::<VolumeAttributesClass>(class).await;
    }
    let mut data = claim("data", "1Gi", Some(""));
    data["spec"]["volumeAttributesClassName"] = json!("gold");
    world.create::<PersistentVolumeClaim>(data).await;
    let classes = world.all::<VolumeAttributesClass>();
    world
        .eventually("both are protected", async |world| {
            let all = world.all::<VolumeAttributesClass>().list(Default::default()).await.ok()?;
            let is_protected = |class: &Arc<VolumeAttributesClass>| {
                class.metadata.finalizers.as_deref()
                    == Some(&["kubernetes.io/vac-protection".into()])
            };
            all.iter().all(is_protected).then_some(())
        })
        .await;
    classes.delete("gold", Default::default()).await.unwrap();
    classes.delete("silver", Default::default()).await.unwrap();
    world.pass(60).await;
    assert!(classes.get_opt("silver").await.unwrap().is_none(), "nobody names it");
    assert!(classes.get_opt("gold").await.unwrap().is_some(), "a claim asks for it");

    // The claim asks for another, but has still the old one; then it has the new one.
    let patch = json!({"status": {"currentVolumeAttributesClassName": "gold"}});
    let claims = world.resources::<PersistentVolumeClaim>();
    claims.patch_status("data", PatchKind::Merge, patch).await.unwrap();
    let patch = json!({"spec": {"volumeAttributesClassName": "silver"}});
    world.patch::<PersistentVolumeClaim>("data", patch).await;
    world.pass(60).await;
    assert!(classes.get_opt("gold").await.unwrap().is_some(), "the claim has it");
    let patch = json!({"status": {"currentVolumeAttributesClassName": "silver"}});
    claims.patch_status("data", PatchKind::Merge, patch).await.unwrap();
    world
        .eventually("it goes", async |world| {
            let left = world.all::<VolumeAttributesClass>().get_opt("gold").await.unwrap();
            left.is_none().then_some(())
        })
        .await;
}
