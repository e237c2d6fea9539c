//! Takes claims back from pods that do not run any more: their devices are free then.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus},
};
use orch_core::{
    Key,
    client::DeleteOptions,
    device_claim::{FINALIZER, is_allocated},
};

use super::{Known, is_done, owning_pod, uid_of};
use crate::{Action, ReconcileError, Reconciler, reconciler::Reconciled};

pub(super) struct Releaser {
    known: Known,
}

fn users(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    let status = claim.status.as_ref();
    status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

fn has_finalizer(claim: &ResourceClaim) -> bool {
    claim.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER)
}

#[async_trait]
impl Reconciler for Releaser {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(claim) = self.known.claim(&key) else { return Ok(Action::Done) };
        let mut valid = Vec::new();
        for user in users(&claim) {
            if self.is_valid(&key, user).await? {
                valid.push(user.clone());
            }
        }
        let unused = valid.is_empty();
        let going = claim.metadata.deletion_timestamp.is_some() && has_finalizer(&claim);
        if valid.len() < users(&claim).len() || unused && going {
            self.take_back(&claim, valid).await?;
        }
        if unused {
            self.delete_unused(&key, &claim).await?;
        }
        Ok(Action::Done)
    }
}

impl Releaser {
    pub(super) fn new(known: Known) -> Self {
        Self { known }
    }

    /// Whether a claim is still kept for somebody.
    async fn is_valid(
        &self,
        key: &Key,
        user: &ResourceClaimConsumerReference,
    ) -> Result<bool, ReconcileError> {
        let group = user.api_group.as_deref().unwrap_or_default();
        if !group.is_empty() || user.resource != "pods" {
            let ResourceClaimConsumerReference { name, resource, uid, .. } = user;
            let words =
                format!("unsupported ReservedFor entry: {{{group} {resource} {name} {uid}}}");
            return Err(ReconcileError::message(words));
        }
        if let Some(pod) =
            self.known.pods.get(&Key::new(key.namespace.as_str(), user.name.as_str()))
        {
            return Ok(uid_of(&pod) == user.uid && !is_done(&pod));
        }
        // The local copy may lack a pod that is being scheduled.
        let pods = self.known.context.resources::<Pod>(&key.namespace);
        let pod = pods.get_opt(&user.name).await?;
        Ok(pod.is_some_and(|pod| uid_of(&pod) == user.uid))
    }

    /// Keeps a claim for these only. Without any it gives its devices back, so that whoever uses it
    /// next may do so elsewhere.
    async fn take_back(
        &self,
        claim: &Arc<ResourceClaim>,
        valid: Vec<ResourceClaimConsumerReference>,
    ) -> Result<(), ReconcileError> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let claims = self.known.context.resources::<ResourceClaim>(namespace);
        let mut changed = (**claim).clone();
        let status = changed.status.get_or_insert_default();
        let frees = valid.is_empty() && has_finalizer(claim);
        status.reserved_for = Some(valid).filter(|valid| !valid.is_empty());
        if frees {
            *status = ResourceClaimStatus::default();
        }
        let before = claim.status.clone().unwrap_or_default();
        if *status != before {
            // The whole status, so that this fails if anything changed meanwhile.
            changed = Arc::unwrap_or_clone(claims.update_status(&changed).await?);
        }
        if has_finalizer(&changed) && !is_allocated(&changed) {
            let finalizers = changed.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|one| one != FINALIZER);
            claims.update(&changed).await?;
        }
        Ok(())
    }

    /// A claim that was made for a pod which will not run goes before the pod does.
    async fn delete_unused(&self, key: &Key, claim: &ResourceClaim) -> Result<(), ReconcileError> {
        let Some((name, uid)) = owning_pod(claim) else { return Ok(()) };
        // A pod that is not known may not be known yet; if it is gone, its claim is garbage.
        let pod = self.known.pods.get(&Key::new(key.namespace.as_str(), name));
        if !pod.is_some_and(|pod| uid_of(&pod) != uid || is_done(&pod)) {
            return Ok(());
        }
        let claims = self.known.context.resources::<ResourceClaim>(&key.namespace);
        match claims.delete(&key.name, DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => {
                Err(ReconcileError::message(format!("delete claim {key}: {error}")))
            }
            _ => Ok(()),
        }
    }
}
