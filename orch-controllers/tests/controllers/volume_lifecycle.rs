//! What claims and volumes are told, and what becomes of volumes without their claims.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod},
    storage::v1::StorageClass,
};
use orch_controllers::volumes::{
    LocalPath, LocalPathOptions, ProvisionError, ProvisionRequest, Provisioner, claim_protection,
    volume_binder, volume_protection,
};
use orch_core::client::{DeleteOptions, PatchKind};
use serde_json::json;

use crate::{
    storage::{bound, claim, phase, volume, volume_phase},
    world::{World, template},
};

const FINALIZER: &str = "kubernetes.io/pv-controller";

/// Has no space, ever.
#[derive(Debug)]
struct Full;

#[async_trait]
impl Provisioner for Full {
    fn name(&self) -> &str {
        "example.com/full"
    }

    async fn provision(
        &self,
        _: &ProvisionRequest,
    ) -> Result<PersistentVolumeSpec, ProvisionError> {
        Err(ProvisionError::Unsupported("the pool is full".to_owned()))
    }

    async fn delete(&self, _: &PersistentVolume) -> Result<(), ProvisionError> {
        Err(ProvisionError::Unsupported("the disk is stuck".to_owned()))
    }
}

fn world(folder: &std::path::Path) -> World {
    let mut options = LocalPathOptions::new(folder);
    options.deletes_folders = false;
    let local = Arc::new(LocalPath::new(options));
    World::start(|informers| {
        vec![
            volume_binder(informers, vec![local, Arc::new(Full)]),
            claim_protection(informers),
            volume_protection(informers),
        ]
    })
}

fn nowhere() -> World {
    world(std::path::Path::new("/nonexistent"))
}

async fn class(world: &World, name: &str, provisioner: &str, mode: &str) {
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
        "reclaimPolicy": "Delete", "volumeBindingMode": mode});
    world.create_cluster::<StorageClass>(class).await;
}

async fn reaches(world: &World, name: &str, wanted: &str) {
    world
        .eventually(wanted, async |world| {
            (volume_phase(world, name).await.as_deref() == Some(wanted)).then_some(())
        })
        .await;
}

