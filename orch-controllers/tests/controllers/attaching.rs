//! Volumes of CSI drivers come to the nodes that need them, and leave.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use orch_controllers::volumes::{
    AttachDetachOptions, AttachError, Attacher, StorageMetrics, attach_detach, volume_attacher,
};
use orch_core::client::{DeleteOptions, PatchKind};
use serde_json::{Value, json};

use crate::world::{World, template};

const DRIVER: &str = "csi.example.com";
const UNIQUE_NAME: &str = "kubernetes.io/csi/csi.example.com^handle-disk";

/// A driver that attaches what it is told to, unless it fails.
#[derive(Clone, Debug, Default)]
struct Driver {
    fails: Arc<AtomicBool>,
}

impl Driver {
    fn answer(&self, what: &str) -> Result<(), AttachError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(AttachError(format!("rpc error: cannot {what}"))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Attacher for Driver {
    fn driver(&self) -> &str {
        DRIVER
    }

    async fn attach(
        &self,
        _: &VolumeAttachment,
        _: &PersistentVolume,
    ) -> Result<BTreeMap<String, String>, AttachError> {
        self.answer("attach")?;
        Ok(BTreeMap::from([("device".to_owned(), "/dev/vdb".to_owned())]))
    }

    async fn detach(
        &self,
        _: &VolumeAttachment,
        _: Option<&PersistentVolume>,
    ) -> Result<(), AttachError> {
        self.answer("detach")
    }
}

struct Cluster {
    world: World,
    driver: Driver,
    metrics: StorageMetrics,
}

impl Cluster {
    async fn start() -> Self {
        let (driver, metrics) = (Driver::default(), StorageMetrics::default());
        let (attacher, counted) = (Arc::new(driver.clone()), metrics.clone());
        let world = World::start(|informers| {
            vec![
                attach_detach(informers, AttachDetachOptions::default(), counted),
                volume_attacher(informers, vec![attacher]),
            ]
        });
        // Pods are placed by hand.
        world.ready.store(false, Ordering::Relaxed);
        for name in ["node-1", "node-2"] {
            world
                .create_cluster::<Node>(json!({
                    "metadata": {"name": name, "annotations": {
                        "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                }))
                .await;
        }
        Self { world, driver, metrics }
    }

    async fn disk(&self, name: &str, driver: &str) {
        let uid = format!("uid-of-{name}");
        let claim = json!({
            "metadata": {"name": name, "namespace": "default", "uid": uid},
            "spec": {"volumeName": name, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"},
        });
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        self.world.cluster.seed_typed(&claim).unwrap();
        let volume = json!({
            "metadata": {"name": name},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": driver, "volumeHandle": format!("handle-{name}")},
                "claimRef": {"namespace": "default", "name": name, "uid": uid}},
        });
        self.world.create_cluster::<PersistentVolume>(volume).await;
    }

    async fn pod(&self, name: &str, node: &str, claim: &str) {
        let mut pod = template("web", "v1");
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["nodeName"] = json!(node);
        pod["spec"]["volumes"] =
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        self.world.create::<Pod>(pod).await;
        self.world
            .resources::<Pod>()
            .patch_status(name, PatchKind::Merge, json!({"status": {"phase": "Running"}}))
            .await
            .unwrap();
    }

    async fn node(&self, name: &str, status: Value) {
        let nodes = self.world.all::<Node>();
        let patch = json!({"status": status});
        nodes.patch_status(name, PatchKind::Merge, patch).await.unwrap();
    }

    async fn attached(&self, node: &str) -> bool {
        let node = self.world.all::<Node>().get(node).await.unwrap();
        let status = serde_json::to_value(&node.status).unwrap();
        let list = status["volumesAttached"].as_array().cloned().unwrap_or_default();
        list.iter().any(|volume| volume["name"] == UNIQUE_NAME)
    }

    async fn until(&self, node: &str, wanted: bool) {
        self.world
            .eventually(&format!("attached to {node}: {wanted}"), async |_| {
                let attachments = self.attachments().await;
                let there = attachments.iter().any(|one| {
                    one.spec.node_name == node && one.status.as_ref().is_some_and(|s| s.attached)
                });
                let none = !attachments.iter().any(|one| one.spec.node_name == node);
                let settled = if wanted { there } else { none };
                (settled && self.attached(node).await == wanted).then_some(())
            })
            .await;
    }

    async fn attachments(&self) -> Vec<Arc<VolumeAttachment>> {
        self.world.all::<VolumeAttachment>().list(Default::default()).await.unwrap()
    }

    fn counts(&self, reason: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.contains(&format!("forced_detaches_total{{reason=\"{reason}\"}} 1"))
    }
}

const READY: fn(&str) -> Value = |status| json!([{"type": "Ready", "status": status}]);

#[tokio::test(start_paused = true)]
async fn a_volume_comes_with_the_pod_and_leaves_with_it() {
    let cluster = Cluster::start().await;
    cluster.disk("disk", DRIVER).await;
    cluster.pod("user", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    assert_eq!(
        cluster.world.hears("user", "SuccessfulAttachVolume").await,
        "AttachVolume.Attach succeeded for volume \"disk\" "
    );
    let attachment = cluster.attachments().await.remove(0);
    assert_eq!(attachment.spec.attacher, DRIVER);
    assert_eq!(attachment.spec.source.persistent_volume_name.as_deref(), Some("disk"));
    let metadata = attachment.status.as_ref().unwrap().attachment_metadata.as_ref().unwrap();
    assert_eq!(metadata["device"], "/dev/vdb");
    let writes = cluster.world.writes();
    cluster.world.pass(3600).await;
    assert_eq!(cluster.world.writes(), writes);
    cluster.world.delete::<Pod>("user").await;
    cluster.until("node-1", false).await;
    // Its volume gone, an attachment is still undone.
    cluster.pod("again", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    cluster.world.all::<PersistentVolume>().delete("disk", DeleteOptions::default()).await.unwrap();
    cluster.until("node-1", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_keeps_what_it_uses_unless_it_is_silent_for_too_long() {
    let cluster = Cluster::start().await;
    cluster.disk("disk", DRIVER).await;
    cluster.pod("user", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    cluster.node("node-1", json!({"volumesInUse": [UNIQUE_NAME]})).await;
    cluster.world.delete::<Pod>("user").await;
    cluster.world.pass(3600).await;
    assert!(cluster.attached("node-1").await, "the node is well and still uses it");
    cluster.node("node-1", json!({"conditions": READY("Unknown")})).await;
    cluster.until("node-1", false).await;
    assert!(cluster.counts("timeout"));

    cluster.node("node-1", json!({"conditions": READY("True"), "volumesInUse": []})).await;
    cluster.pod("next", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    let used = json!({"conditions": READY("Unknown"), "volumesInUse": [UNIQUE_NAME]});
    cluster.node("node-1", used).await;
    cluster.world.delete::<Pod>("next").await;
    cluster.world.pass(359).await;
    assert!(cluster.attached("node-1").await, "six minutes are not over");
    cluster.world.pass(3).await;
    assert!(!cluster.attached("node-1").await);
}

#[tokio::test(start_paused = true)]
async fn a_node_out_of_service_has_nothing_to_say() {
    let cluster = Cluster::start().await;
    cluster.disk("disk", DRIVER).await;
    cluster.pod("user", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    let used = json!({"conditions": READY("Unknown"), "volumesInUse": [UNIQUE_NAME]});
    cluster.node("node-1", used).await;
    cluster.world.delete::<Pod>("user").await;
    cluster.world.pass(60).await;
    assert!(cluster.attached("node-1").await);
    let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service",
        "value": "nodeshutdown", "effect": "NoExecute"}]}});
    cluster.world.all::<Node>().patch("node-1", PatchKind::Merge, taint).await.unwrap();
    cluster.until("node-1", false).await;
    assert!(cluster.counts("out-of-service") && !cluster.counts("timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_for_one_node_waits_until_the_other_lets_it_go() {
    let cluster = Cluster::start().await;
    cluster.disk("disk", DRIVER).await;
    cluster.pod("first", "node-1", "disk").await;
    cluster.until("node-1", true).await;
    cluster.pod("second", "node-2", "disk").await;
    assert_eq!(
        cluster.world.hears("second", "FailedAttachVolume").await,
        "Multi-Attach error for volume \"disk\" Volume is already used by pod(s) first"
    );
    let writes = cluster.world.writes();
    cluster.world.pass(3600).await;
    assert_eq!(cluster.world.writes(), writes, "it is told once");
    // The pod goes, but its node is not done yet.
    cluster.node("node-1", json!({"volumesInUse": [UNIQUE_NAME]})).await;
    cluster.world.delete::<Pod>("first").await;
    cluster.pod("third", "node-2", "disk").await;
    cluster.world.delete::<Pod>("second").await;
    cluster.world.pass(60).await;
    assert!(!cluster.attached("node-2").await);
    cluster.node("node-1", json!({"volumesInUse": []})).await;
    cluster.until("node-2", true).await;
    assert!(!cluster.attached("node-1").await);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_fails_or_is_silent_is_told_of() {
    let cluster = Cluster::start().await;
    cluster.driver.fails.store(true, Ordering::Relaxed);
    cluster.disk("disk", DRIVER).await;
    cluster.pod("user", "node-1", "disk").await;
    assert_eq!(
        cluster.world.hears("user", "FailedAttachVolume").await,
        "AttachVolume.Attach failed for volume \"disk\" : rpc error: cannot attach"
    );
    let writes = cluster.world.writes();
    cluster.world.pass(3600).await;
    assert!(cluster.world.writes() - writes < 60, "{}", cluster.world.writes() - writes);
    cluster.driver.fails.store(false, Ordering::Relaxed);
    cluster.until("node-1", true).await;

    cluster.disk("silent", "csi.silent.com").await;
    cluster.pod("patient", "node-1", "silent").await;
    assert_eq!(
        cluster.world.hears("patient", "FailedAttachVolume").await,
        "AttachVolume.Attach failed for volume \"silent\" : timed out waiting for \
         external-attacher of csi.silent.com CSI driver to attach volume handle-silent"
    );
    // Nobody attaches what need not be attached.
    let driver = json!({"metadata": {"name": "csi.easy.com"}, "spec": {"attachRequired": false}});
    cluster.world.create_cluster::<CSIDriver>(driver).await;
    cluster.disk("easy", "csi.easy.com").await;
    cluster.pod("easy-user", "node-1", "easy").await;
    // What others ask for is theirs.
    let other = json!({"metadata": {"name": "by-hand"}, "spec": {"attacher": "csi.silent.com",
        "nodeName": "node-2", "source": {"persistentVolumeName": "silent"}}});
    cluster.world.create_cluster::<VolumeAttachment>(other).await;
    cluster.world.pass(600).await;
    let mut names: Vec<_> = cluster.attachments().await;
    names.retain(|one| one.spec.source.persistent_volume_name.as_deref() != Some("disk"));
    let nodes: Vec<&str> = names.iter().map(|one| one.spec.node_name.as_str()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(names.iter().any(|one| one.metadata.name.as_deref() == Some("by-hand")));
}
