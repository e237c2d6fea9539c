//! What a claim needs: a volume that is there, or one that is made for it.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{ClientError, Key, client::PatchKind};
use serde_json::json;

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, BY_CLAIM, BY_CLAIM_REF, BY_CLASS, Binder, DEFAULT_CLASS,
    SELECTED_NODE, annotation, expansion::PRE_RESIZE, is_bound, matching, node_of,
};
use crate::{ReconcileError, context::EventType, pods};

type Claim = PersistentVolumeClaim;

/// Where a claim is to be used first.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Consumer {
    /// Nobody knows.
    None,
    /// On this node.
    On(Arc<Node>),
    /// On a node of this name that there is not.
    Missing(String),
}

impl Binder {
    pub(super) async fn sync_claim(&self, key: &Key, claim: &Claim) -> Result<(), ReconcileError> {
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let named = named.filter(|name| !name.is_empty());
        match named {
            _ if is_bound(claim) => Ok(self.check_bound(key, claim, named).await?),
            Some(name) => self.bind_named(key, claim, name).await,
            None => self.find_volume(key, claim).await,
        }
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

    async fn bind_named(&self, key: &Key, claim: &Claim, name: &str) -> Result<(), ReconcileError> {
        let Some(volume) = self.live_volume(name).await? else {
            return Ok(self.wait(key, claim).await?);
        };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if let Some(reference) = reference {
            if matching::is_for(&volume, claim) {
                return Ok(self.bind(key, &volume, claim).await?);
            }
            let message = format!("volume \"{name}\" already bound to a different claim.");
            self.context.event(claim, EventType::Warning, "FailedBinding", message);
            if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_none() {
                // Whoever wrote the name may yet free the volume.
                return Ok(self.wait(key, claim).await?);
            }
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let by = format!("{}/{}", text(&reference.namespace), text(&reference.name));
            return Err(ReconcileError::message(format!(
                "invalid binding of claim \"{key}\" to volume \"{name}\": volume already claimed \
                 by \"{by}\""
            )));
        }
        if let Some(why) = matching::mismatch(&volume, claim) {
            let message = format!("Cannot bind to requested volume \"{name}\": {why}");
            self.context.event(claim, EventType::Warning, "VolumeMismatch", message);
            return Ok(self.wait(key, claim).await?);
        }
        Ok(self.bind(key, &volume, claim).await?)
    }

    async fn find_volume(&self, key: &Key, claim: &Claim) -> Result<(), ReconcileError> {
        let class = matching::class_of_claim(claim).unwrap_or_default();
        let class = self.classes.get(&Key::cluster(class));
        let node = self.consumer_node(key, claim);
        let mode = class.as_ref().and_then(|class| class.volume_binding_mode.as_deref());
        let delayed = mode == Some("WaitForFirstConsumer");
        if let Some(volume) = self.candidate(key, claim, delayed) {
            return Ok(self.bind(key, &volume, claim).await?);
        }
        if matching::class_of_claim(claim).is_none()
            && self.assign_default_class(key, claim).await?
        {
            // The change of the claim leads here again.
            return Ok(());
        }
        self.wait(key, claim).await?;
        if delayed && node == Consumer::None {
            self.tell_whom_it_waits_for(key, claim);
            return Ok(());
        }
        if matching::class_of_claim(claim).unwrap_or_default().is_empty() {
            let message =
                "no persistent volumes available for this claim and no storage class is set";
            self.context.event(claim, EventType::Normal, "FailedBinding", message);
            return Ok(());
        }
        self.provision(key, claim, class, node).await
    }

    /// The claim of a class that waits for its first consumer: whether there is one.
    fn tell_whom_it_waits_for(&self, key: &Key, claim: &Claim) {
        let users = self.pods.by_index(BY_CLAIM, &key.to_string());
        let waiting = users.iter().filter(|pod| !pods::is_over(pod) && node_of(pod).is_none());
        let names: Vec<&str> = waiting.filter_map(|pod| pod.metadata.name.as_deref()).collect();
        let (reason, message) = match names.as_slice() {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [name] => ("WaitForPodScheduled", format!("waiting for pod {name} to be scheduled")),
            many => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", many.join(",")),
            ),
        };
        self.context.event(claim, EventType::Normal, reason, message);
    }

    /// A volume that is there; of a class that waits for its first consumer only one that was set
    /// aside: the others may be out of the reach of the node that the pod will be on.
    fn candidate(&self, key: &Key, claim: &Claim, delayed: bool) -> Option<Arc<PersistentVolume>> {
        let reserved = self.volumes.by_index(BY_CLAIM_REF, &key.to_string());
        matching::best(&reserved, claim, true).or_else(|| {
            let class = matching::class_of_claim(claim).unwrap_or_default();
            matching::best(&self.volumes.by_index(BY_CLASS, class), claim, delayed)
        })
    }

    /// The node that the scheduler chose, or that a pod which uses the claim is on.
    fn consumer_node(&self, key: &Key, claim: &Claim) -> Consumer {
        let selected = annotation(&claim.metadata, SELECTED_NODE).map(str::to_owned);
        let name = selected.or_else(|| {
            let users = self.pods.by_index(BY_CLAIM, &key.to_string());
            let mut active = users.iter().filter(|pod| !pods::is_over(pod));
            active.find_map(|pod| node_of(pod).map(str::to_owned))
        });
        let Some(name) = name else { return Consumer::None };
        let node = self.nodes.get(&Key::cluster(name.as_str()));
        node.map_or(Consumer::Missing(name), Consumer::On)
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
        let status = status_in(phase, &known, volume);
        if status == known {
            return Ok(());
        }
        let updated = Claim { status: Some(status), ..claim.clone() };
        self.context.resources::<Claim>(&key.namespace).update_status(&updated).await.map(drop)
    }
}

/// The status of a claim that enters a phase, or is in it.
///
/// Source: `updateClaimStatus` of `pv_controller.go`.
fn status_in(
    phase: &str,
    known: &PersistentVolumeClaimStatus,
    volume: Option<&PersistentVolume>,
) -> PersistentVolumeClaimStatus {
    let mut status = PersistentVolumeClaimStatus { phase: Some(phase.into()), ..known.clone() };
    let Some(volume) = volume else {
        status.access_modes = None;
        status.capacity = None;
        status.current_volume_attributes_class_name = None;
        return status;
    };
    let Some(spec) = &volume.spec else { return status };
    status.access_modes.clone_from(&spec.access_modes);
    // Of a claim that is bound already the sizes may differ: a node has not finished growing it.
    if known.phase.as_deref() != Some(phase) {
        match annotation(&volume.metadata, PRE_RESIZE) {
            Some(before) => {
                let size = Quantity(before.to_owned());
                status.capacity.get_or_insert_default().insert("storage".to_owned(), size);
            }
            None => status.capacity.clone_from(&spec.capacity),
        }
    }
    if known.phase.as_deref().is_none_or(|known| known == "Pending") && phase == "Bound" {
        status.current_volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
    }
    status
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
        patch["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    Some(patch)
}