fn user(name: &str, claim: &str) -> serde_json::Value {
    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_says_for_what() {
    let world = nowhere();
    world.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    class(&world, "late", LocalPath::NAME, "WaitForFirstConsumer").await;
    class(&world, "far", "csi.example.com", "Immediate").await;
    class(&world, "none", "kubernetes.io/no-provisioner", "Immediate").await;
    for (name, class) in [
        ("classless", Some("")),
        ("late", Some("late")),
        ("far", Some("far")),
        ("none", Some("none")),
        ("missing", Some("missing")),
    ] {
        world.create::<PersistentVolumeClaim>(claim(name, "1Gi", class)).await;
    }
    let hears = async |name: &str, reason: &str, message: &str| {
        assert_eq!(world.hears(name, reason).await, message);
    };
    let unclassed = "no persistent volumes available for this claim and no storage class is set";
    hears("classless", "FailedBinding", unclassed).await;
    let waiting = "waiting for first consumer to be created before binding";
    hears("late", "WaitForFirstConsumer", waiting).await;
    hears(
        "far",
        "ExternalProvisioning",
        "Waiting for a volume to be created either by the external provisioner 'csi.example.com' \
         or manually by the system administrator. If volume creation is delayed, please verify \
         that the provisioner is running and correctly registered.",
    )
    .await;
    let no_plugin = "no volume plugin matched name: kubernetes.io/no-provisioner";
    hears("none", "ProvisioningFailed", no_plugin).await;
    let no_class = "storageclass.storage.k8s.io \"missing\" not found";
    hears("missing", "ProvisioningFailed", no_class).await;
    world.create::<Pod>(user("one", "late")).await;
    hears("late", "WaitForPodScheduled", "waiting for pod one to be scheduled").await;
    world.create::<Pod>(user("two", "late")).await;
    world
        .eventually("both pods are named", async |world| {
            let told = world.told("late").await;
            let both = "waiting for pods one,two to be scheduled";
            told.iter().any(|(_, _, message)| message == both).then_some(())
        })
        .await;
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes, "nothing changes, so nothing is told again");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_named_must_suit() {
    let world = nowhere();
    let mut slow = volume("slow", "10Gi", "Retain");
    slow["spec"]["storageClassName"] = json!("slow");
    world.create_cluster::<PersistentVolume>(slow).await;
    let mut wants = claim("wants", "1Gi", Some(""));
    wants["spec"]["volumeName"] = json!("slow");
    world.create::<PersistentVolumeClaim>(wants).await;
    assert_eq!(
        world.hears("wants", "VolumeMismatch").await,
        "Cannot bind to requested volume \"slow\": storageClassName does not match"
    );
    // What is set aside is taken whatever its class is.
    let mut given = volume("given", "10Gi", "Retain");
    given["spec"]["storageClassName"] = json!("slow");
    given["spec"]["claimRef"] = json!({"namespace": "default", "name": "lucky"});
    world.create_cluster::<PersistentVolume>(given).await;
    world.create::<PersistentVolumeClaim>(claim("lucky", "1Gi", Some(""))).await;
    assert_eq!(bound(&world, "lucky").await, "given");
    let given = world.all::<PersistentVolume>().get("given").await.unwrap();
    assert!(given.metadata.annotations.is_none(), "a user bound it, not the controller");
    let mut second = claim("second", "1Gi", Some("slow"));
    second["spec"]["volumeName"] = json!("given");
    world.create::<PersistentVolumeClaim>(second).await;
    assert_eq!(
        world.hears("second", "FailedBinding").await,
        "volume \"given\" already bound to a different claim."
    );
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_reclaim_has_failed() {
    let world = nowhere();
    for (name, policy) in [("recycled", "Recycle"), ("deleted", "Delete"), ("odd", "Keep")] {
        let mut one = volume(name, "1Gi", policy);
        one["spec"]["claimRef"] = json!({"namespace": "default", "name": name});
        world.create_cluster::<PersistentVolume>(one).await;
        world.create::<PersistentVolumeClaim>(claim(name, "1Gi", Some(""))).await;
        bound(&world, name).await;
        world.delete::<PersistentVolumeClaim>(name).await;
    }
    for (name, reason, expected) in [
        ("recycled", "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        (
            "deleted",
            "VolumeFailedDelete",
            "error getting deleter volume plugin for volume \"deleted\": no deletable volume \
             plugin matched",
        ),
        (
            "odd",
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        ),
    ] {
        reaches(&world, name, "Failed").await;
        assert_eq!(world.hears(name, reason).await, expected);
        let volume = world.all::<PersistentVolume>().get(name).await.unwrap();
        assert_eq!(volume.status.as_ref().unwrap().message.as_deref(), Some(expected));
    }
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_provisioner_that_fails_lets_the_scheduler_choose_again_and_backs_off() {
    let world = nowhere();
    class(&world, "full", "example.com/full", "WaitForFirstConsumer").await;
    let mut data = claim("data", "1Gi", Some("full"));
    data["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "node-1"});
    world.create::<PersistentVolumeClaim>(data).await;
    let message = world.hears("data", "ProvisioningFailed").await;
    assert_eq!(message, "Failed to get target node: node \"node-1\" not found");
    world.create_cluster::<Node>(json!({"metadata": {"name": "node-1"}})).await;
    world
        .eventually("the node is taken back", async |world| {
            let claim = world.get::<PersistentVolumeClaim>("data").await?;
            let annotations = claim.metadata.annotations.clone().unwrap_or_default();
            (!annotations.contains_key("volume.kubernetes.io/selected-node")).then_some(())
        })
        .await;
    let told = world.told("data").await;
    let failed = "Failed to provision volume with StorageClass \"full\": the pool is full";
    assert!(told.iter().any(|(_, _, message)| message == failed), "{told:?}");
    // On a node, for good: less and less often.
    world.create::<Pod>(user("user", "data")).await;
    world.pass(60).await;
    let writes = world.writes();
    world.pass(3600).await;
    assert!(world.writes() - writes < 15, "{}", world.writes() - writes);
}

#[tokio::test(start_paused = true)]
async fn a_volume_made_here_stays_until_what_it_stands_for_is_deleted() {
    let world = nowhere();
    class(&world, "now", LocalPath::NAME, "Immediate").await;
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", Some("now"))).await;
    let name = bound(&world, "data").await;
    assert_eq!(
        world.hears("data", "ProvisioningSucceeded").await,
        format!("Successfully provisioned volume {name} using orch.dev/local-path")
    );
    let finalizers = async |world: &World| {
        let volume = world.all::<PersistentVolume>().get(&name).await.unwrap();
        volume.metadata.finalizers.clone().unwrap_or_default()
    };
    let has = async |wanted: bool| {
        world
            .eventually("the finalizer follows the policy", async |world| {
                let has = finalizers(world).await.iter().any(|name| name == FINALIZER);
                (has == wanted).then_some(())
            })
            .await;
    };
    has(true).await;
    let volumes = world.all::<PersistentVolume>();
    for (policy, wanted) in [("Retain", false), ("Delete", true)] {
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
        volumes.patch(&name, PatchKind::Merge, patch).await.unwrap();
        has(wanted).await;
    }
    // Deleted before its claim, it stays for as long as that.
    volumes.delete(&name, DeleteOptions::default()).await.unwrap();
    world.pass(60).await;
    assert!(volumes.get_opt(&name).await.unwrap().is_some());
    world.delete::<PersistentVolumeClaim>("data").await;
    world
        .eventually("it goes", async |world| {
            let left = world.all::<PersistentVolume>().get_opt(&name).await.unwrap();
            left.is_none().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_claim_has_another_is_free_again() {
    let world = nowhere();
    world.create_cluster::<PersistentVolume>(volume("good", "1Gi", "Retain")).await;
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", Some(""))).await;
    bound(&world, "data").await;
    let uid = world.get::<PersistentVolumeClaim>("data").await.unwrap().metadata.uid.clone();
    let reference = json!({"namespace": "default", "name": "data", "uid": uid});
    for (name, by_controller) in [("mistake", true), ("reserved", false)] {
        let mut one = volume(name, "1Gi", "Retain");
        one["spec"]["claimRef"] = reference.clone();
        if by_controller {
            one["metadata"]["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
        }
        world.create_cluster::<PersistentVolume>(one).await;
        reaches(&world, name, "Available").await;
        let volume = world.all::<PersistentVolume>().get(name).await.unwrap();
        let left = volume.spec.as_ref().unwrap().claim_ref.as_ref();
        assert_eq!(left.is_none(), by_controller, "what a user wrote keeps the claim's name");
        assert!(left.is_none_or(|left| left.uid.is_none()));
    }
    assert_eq!(phase(&world.get::<PersistentVolumeClaim>("data").await.unwrap()), Some("Bound"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_over_still_holds_its_claim() {
    let world = nowhere();
    world.create_cluster::<PersistentVolume>(volume("disk", "1Gi", "Retain")).await;
    world.create::<PersistentVolumeClaim>(claim("data", "1Gi", Some(""))).await;
    world.create::<Pod>(user("done", "data")).await;
    bound(&world, "data").await;
    world.pass(5).await;
    let over = json!({"status": {"phase": "Succeeded"}});
    world.resources::<Pod>().patch_status("done", PatchKind::Merge, over).await.unwrap();
    world.delete::<PersistentVolumeClaim>("data").await;
    world.pass(600).await;
    assert!(world.get::<PersistentVolumeClaim>("data").await.is_some());
    world.delete::<Pod>("done").await;
    world
        .eventually("it goes", async |world| {
            world.get::<PersistentVolumeClaim>("data").await.is_none().then_some(())
        })
        .await;
}
