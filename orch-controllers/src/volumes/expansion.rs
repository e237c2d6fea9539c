//! Makes volumes as large as their claims have come to ask for.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/expand`,
//! `k8s.io/kubernetes/pkg/volume/util/resize_util.go`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{
    Key,
    client::PatchKind,
    informer::{Change, Informer, Informers},
};
use serde_json::{Value, json};

use super::{ProvisionError, annotation, matching};
use crate::{
    Action, Controller, ReconcileError, Reconciler,
    context::{Context, EventType},
    reconciler::Reconciled,
};

mod status;

/// On a volume: how large its claim was before, until the node has finished.
pub(super) const PRE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// What became of a volume that was to grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Expansion {
    /// How large it is now; at least what was asked for.
    pub size: Quantity,
    /// Whether a node has still to do its part: the file system in the volume has to grow too.
    pub needs_node: bool,
}

/// Makes existing volumes larger.
///
/// Volumes that no expander answers for (those of CSI drivers above all) are left to a controller
/// elsewhere, the external resizer, and the claim gets an event that says so.
///
/// [`VolumeExpander::expand`] may be called again after it succeeded: it must be idempotent. It may
/// be dropped at any await. An error is reported with an event on the claim, and the call is
/// repeated with back-off and the same size. Object-safe.
#[async_trait]
pub trait VolumeExpander: Send + Sync + fmt::Debug + 'static {
    /// The name that the claim is annotated with while its volume grows.
    fn name(&self) -> &str;

    /// Whether it knows how to make this volume larger.
    fn answers_for(&self, volume: &PersistentVolume) -> bool;

    /// Makes a volume at least as large as `to`. The objects are written by the caller.
    async fn expand(
        &self,
        volume: &PersistentVolume,
        from: &Quantity,
        to: &Quantity,
    ) -> Result<Expansion, ProvisionError>;
}

/// The controller that makes volumes grow with the requests of their claims.
pub fn volume_expansion(
    informers: &Informers,
    expanders: Vec<Arc<dyn VolumeExpander>>,
) -> Controller {
    let context =
        Context::reporting(informers, "persistentvolume-expander-controller", "volume_expand");
    let claims = context.informer();
    let builder = context
        .builder()
        .workers(10)
        .watches_own_if::<PersistentVolumeClaim>(concerns_a_size)
        .reads::<PersistentVolume>();
    builder.build(Expanding { context, claims, expanders })
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// A claim asks for more, or has become larger: then the note on its volume may go.
fn concerns_a_size(change: &Change<PersistentVolumeClaim>) -> bool {
    match change {
        Change::Added(claim) => is_bound(claim),
        Change::Updated { old, new } => {
            is_bound(new)
                && (matching::requested(new) > matching::requested(old)
                    || matching::provided(new) > matching::provided(old))
        }
        Change::Deleted(_) => false,
    }
}

struct Expanding {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    expanders: Vec<Arc<dyn VolumeExpander>>,
}

/// What the state of a claim and its volume ask for.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing: a node is at it.
    Wait,
    /// A node gave up, and may try again.
    AskNode,
    /// To this size.
    Grow(Quantity),
}

