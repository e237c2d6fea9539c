//! What a claim needs: a volume that is there, or one that is made for it.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus},
    storage::v1::StorageClass,
};
use orch_core::{ClientError, Key, client::PatchKind};
use serde_json::json;

use super::{
    BIND_COMPLETED, BY_CLAIM, BY_CLAIM_REF, BY_CLASS, Binder, DEFAULT_CLASS, SELECTED_NODE,
    STORAGE_PROVISIONER, annotation, is_bound, matching, node_of, provisioner::ProvisionRequest,
};
use crate::{ReconcileError, context::EventType};

type Claim = PersistentVolumeClaim;

impl Binder {
    pub(super) async fn sync_claim(&self, key: &Key, claim: &Claim) -> Result<(), ReconcileError> {
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let named = named.filter(|name| !name.is_empty());
        match named {
            _ if is_bound(claim) => self.check_bound(key, claim, named).await?,
            Some(name) => self.bind_named(key, claim, name).await?,
            None => self.find_volume(key, claim).await?,
        }
        Ok(())
    }

    /// A volume as it is now: what is read is decided upon for good.
    async fn live_volume(&self, name: &str) -> Result<Option<Arc<PersistentVolume>>, ClientError> {
        self.context.resources::<PersistentVolume>("").get_opt(name).await
    }

    async fn check_bound(
        &self,
        key: &Key,
        claim: &Claim,
        named: Option<&str>,
    ) -> Result<(), ClientError> {
        let Some(name) = named else {
            let message =
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lose(key, claim, "ClaimLost", message).await;
        };
        let known = self.volumes.get(&Key::cluster(name));
        let volume = match known {
            Some(volume) => Some(volume),
            None => self.live_volume(name).await?,
        };
        let Some(volume) = volume else {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lose(key, claim, "ClaimLost", message).await;
        };
        let free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        if free || matching::is_for(&volume, claim) {
            return self.bind(key, &volume, claim).await;
        }
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        self.lose(key, claim, "ClaimMisbound", message).await
    }

    async fn bind_named(&self, key: &Key, claim: &Claim, name: &str) -> Result<(), ClientError> {
        let Some(volume) = self.live_volume(name).await? else {
            return self.wait(key, claim).await;
        };
        let free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        if !free && !matching::is_for(&volume, claim) {
            let message = format!("volume \"{name}\" already bound to a different claim.");
            self.context.event(claim, EventType::Warning, "FailedBinding", message);
            return self.wait(key, claim).await;
        }
        if let Some(why) = matching::mismatch(&volume, claim) {
            let message = format!("Cannot bind to requested volume \"{name}\": {why}");
            self.context.event(claim, EventType::Warning, "VolumeMismatch", message);
            return self.wait(key, claim).await;
        }
        self.bind(key, &volume, claim).await
    }

    async fn find_volume(&self, key: &Key, claim: &Claim) -> Result<(), ReconcileError> {
        if matching::class_of_claim(claim).is_none()
            && self.assign_default_class(key, claim).await?
        {
            // The change of the claim leads here again.
            return Ok(());
        }
        let class = matching::class_of_claim(claim).unwrap_or_default();
        let class = self.classes.get(&Key::cluster(class));
        let node = self.consumer_node(key, claim);
        let mode = class.as_ref().and_then(|class| class.volume_binding_mode.as_deref());
        let delayed = mode == Some("WaitForFirstConsumer") && node.is_none();
        if let Some(volume) = self.candidate(key, claim, delayed, node.is_some()) {
            return Ok(self.bind(key, &volume, claim).await?);
        }
        self.wait(key, claim).await?;
        if delayed {
            let message = "waiting for first consumer to be created before binding";
            self.context.event(claim, EventType::Normal, "WaitForFirstConsumer", message);
            return Ok(());
        }
        match class {
            Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => {
                self.provision(key, claim, class, node).await
            }
            Some(_) => Ok(()),
            None => {
                self.report_no_class(claim);
                Ok(())
            }
        }
    }

    fn report_no_class(&self, claim: &Claim) {
        let class = matching::class_of_claim(claim).unwrap_or_default();
        if class.is_empty() {
            let message =
                "no persistent volumes available for this claim and no storage class is set";
            self.context.event(claim, EventType::Normal, "FailedBinding", message);
        } else {
            let message = format!("storageclass.storage.k8s.io \"{class}\" not found");
            self.context.event(claim, EventType::Warning, "ProvisioningFailed", message);
        }
    }

    /// A volume that is there. Where the consumer's node is known, only one that was set aside:
    /// the free ones may be out of that node's reach.
    fn candidate(
        &self,
        key: &Key,
        claim: &Claim,
        delayed: bool,
        has_node: bool,
    ) -> Option<Arc<PersistentVolume>> {
        let reserved = self.volumes.by_index(BY_CLAIM_REF, &key.to_string());
        let class = matching::class_of_claim(claim).unwrap_or_default();
        matching::best(&reserved, claim, true).or_else(|| {
            let of_class = self.volumes.by_index(BY_CLASS, class);
            let waits = self.classes.get(&Key::cluster(class)).is_some_and(|class| {
                class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            });
            matching::best(&of_class, claim, delayed || (has_node && waits))
        })
    }

