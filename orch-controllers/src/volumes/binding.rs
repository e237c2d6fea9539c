//! Binding in four writes, each of which can be the last before a stop: what is left is done the
//! next time.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use orch_core::{ClientError, Key, client::PatchKind, event::reference_to};

use super::{BOUND_BY_CONTROLLER, Binder, claims::bound_patch};

impl Binder {
    pub(super) async fn bind(
        &self,
        key: &Key,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), ClientError> {
        let volume = self.point_to(volume, claim).await?;
        let volume = self.write_phase(&volume, "Bound", None).await?;
        let mut claim = claim.clone();
        if let Some(patch) = bound_patch(&claim, &volume) {
            let resources = self.context.resources::<PersistentVolumeClaim>(&key.namespace);
            claim = resources.patch(&key.name, PatchKind::Merge, patch).await?.as_ref().clone();
        }
        self.write_claim_status(key, &claim, "Bound", Some(&volume)).await
    }

    /// Lets the volume name the claim.
    async fn point_to(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolume, ClientError> {
        let known = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if known.is_some_and(|known| known.uid.is_some() && known.uid == claim.metadata.uid) {
            return Ok(volume.clone());
        }
        let mut updated = volume.clone();
        if known.is_none() {
            let annotations = updated.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        updated.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
        let written = self.context.resources::<PersistentVolume>("").update(&updated).await?;
        Ok(written.as_ref().clone())
    }

    pub(super) async fn write_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<PersistentVolume, ClientError> {
        let known = volume.status.clone().unwrap_or_default();
        if known.phase.as_deref() == Some(phase) {
            return Ok(volume.clone());
        }
        let status = PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            last_phase_transition_time: Some(self.context.time()),
            message: message.map(str::to_owned),
            reason: None,
        };
        let updated = PersistentVolume { status: Some(status), ..volume.clone() };
        let written =
            self.context.resources::<PersistentVolume>("").update_status(&updated).await?;
        Ok(written.as_ref().clone())
    }
}
