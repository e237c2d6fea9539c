//! Makes the claims that pods have templates for, and keeps claims for pods that run.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim},
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Key,
    client::PatchKind,
    device_claim::{ClaimError, claim_name, is_allocated, is_for_pod, is_reserved_for},
    owner::controller_reference,
};
use serde_json::json;

use super::{Known, Made, POD_CLAIM_NAME, claims_of, is_assigned, is_done, namespace_of, uid_of};
use crate::{Action, ReconcileError, Reconciler, context::EventType, pods, reconciler::Reconciled};

/// A hyphen and five letters follow, in a name of 63.
const BASE_MAX: usize = 57;

pub(super) struct Creator {
    known: Known,
    made: Made,
}

/// What claims made for a pod are named after: both names, shortened alike where they are too long.
fn base_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let part = |name: &str| name[..name.len() * BASE_MAX / whole.len()].to_owned();
    format!("{}-{}", part(pod), part(claim))
}

fn from_template(
    template: &ResourceClaimTemplate,
    pod: &Pod,
    of: &PodResourceClaim,
) -> ResourceClaim {
    let own = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = own.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), of.name.clone());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_name(name, &of.name)),
            namespace: pod.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(pod)]),
            annotations: Some(annotations),
            labels: own.labels,
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

#[async_trait]
impl Reconciler for Creator {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let pod = self.known.pods.get(&key);
        let wanted = |pod: &Arc<Pod>| !pods::is_terminating(pod) && !is_done(pod);
        let Some(pod) = pod.filter(wanted) else {
            self.forget_gone();
            return Ok(Action::Done);
        };
        let mut new = BTreeMap::new();
        for one in claims_of(&pod) {
            match self.ensure(&pod, one).await {
                Ok(Some(claim)) => drop(new.insert(one.name.clone(), claim)),
                Ok(None) => {}
                Err(error) => {
                    let words = format!("PodResourceClaim {}: {error}", one.name);
                    let reason = "FailedResourceClaimCreation";
                    self.known.context.event(&*pod, EventType::Warning, reason, words.as_str());
                    return Err(ReconcileError::message(format!("pod {key}, {words}")));
                }
            }
        }
        if !new.is_empty() {
            let statuses = new.iter();
            let statuses =
                statuses.map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}));
            let statuses: Vec<_> = statuses.collect();
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"resourceClaimStatuses": statuses},
            });
            let pods = self.known.context.resources::<Pod>(&key.namespace);
            pods.patch_status(&key.name, PatchKind::Strategic, patch).await?;
        }
        if is_assigned(&pod) && new.is_empty() {
            self.reserve_all(&pod).await?;
        }
        Ok(Action::Done)
    }
}

impl Creator {
    pub(super) fn new(known: Known, made: Made) -> Self {
        Self { known, made }
    }

    /// What was made for pods that are gone needs not be remembered.
    fn forget_gone(&self) {
        let mut made = self.made.lock();
        made.retain(|_, claim| {
            let owner = super::owning_pod(claim);
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            owner.is_some_and(|(name, uid)| {
                let pod = self.known.pods.get(&Key::new(namespace, name));
                pod.is_some_and(|pod| uid_of(&pod) == uid)
            })
        });
    }

    /// The name of a claim that the pod's status has to tell of; `None` if nothing is to be done.
    async fn ensure(
        &self,
        pod: &Pod,
        of: &PodResourceClaim,
    ) -> Result<Option<String>, ReconcileError> {
        match claim_name(pod, of) {
            Err(ClaimError::NotCreated { .. }) => {}
            Err(error) => {
                let words = format!("checking for claim before creating it: {error}");
                return Err(ReconcileError::message(words));
            }
            Ok(None) => return Ok(None),
            Ok(Some(found)) => {
                let claim = self.known.claim(&Key::new(namespace_of(pod), found.name.as_str()));
                let own =
                    |claim: &ResourceClaim| !found.generated || is_for_pod(pod, claim).is_ok();
                if claim.is_some_and(|claim| own(&claim)) {
                    return Ok(None);
                }
            }
        }
        let Some(template) = &of.resource_claim_template_name else { return Ok(None) };
        let claim = match self.find(pod, of) {
            Some(claim) => claim,
            None => self.create(pod, of, template).await?,
        };
        Ok(claim.metadata.name.clone())
    }

    /// A claim that was made before, though the pod's status does not tell of it.
    fn find(&self, pod: &Pod, of: &PodResourceClaim) -> Option<Arc<ResourceClaim>> {
        let key = (uid_of(pod).to_owned(), of.name.clone());
        let seen = self.known.claims.by_index(super::BY_OWNER, uid_of(pod));
        let seen = seen.into_iter().find(|claim| {
            let annotations = claim.metadata.annotations.as_ref();
            annotations.and_then(|all| all.get(POD_CLAIM_NAME)) == Some(&of.name)
        });
        seen.or_else(|| self.made.lock().get(&key).cloned())
    }

    async fn create(
        &self,
        pod: &Pod,
        of: &PodResourceClaim,
        template: &str,
    ) -> Result<Arc<ResourceClaim>, ReconcileError> {
        let found = self.known.templates.get(&Key::new(namespace_of(pod), template));
        let found = found.ok_or_else(|| {
            let why = format!("resourceclaimtemplate.resource.k8s.io {template:?} not found");
            ReconcileError::message(format!("resource claim template {template:?}: {why}"))
        })?;
        let wanted = from_template(&found, pod, of);
        let claims = self.known.context.resources::<ResourceClaim>(namespace_of(pod));
        let created = claims.create(&wanted).await;
        self.known.metrics.created(&wanted, created.is_ok());
        let created = created.map_err(|error| {
            // The name is not known yet, and upstream leaves its place empty.
            ReconcileError::message(format!("create ResourceClaim : {error}"))
        })?;
        let key = (uid_of(pod).to_owned(), of.name.clone());
        self.made.lock().insert(key, created.clone());
        Ok(created)
    }

    /// Keeps the pod's claims for it. A scheduler has done that, unless the pod was assigned to its
    /// node by somebody else.
    async fn reserve_all(&self, pod: &Pod) -> Result<(), ReconcileError> {
        for one in claims_of(pod) {
            let name = claim_name(pod, one).map_err(ReconcileError::message)?;
            let Some(name) = name else { continue };
            let key = Key::new(namespace_of(pod), name.name.as_str());
            let Some(claim) = self.known.claim(&key) else { return Ok(()) };
            if name.generated {
                is_for_pod(pod, &claim).map_err(ReconcileError::message)?;
            }
            if !is_allocated(&claim) || is_reserved_for(uid_of(pod), &claim) {
                continue;
            }
            let mut claim = (*claim).clone();
            let status = claim.status.get_or_insert_default();
            status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
                api_group: None,
                name: pod.metadata.name.clone().unwrap_or_default(),
                resource: "pods".into(),
                uid: uid_of(pod).to_owned(),
            });
            self.known.context.resources(&key.namespace).update_status(&claim).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened_alike() {
        let check = |pod: &str, claim: &str, expected: &str| {
            assert_eq!(base_name(pod, claim), expected);
        };
        check("web-0", "gpu", "web-0-gpu-");
        let (pod, claim) = ("p".repeat(40), "c".repeat(40));
        check(&pod, &claim, &format!("{}-{}", "p".repeat(27), "c".repeat(27)));
    }
}