    /// The node that the scheduler chose, or that a pod which uses the claim is on.
    fn consumer_node(&self, key: &Key, claim: &Claim) -> Option<Arc<Node>> {
        let selected = annotation(&claim.metadata, SELECTED_NODE).map(str::to_owned);
        let name = selected.or_else(|| {
            let consumers = self.pods.by_index(BY_CLAIM, &key.to_string());
            consumers.iter().find_map(|pod| node_of(pod).map(str::to_owned))
        })?;
        self.nodes.get(&Key::cluster(name))
    }

    /// Lets a claim that names no class have the default one; the youngest, should there be many.
    async fn assign_default_class(&self, key: &Key, claim: &Claim) -> Result<bool, ClientError> {
        let classes = self.classes.list();
        let defaults = classes
            .iter()
            .filter(|class| annotation(&class.metadata, DEFAULT_CLASS) == Some("true"));
        let youngest = defaults.max_by(|a, b| {
            let created = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
            created(a).cmp(&created(b)).then_with(|| b.metadata.name.cmp(&a.metadata.name))
        });
        let Some(class) = youngest.and_then(|class| class.metadata.name.as_deref()) else {
            return Ok(false);
        };
        let patch = json!({
            "metadata": {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version},
            "spec": {"storageClassName": class},
        });
        self.context
            .resources::<Claim>(&key.namespace)
            .patch(&key.name, PatchKind::Merge, patch)
            .await?;
        Ok(true)
    }

    async fn provision(
        &self,
        key: &Key,
        claim: &Claim,
        class: Arc<StorageClass>,
        node: Option<Arc<Node>>,
    ) -> Result<(), ReconcileError> {
        self.note_provisioner(key, claim, &class.provisioner).await?;
        let Some(provisioner) = self.provisioner(&class.provisioner) else {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or \
                 manually by the system administrator. If volume creation is delayed, please \
                 verify that the provisioner is running and correctly registered.",
                class.provisioner
            );
            self.context.event(claim, EventType::Normal, "ExternalProvisioning", message);
            return Ok(());
        };
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let request = ProvisionRequest {
            volume_name: format!("pvc-{uid}"),
            claim: claim.clone(),
            class: class.clone(),
            node,
        };
        let volume = match provisioner.provision(&request).await {
            Ok(spec) => request.describe(spec),
            Err(error) => {
                let message = format!(
                    "failed to provision volume with StorageClass \"{}\": {error}",
                    class.metadata.name.as_deref().unwrap_or_default()
                );
                self.context.event(claim, EventType::Warning, "ProvisioningFailed", message);
                return Err(ReconcileError::Other(Box::new(error)));
            }
        };
        match self.context.resources::<PersistentVolume>("").create(&volume).await {
            Ok(_) => {
                let message = format!("Successfully provisioned volume {}", request.volume_name);
                self.context.event(claim, EventType::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            // It was made before; the local copy will show it.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn note_provisioner(
        &self,
        key: &Key,
        claim: &Claim,
        provisioner: &str,
    ) -> Result<(), ClientError> {
        if annotation(&claim.metadata, STORAGE_PROVISIONER) == Some(provisioner) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": claim.metadata.uid,
            "annotations": {STORAGE_PROVISIONER: provisioner,
                "volume.beta.kubernetes.io/storage-provisioner": provisioner},
        }});
        let resources = self.context.resources::<Claim>(&key.namespace);
        resources.patch(&key.name, PatchKind::Merge, patch).await.map(drop)
    }

    async fn wait(&self, key: &Key, claim: &Claim) -> Result<(), ClientError> {
        self.write_claim_status(key, claim, "Pending", None).await
    }

    async fn lose(
        &self,
        key: &Key,
        claim: &Claim,
        reason: &str,
        message: &str,
    ) -> Result<(), ClientError> {
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Lost") {
            self.context.event(claim, EventType::Warning, reason, message);
        }
        self.write_claim_status(key, claim, "Lost", None).await
    }

    pub(super) async fn write_claim_status(
        &self,
        key: &Key,
        claim: &Claim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), ClientError> {
        let known = claim.status.clone().unwrap_or_default();
        let volume = volume.and_then(|volume| volume.spec.as_ref());
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: volume.and_then(|spec| spec.access_modes.clone()),
            capacity: volume.and_then(|spec| spec.capacity.clone()),
            ..known.clone()
        };
        if status == known {
            return Ok(());
        }
        let updated = Claim { status: Some(status), ..claim.clone() };
        self.context.resources::<Claim>(&key.namespace).update_status(&updated).await.map(drop)
    }
}

/// What [`Binder::bind`] writes into a claim.
pub(super) fn bound_patch(claim: &Claim, volume: &PersistentVolume) -> Option<serde_json::Value> {
    let name = volume.metadata.name.as_deref();
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    if named == name && is_bound(claim) {
        return None;
    }
    let mut patch = json!({
        "metadata": {
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {BIND_COMPLETED: "yes"},
        },
        "spec": {"volumeName": name},
    });
    if named.is_none_or(str::is_empty) {
        patch["metadata"]["annotations"][super::BOUND_BY_CONTROLLER] = json!("yes");
    }
    Some(patch)
}
