//! The node's part in volumes that grow.
//!
//! What this machine provides are folders, whose file system is the machine's own: there is nothing
//! to resize, and the claim is told that its volume has the new size.
//!
//! Source: `pkg/volume/util/operationexecutor/node_expander.go`,
//! `pkg/volume/util/resize_util.go`.

use k8s_openapi::{
    api::core::v1::{
        PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
        PersistentVolumeClaimStatus, Pod,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{ClientError, Resources, client::PatchKind, event::EventType, quantity::Amount};
use serde_json::{Value, json};

use super::Volumes;
use crate::agent::spec;

/// Conditions that are about growing.
const RESIZE_CONDITIONS: &[&str] =
    &["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];

impl Volumes {
    /// Ends what a controller began, if that waits for a node.
    pub(super) async fn finish_growing(
        &self,
        pod: &Pod,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        read_only: bool,
    ) -> Result<(), ClientError> {
        let Some(size) = pending_size(claim, volume) else { return Ok(()) };
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let events = self.events.of_pod(pod);
        if read_only {
            let text = format!(
                "MountVolume.NodeExpandVolume failed for volume \"{name}\" requested read-only \
                 file system"
            );
            events.warn(None, "FileSystemResizeFailed", &text);
            self.events.of_claim(claim, EventType::Warning, "FileSystemResizeFailed", &text);
            return Ok(());
        }
        let namespace = spec::namespace(pod);
        let claims = Resources::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
        claims.patch_status(claim_name, PatchKind::Merge, finished(claim, size)).await?;
        let text = format!(
            "MountVolume.NodeExpandVolume succeeded for volume \"{name}\" {}",
            spec::spec(pod).node_name.as_deref().unwrap_or_default()
        );
        events.normal(None, "FileSystemResizeSuccessful", &text);
        self.events.of_claim(claim, EventType::Normal, "FileSystemResizeSuccessful", &text);
        Ok(())
    }
}

fn amount(size: &Quantity) -> Amount {
    size.0.parse().unwrap_or_default()
}

/// The size of the volume, if the claim waits for a node to reach it.
fn pending_size<'a>(
    claim: &PersistentVolumeClaim,
    volume: &'a PersistentVolume,
) -> Option<&'a Quantity> {
    let status = claim.status.as_ref()?;
    let progress = status.allocated_resource_statuses.as_ref()?.get("storage")?;
    if !matches!(progress.as_str(), "NodeResizePending" | "NodeResizeInProgress") {
        return None;
    }
    let size = volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
    let has = status.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
    (has.map(amount).unwrap_or_default() < amount(size)).then_some(size)
}

/// Guarded by the version that was looked at: several pods may use the claim here.
fn finished(claim: &PersistentVolumeClaim, size: &Quantity) -> Value {
    let meta = &claim.metadata;
    let empty = PersistentVolumeClaimStatus::default();
    let status = claim.status.as_ref().unwrap_or(&empty);
    let others: Vec<&PersistentVolumeClaimCondition> = status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !RESIZE_CONDITIONS.contains(&condition.type_.as_str()))
        .collect();
    let statuses = status.allocated_resource_statuses.as_ref();
    let has_others = statuses.is_some_and(|all| all.keys().any(|name| name != "storage"));
    let statuses = if has_others { json!({"storage": null}) } else { Value::Null };
    json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {
            "capacity": {"storage": size},
            "conditions": others,
            "allocatedResourceStatuses": statuses,
        },
    })
}