#[async_trait]
impl Reconciler for Expanding {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(claim) = self.claims.get(&key) else { return Ok(Action::Done) };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let name = name.unwrap_or_default();
        // The local copy may not show the size that was written last.
        let volume = self.context.resources::<PersistentVolume>("").get(&name).await;
        let volume = volume.map_err(|error| {
            ReconcileError::message(format!("failed to get PV \"{name}\": {error}"))
        })?;
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if !reference.is_some_and(|reference| {
            reference.namespace == claim.metadata.namespace && reference.uid == claim.metadata.uid
        }) {
            let text = format!("persistent Volume is not bound to PVC being updated : {key}");
            return Err(ReconcileError::message(text));
        }
        let is_noted = annotation(&volume.metadata, PRE_RESIZE).is_some();
        if matching::requested(&claim) <= matching::provided(&claim) && !is_noted {
            return Ok(Action::Done);
        }
        let Some(expander) = self.expanders.iter().find(|one| one.answers_for(&volume)) else {
            let message = "waiting for an external controller to expand this PVC";
            self.context.event(&*claim, EventType::Normal, "ExternalExpanding", message);
            return Ok(Action::Done);
        };
        if is_noted && is_node_done(&claim, &volume) {
            self.forget_size_before(&volume).await?;
            return Ok(Action::Done);
        }
        if let Err(message) = self.expand(&claim, &volume, expander.as_ref()).await {
            self.context.event(&*claim, EventType::Warning, "VolumeResizeFailed", message.as_str());
            return Err(ReconcileError::message(message));
        }
        Ok(Action::Done)
    }
}

/// Requests may shrink while a volume grows, so that the volume's size counts too.
fn is_node_done(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let has = matching::provided(claim);
    has >= matching::requested(claim) && has >= matching::capacity(volume)
}

fn storage(list: Option<&std::collections::BTreeMap<String, Quantity>>) -> Option<Quantity> {
    list.and_then(|list| list.get("storage")).cloned()
}

