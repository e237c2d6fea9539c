//! What becomes of a volume: free, bound, or without its claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::{Key, client::DeleteOptions};

use super::{Binder, PROVISIONED_BY, annotation, claim_key};
use crate::{ReconcileError, context::EventType};

impl Binder {
    pub(super) async fn sync_volume(
        &self,
        volume: &PersistentVolume,
    ) -> Result<(), ReconcileError> {
        let Some(key) = claim_key(volume) else {
            self.write_phase(volume, "Available").await?;
            return Ok(());
        };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let uid = reference.and_then(|reference| reference.uid.clone()).unwrap_or_default();
        if uid.is_empty() {
            // Set aside for a claim that may not exist yet; the claim takes it.
            self.write_phase(volume, "Available").await?;
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
        if named.is_some() && named == volume.metadata.name.as_deref() {
            self.write_phase(volume, "Bound").await?;
        } else if named.is_some_and(|named| !named.is_empty()) {
            // The claim has another volume; this one was made or chosen in vain.
            return self.release(volume).await;
        }
        Ok(())
    }

    /// The claim is gone: keeps the volume, or deletes it, as it says.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let volume = self.write_phase(volume, "Released").await?;
        let spec = volume.spec.clone().unwrap_or_default();
        match spec.persistent_volume_reclaim_policy.as_deref() {
            Some("Delete") => self.delete(&volume).await,
            Some("Recycle") => {
                let message = "Volume cannot be recycled: that is not supported";
                self.context.event(&volume, EventType::Warning, "VolumeFailedRecycle", message);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let made_by = annotation(&volume.metadata, PROVISIONED_BY);
        let Some(provisioner) = made_by.and_then(|name| self.provisioner(name)) else {
            // Whoever made it deletes it.
            return Ok(());
        };
        if let Err(error) = provisioner.delete(volume).await {
            let message = error.to_string();
            self.context.event(volume, EventType::Warning, "VolumeFailedDelete", message);
            return Err(ReconcileError::Other(Box::new(error)));
        }
        let key = Key::of(&volume.metadata);
        let options =
            DeleteOptions { uid: volume.metadata.uid.clone(), ..DeleteOptions::default() };
        match self.context.resources::<PersistentVolume>("").delete(&key.name, options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
