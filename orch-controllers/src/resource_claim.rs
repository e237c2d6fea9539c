//! Claims for devices: made from templates for pods, kept for who uses them, and given back.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/resourceclaim`.
//! Differs: the status of a pod is changed by a strategic merge patch, where upstream applies it.

mod creation;
mod metrics;
mod release;

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{ResourceClaim, ResourceClaimTemplate},
};
use orch_core::{
    Key,
    device_claim::{claim_name, is_allocated, is_for_pod, is_reserved_for},
    informer::{Change, Informer, Informers},
    owner::controller_of,
};
use parking_lot::Mutex;

pub use self::metrics::ResourceClaimMetrics;
use self::{creation::Creator, release::Releaser};
use crate::{context::Context, manager::Runnable, pods};

/// The name within the pod of a claim that was made for it.
const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";

/// Pods by the claims that they use.
const BY_CLAIM: &str = "resource-claim";
/// Claims by the uid of the pod that they were made for.
const BY_OWNER: &str = "owning-pod";

/// Claims that were made and may not be seen yet, by the pod's uid and the name within the pod.
type Made = Arc<Mutex<HashMap<(String, String), Arc<ResourceClaim>>>>;

/// What both halves of the controller work with. Cheap to clone.
#[derive(Clone, Debug)]
struct Known {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    metrics: ResourceClaimMetrics,
}

fn claims_of(pod: &Pod) -> &[PodResourceClaim] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

fn is_assigned(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

/// Whether none of the pod's containers run, and none ever will.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || pods::is_terminating(pod) && !is_assigned(pod)
}

fn namespace_of(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The claims that a pod is known to use.
fn claim_keys(pod: &Pod) -> Vec<Key> {
    let names = claims_of(pod).iter().filter_map(|one| claim_name(pod, one).ok().flatten());
    names.map(|claim| Key::new(namespace_of(pod), claim.name)).collect()
}

/// The claim that a scheduler made for the pod's extended resources.
fn extended_key(pod: &Pod) -> Option<Key> {
    let claim = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    Some(Key::new(namespace_of(pod), claim.resource_claim_name.as_str()))
}

/// The pod that a claim was made for: name and uid.
fn owning_pod(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let owner = controller_of(&claim.metadata)?;
    let is_pod = owner.kind == "Pod" && owner.api_version == "v1";
    is_pod.then_some((owner.name.as_str(), owner.uid.as_str()))
}

impl Known {
    fn claim(&self, key: &Key) -> Option<Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    /// Whether something is left to be done for a pod.
    fn needs_work(&self, pod: &Pod) -> bool {
        if pods::is_terminating(pod) || is_done(pod) {
            return false;
        }
        for one in claims_of(pod) {
            let Ok(name) = claim_name(pod, one) else { return true };
            let Some(name) = name else { return false };
            let key = Key::new(namespace_of(pod), name.name.as_str());
            let Some(claim) = self.claim(&key) else {
                // Who names a claim makes it.
                return one.resource_claim_template_name.is_some();
            };
            if name.generated && is_for_pod(pod, &claim).is_err() {
                return false;
            }
            if is_assigned(pod) && is_allocated(&claim) && !is_reserved_for(uid_of(pod), &claim) {
                return true;
            }
        }
        false
    }

    /// The pods that a change of a claim makes work for.
    fn pods_of(&self, claim: &ResourceClaim) -> Vec<Key> {
        let users = self.pods.by_index(BY_CLAIM, &Key::of(&claim.metadata).to_string());
        let users = users.iter().filter(|pod| self.needs_work(pod));
        users.map(|pod| Key::of(&pod.metadata)).collect()
    }
}

/// The claims that a change of a pod may set free.
fn freed(change: &Change<Pod>) -> Vec<Key> {
    let keys = |pod: &Pod| claim_keys(pod).into_iter().chain(extended_key(pod)).collect();
    match change {
        Change::Deleted(pod) => keys(pod),
        Change::Added(pod) | Change::Updated { new: pod, .. } if is_done(pod) => keys(pod),
        _ => Vec::new(),
    }
}

/// The controller of claims for devices. It counts what it does in `metrics`.
pub fn resource_claim(informers: &Informers, metrics: ResourceClaimMetrics) -> Runnable {
    let name = "resourceclaim-controller";
    let context = Context::reporting(informers, name, "resource_claim");
    let (claims, users) = (context.informer::<ResourceClaim>(), context.informer::<Pod>());
    users.add_index(BY_CLAIM, |pod| claim_keys(pod).iter().map(Key::to_string).collect());
    claims.add_index(BY_OWNER, |claim| {
        owning_pod(claim).map(|(_, uid)| uid.to_owned()).into_iter().collect()
    });
    let templates = context.informer();
    let known = Known { context, pods: users, claims, templates, metrics };
    let counted = known.metrics.clone();
    let made = Made::default();
    let unseen = made.clone();
    known.claims.on_change(move |change| {
        counted.observe(change);
        let uid = &change.object().metadata.uid;
        unseen.lock().retain(|_, claim| claim.metadata.uid != *uid);
    });
    let (of_pod, of_claim) = (known.clone(), known.clone());
    let creating = known.context.builder().reads::<ResourceClaimTemplate>();
    let creating = creating
        .watches_own_if::<Pod>(move |change| match change {
            Change::Deleted(_) => false,
            change => of_pod.needs_work(change.object()),
        })
        .watches::<ResourceClaim>(move |change| of_claim.pods_of(change.object()))
        .build(Creator::new(known.clone(), made));
    let releasing = known
        .context
        .builder()
        .watches_own_if::<ResourceClaim>(|change| !matches!(change, Change::Deleted(_)))
        .watches::<Pod>(freed)
        .build(Releaser::new(known));
    Runnable::new(name, move |stop| async move {
        tokio::join!(creating.run(stop.clone()), releasing.run(stop));
    })
}