/// Source: `expandAndRecoverFunction` of
/// `k8s.io/kubernetes/pkg/volume/util/operationexecutor/operation_generator.go`.
fn next_step(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Step {
    let spec = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let wanted = storage(spec.and_then(|resources| resources.requests.as_ref()));
    let wanted = wanted.unwrap_or_default();
    let status = claim.status.as_ref();
    let allocated = storage(status.and_then(|status| status.allocated_resources.as_ref()));
    let progress = status.and_then(|status| status.allocated_resource_statuses.as_ref());
    let progress = progress.and_then(|all| all.get("storage")).map(String::as_str);
    // What was begun is brought to its end first, at the size that was noted then.
    let begun = |allocated: Option<Quantity>| Step::Grow(allocated.unwrap_or(wanted.clone()));
    let is_large_enough = matching::capacity(volume) >= matching::requested(claim);
    match progress {
        Some("NodeResizePending" | "NodeResizeInProgress") if is_large_enough => Step::Wait,
        Some("NodeResizeInfeasible") if is_large_enough => Step::AskNode,
        Some("ControllerResizeInfeasible") if is_large_enough => begun(allocated),
        Some(
            "ControllerResizeInProgress"
            | "NodeResizePending"
            | "NodeResizeInProgress"
            | "NodeResizeInfeasible",
        ) => begun(allocated),
        None if is_large_enough => begun(allocated),
        _ => Step::Grow(wanted),
    }
}

impl Expanding {
    /// The error is for users to read.
    async fn expand(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        expander: &dyn VolumeExpander,
    ) -> Result<(), String> {
        let size = match next_step(claim, volume) {
            Step::Wait => return Ok(()),
            Step::AskNode => return self.leave_to_node(claim, volume).await,
            Step::Grow(size) => size,
        };
        let name = Key::of(&claim.metadata);
        let claim = self
            .mark_in_progress(claim, expander.name(), &size)
            .await
            .map_err(|e| format!("error updating pvc {name} with resize in progress: {e}"))?;
        let before = storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
        let grown = expander.expand(volume, &before.unwrap_or_default(), &size).await;
        let grown = grown.map_err(|error| format!("error expanding pvc {name}: {error}"))?;
        // The volume first: if this is the last write for now, the claim still says what is begun.
        let volume = self.write_size(volume, &grown.size).await;
        let volume =
            volume.map_err(|error| format!("error updating pv for pvc {name}: {error}"))?;
        let mode = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
        if grown.needs_node && mode != Some("Block") {
            return self.leave_to_node(&claim, &volume).await;
        }
        let claim = self.mark_finished(&claim, &grown.size).await;
        let claim =
            claim.map_err(|error| format!("error marking pvc {name} as resized: {error}"))?;
        let message = format!("ExpandVolume succeeded for volume {name}");
        self.context.event(&*claim, EventType::Normal, "VolumeResizeSuccessful", message);
        Ok(())
    }

    async fn leave_to_node(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), String> {
        let name = Key::of(&claim.metadata);
        let marked = self.mark_pending_on_node(claim).await;
        let told = match marked {
            Ok(_) => self.note_size_before(claim, volume).await,
            Err(error) => Err(error),
        };
        told.map_err(|error| format!("error marking pvc {name} for node expansion: {error}"))
    }

    async fn patch_volume(
        &self,
        volume: &PersistentVolume,
        mut patch: Value,
    ) -> Result<Arc<PersistentVolume>, orch_core::ClientError> {
        patch["metadata"]["uid"] = json!(volume.metadata.uid);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        self.context.resources::<PersistentVolume>("").patch(name, PatchKind::Merge, patch).await
    }

    async fn write_size(
        &self,
        volume: &PersistentVolume,
        size: &Quantity,
    ) -> Result<Arc<PersistentVolume>, orch_core::ClientError> {
        self.patch_volume(volume, json!({"spec": {"capacity": {"storage": size}}})).await
    }

    /// Should the claim go before the node has finished, the next one knows what is left to do.
    async fn note_size_before(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), orch_core::ClientError> {
        if annotation(&volume.metadata, PRE_RESIZE).is_some() {
            return Ok(());
        }
        let before = storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
        let patch = json!({"metadata": {"annotations": {PRE_RESIZE: before.unwrap_or_default()}}});
        self.patch_volume(volume, patch).await.map(drop)
    }

    async fn forget_size_before(
        &self,
        volume: &PersistentVolume,
    ) -> Result<(), orch_core::ClientError> {
        let patch = json!({"metadata": {"annotations": {PRE_RESIZE: null}}});
        self.patch_volume(volume, patch).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_ended_before_more_is_begun() {
        let check = |request: &str, size: &str, allocated: &str, progress: &str, expected: Step| {
            let mut claim = json!({
                "metadata": {}, "spec": {"resources": {"requests": {"storage": request}}},
                "status": {"capacity": {"storage": "1Gi"}},
            });
            if !allocated.is_empty() {
                claim["status"]["allocatedResources"] = json!({"storage": allocated});
            }
            if !progress.is_empty() {
                claim["status"]["allocatedResourceStatuses"] = json!({"storage": progress});
            }
            let volume = json!({"metadata": {}, "spec": {"capacity": {"storage": size}}});
            let claim = serde_json::from_value(claim).unwrap();
            let step = next_step(&claim, &serde_json::from_value(volume).unwrap());
            assert_eq!(step, expected, "{request} {size} {allocated} {progress}");
        };
        let grow = |size: &str| Step::Grow(Quantity(size.to_owned()));
        check("5Gi", "1Gi", "", "", grow("5Gi"));
        check("9Gi", "1Gi", "5Gi", "ControllerResizeInProgress", grow("5Gi"));
        check("3Gi", "1Gi", "5Gi", "ControllerResizeInfeasible", grow("3Gi"));
        check("9Gi", "5Gi", "5Gi", "NodeResizePending", grow("5Gi"));
        check("5Gi", "5Gi", "5Gi", "NodeResizePending", Step::Wait);
        check("5Gi", "5Gi", "5Gi", "NodeResizeInProgress", Step::Wait);
        check("5Gi", "5Gi", "5Gi", "NodeResizeInfeasible", Step::AskNode);
        check("3Gi", "5Gi", "5Gi", "ControllerResizeInfeasible", grow("5Gi"));
        check("3Gi", "5Gi", "5Gi", "ControllerResizeInProgress", grow("5Gi"));
        check("5Gi", "5Gi", "", "", grow("5Gi"));
    }
}
