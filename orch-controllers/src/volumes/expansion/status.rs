//! What a claim's status says of a volume that grows.
//!
//! Source: `k8s.io/kubernetes/pkg/volume/util/resize_util.go`.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{ClientError, client::PatchKind};
use serde_json::{Value, json};

use super::Expanding;

/// On a claim: who makes its volume larger.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

const RESIZE_CONDITIONS: &[&str] =
    &["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];

impl Expanding {
    /// Patches the status, guarded by the version that the decision was made on.
    async fn patch_status(
        &self,
        claim: &PersistentVolumeClaim,
        annotations: Option<Value>,
        status: Value,
    ) -> Result<Arc<PersistentVolumeClaim>, ClientError> {
        let meta = &claim.metadata;
        let mut patch = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": status,
        });
        if let Some(annotations) = annotations {
            patch["metadata"]["annotations"] = annotations;
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let claims = self.context.resources::<PersistentVolumeClaim>(namespace);
        claims.patch_status(name, PatchKind::Merge, patch).await
    }

    fn condition(&self, type_: &str, message: Option<&str>) -> PersistentVolumeClaimCondition {
        PersistentVolumeClaimCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(self.context.time()),
            message: message.map(str::to_owned),
            ..PersistentVolumeClaimCondition::default()
        }
    }

    pub(super) async fn mark_in_progress(
        &self,
        claim: &PersistentVolumeClaim,
        resizer: &str,
        size: &Quantity,
    ) -> Result<Arc<PersistentVolumeClaim>, ClientError> {
        let status = claim.status.clone().unwrap_or_default();
        let conditions = merged(&status, Some(self.condition("Resizing", None)), false);
        let patch = json!({
            "conditions": conditions,
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
        });
        self.patch_status(claim, Some(json!({RESIZER: resizer})), patch).await
    }

    pub(super) async fn mark_pending_on_node(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolumeClaim>, ClientError> {
        const MESSAGE: &str = "Waiting for user to (re-)start a pod to finish file system resize \
                               of volume on node.";
        let status = claim.status.clone().unwrap_or_default();
        let pending = self.condition("FileSystemResizePending", Some(MESSAGE));
        let patch = json!({
            "conditions": merged(&status, Some(pending), true),
            "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        });
        self.patch_status(claim, None, patch).await
    }

    pub(super) async fn mark_finished(
        &self,
        claim: &PersistentVolumeClaim,
        size: &Quantity,
    ) -> Result<Arc<PersistentVolumeClaim>, ClientError> {
        let status = claim.status.clone().unwrap_or_default();
        let patch = json!({
            "capacity": {"storage": size},
            "conditions": merged(&status, None, false),
            "allocatedResourceStatuses": without_storage(&status),
        });
        self.patch_status(claim, None, patch).await
    }
}

/// Null for the whole list once nothing else grows.
fn without_storage(status: &PersistentVolumeClaimStatus) -> Value {
    let rest = status.allocated_resource_statuses.as_ref();
    let has_others = rest.is_some_and(|all| all.keys().any(|name| name != "storage"));
    if has_others { json!({"storage": null}) } else { Value::Null }
}

/// The conditions with those about growing replaced; what is of another kind stays.
fn merged(
    status: &PersistentVolumeClaimStatus,
    wanted: Option<PersistentVolumeClaimCondition>,
    keep_others: bool,
) -> Vec<PersistentVolumeClaimCondition> {
    let mut wanted = wanted;
    let mut result = Vec::new();
    for known in status.conditions.iter().flatten() {
        if !RESIZE_CONDITIONS.contains(&known.type_.as_str()) {
            result.push(known.clone());
        } else if wanted.as_ref().is_some_and(|wanted| wanted.type_ == known.type_) {
            let is_same = wanted.as_ref().is_some_and(|wanted| wanted.status == known.status);
            let replacement = wanted.take();
            result.extend(if is_same { Some(known.clone()) } else { replacement });
        } else if keep_others {
            result.push(known.clone());
        }
    }
    result.extend(wanted);
    result
}
