//! What becomes of a volume: free, bound, or without its claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::{
    ClientError,
    client::{DeleteOptions, PatchKind},
};
use serde_json::json;

use super::{
    BOUND_BY_CONTROLLER, Binder, DELETION_FINALIZER, PROVISIONED_BY, annotation, claim_key,
    matching, protection::set_finalizer,
};
use crate::{ReconcileError, context::EventType};

impl Binder {
    pub(super) async fn sync_volume(
        &self,
        volume: &PersistentVolume,
    ) -> Result<(), ReconcileError> {
        if self.keep_finalizer(volume).await? {
            // The change of the volume leads here again.
            return Ok(());
        }
        let Some(key) = claim_key(volume) else {
            self.write_phase(volume, "Available", None).await?;
            return Ok(());
        };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let uid = reference.and_then(|reference| reference.uid.clone()).unwrap_or_default();
        if uid.is_empty() {
            // Set aside for a claim that may not exist yet; the claim takes it.
            self.write_phase(volume, "Available", None).await?;
            return Ok(());
        }
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid.as_deref() == Some(&uid);
        let claim = match self.claims.get(&key).filter(|claim| is_it(claim)) {
            Some(claim) => Some(claim),
            // What follows is for good: the local copy may be behind.
            None => self
                .context
                .resources::<PersistentVolumeClaim>(&key.namespace)
                .get_opt(&key.name)
                .await?
                .filter(|claim| is_it(claim)),
        };
        let Some(claim) = claim else { return self.release(volume).await };
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        match named.filter(|name| !name.is_empty()) {
            None if matching::modes_differ(volume, &claim) => {
                self.tell_of_modes(volume, &claim);
                Ok(())
            }
            // The claim takes the volume.
            None => Ok(()),
            named if named == volume.metadata.name.as_deref() => {
                self.write_phase(volume, "Bound", None).await?;
                Ok(())
            }
            // The claim has another volume; this one was made or chosen in vain.
            Some(_) => {
                let policy = volume
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
                let was_made = annotation(&volume.metadata, PROVISIONED_BY).is_some();
                if was_made && policy == Some("Delete") {
                    return self.release(volume).await;
                }
                Ok(self.unbind(volume).await?)
            }
        }
    }

    fn tell_of_modes(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let message = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to \
             incompatible volumeMode.",
            name(&claim.metadata.name)
        );
        self.context.event(volume, EventType::Warning, "VolumeMismatch", message);
        let message = format!(
            "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to \
             incompatible volumeMode.",
            name(&volume.metadata.name)
        );
        self.context.event(claim, EventType::Warning, "VolumeMismatch", message);
    }

    /// Takes back that a volume is bound: all of it, or of what a user wrote only the claim's uid.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<(), ClientError> {
        let mut patch = json!({"metadata": {
            "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version,
        }});
        if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
            patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: null});
            patch["spec"] = json!({"claimRef": null});
        } else {
            patch["spec"] = json!({"claimRef": {"uid": null}});
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let volumes = self.context.resources::<PersistentVolume>("");
        let volume = volumes.patch(name, PatchKind::Merge, patch).await?;
        self.write_phase(&volume, "Available", None).await.map(drop)
    }

    /// The claim is gone: keeps the volume, or deletes it, as it says.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        // A failure is shown until what it is about succeeds.
        let volume = if matches!(phase, Some("Released" | "Failed")) {
            volume.clone()
        } else {
            self.write_phase(volume, "Released", None).await?
        };
        let spec = volume.spec.clone().unwrap_or_default();
        match spec.persistent_volume_reclaim_policy.as_deref() {
            None | Some("Retain") => Ok(()),
            Some("Delete") => self.delete(&volume).await,
            Some("Recycle") => {
                let message = "No recycler plugin found for the volume!";
                Ok(self.fail(&volume, "VolumeFailedRecycle", message).await?)
            }
            Some(_) => {
                let message = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                Ok(self.fail(&volume, "VolumeUnknownReclaimPolicy", message).await?)
            }
        }
    }

    /// Shows why a volume cannot be reclaimed, with an event the first time.
    async fn fail(
        &self,
        volume: &PersistentVolume,
        reason: &str,
        message: &str,
    ) -> Result<(), ClientError> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Failed") {
            let failed = self.write_phase(volume, "Failed", Some(message)).await?;
            self.context.event(&failed, EventType::Warning, reason, message);
        }
        Ok(())
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let made_by = annotation(&volume.metadata, PROVISIONED_BY).filter(|by| !by.is_empty());
        let provisioner = made_by.and_then(|by| self.provisioner(by));
        let is_csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
        let provisioner = match (made_by, provisioner) {
            (_, Some(provisioner)) => provisioner,
            (Some(by), None) if by.starts_with("kubernetes.io/") => {
                let message = format!("no volume plugin matched name: {by}");
                return Ok(self.fail(volume, "VolumeFailedDelete", &message).await?);
            }
            // Whoever made it deletes it.
            (Some(_), None) => return Ok(()),
            (None, None) if is_csi => return Ok(()),
            (None, None) => {
                let message = format!(
                    "error getting deleter volume plugin for volume \"{name}\": no deletable \
                     volume plugin matched"
                );
                return Ok(self.fail(volume, "VolumeFailedDelete", &message).await?);
            }
        };
        if let Err(error) = provisioner.delete(volume).await {
            self.fail(volume, "VolumeFailedDelete", &error.to_string()).await?;
            return Err(ReconcileError::Other(Box::new(error)));
        }
        let volumes = self.context.resources::<PersistentVolume>("");
        // The version moved on if a failure was shown before.
        let Some(latest) = volumes.get_opt(&name).await? else { return Ok(()) };
        set_finalizer::<PersistentVolume>(
            &self.context,
            &latest.metadata,
            DELETION_FINALIZER,
            false,
        )
        .await?;
        let options =
            DeleteOptions { uid: volume.metadata.uid.clone(), ..DeleteOptions::default() };
        match volumes.delete(&name, options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Of a volume that was made here: it has the finalizer that keeps it until what it stands for
    /// is deleted, exactly as long as its policy is to delete that.
    ///
    /// Source: `modifyDeletionFinalizers` of `pv_controller_base.go`.
    async fn keep_finalizer(&self, volume: &PersistentVolume) -> Result<bool, ClientError> {
        let made_by = annotation(&volume.metadata, PROVISIONED_BY).unwrap_or_default();
        if self.provisioner(made_by).is_none() {
            return Ok(false);
        }
        let policy = volume.spec.as_ref();
        let policy = policy.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let wanted = policy == Some("Delete");
        let has =
            volume.metadata.finalizers.iter().flatten().any(|name| name == DELETION_FINALIZER);
        // One that is going can get no new finalizers.
        if has == wanted || (wanted && volume.metadata.deletion_timestamp.is_some()) {
            return Ok(false);
        }
        let meta = &volume.metadata;
        set_finalizer::<PersistentVolume>(&self.context, meta, DELETION_FINALIZER, wanted).await?;
        Ok(true)
    }
}
