//! The claims of a set's pods: made before the pods, and kept or not when they go.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/statefulset/stateful_set_utils.go`.
//! Differs: claims of pods that are too many are deleted with them, not owned by them first.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use orch_core::{ClientError, Key, client::DeleteOptions};

use super::{Look, identity};
use crate::{ReconcileError, context::EventType, ownership, pods::Voice};

impl Look<'_> {
    /// Makes the claims of a pod that are not there. What does not succeed is told of twice, as of
    /// the claim and as of the pod.
    pub(super) async fn create_claims(&self, pod: &str) -> Result<(), ReconcileError> {
        for claim in identity::claims(self.set, pod) {
            if let Err(error) = self.create_claim(pod, claim).await {
                let message = error.to_string();
                let told = Voice::StatefulSet.failed(
                    ("create", "creating"),
                    pod,
                    &self.key.name,
                    &message,
                );
                self.context.event(self.set, EventType::Warning, "FailedCreate", told);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn create_claim(
        &self,
        pod: &str,
        mut claim: PersistentVolumeClaim,
    ) -> Result<(), ReconcileError> {
        let name = claim.metadata.name.clone().unwrap_or_default();
        if let Some(known) = self.claims.get(&Key::of(&claim.metadata)) {
            if known.metadata.deletion_timestamp.is_some() {
                return Err(ReconcileError::message(format!("pvc {name} is being deleted")));
            }
            return Ok(());
        }
        if self.owns_claims() {
            self.set_owner(&mut claim, true);
        }
        let set = &self.key.name;
        let claims = self.context.resources::<PersistentVolumeClaim>(&self.key.namespace);
        match claims.create(&claim).await {
            Ok(_) => {
                let told = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.context.event(self.set, EventType::Normal, "SuccessfulCreate", told);
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let told = format!(
                    "create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {error}"
                );
                self.context.event(self.set, EventType::Warning, "FailedCreate", told);
                Err(ReconcileError::message(format!("failed to create PVC {name}: {error}")))
            }
        }
    }

    /// Lets the set own the claims of its pods, so that they go with it, or not any more.
    pub(super) async fn sync_owners_of_claims(&self) -> Result<(), ClientError> {
        let resources = self.context.resources::<PersistentVolumeClaim>(&self.key.namespace);
        let uid = self.set.metadata.uid.as_deref().unwrap_or_default();
        let names = self.pods.iter().filter_map(|pod| pod.metadata.name.as_deref());
        let claims = names.flat_map(|name| identity::claims(self.set, name));
        for claim in claims.filter_map(|claim| self.claims.get(&Key::of(&claim.metadata))) {
            let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
            // What somebody else controls is not the set's to give away.
            if owners.iter().any(|owner| owner.controller == Some(true) && owner.uid != uid) {
                continue;
            }
            if owners.iter().any(|owner| owner.uid == uid) == self.owns_claims() {
                continue;
            }
            let mut claim = claim.as_ref().clone();
            self.set_owner(&mut claim, self.owns_claims());
            match resources.update(&claim).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn delete_claims_when_scaled(&self, pod: &Pod) -> Result<(), ClientError> {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        if policy.and_then(|policy| policy.when_scaled.as_deref()) != Some("Delete") {
            return Ok(());
        }
        let resources = self.context.resources::<PersistentVolumeClaim>(&self.key.namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        for claim in identity::claims(self.set, name) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            // It stays until the pod is gone: it is protected while in use.
            match resources.delete(name, DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the claims go with the set.
    fn owns_claims(&self) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
    }

    fn set_owner(&self, claim: &mut PersistentVolumeClaim, owned: bool) {
        let uid = self.set.metadata.uid.as_deref().unwrap_or_default();
        let mut owners = claim.metadata.owner_references.take().unwrap_or_default();
        owners.retain(|owner| owner.uid != uid);
        if owned {
            owners.push(ownership::controller_reference(self.set));
        }
        claim.metadata.owner_references = (!owners.is_empty()).then_some(owners);
    }
}
