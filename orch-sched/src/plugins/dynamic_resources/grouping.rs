//! Nodes that are the same to a pod's claims.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::device_claim::is_allocated;

use super::{DynamicResources, PodClaims, TIMED_OUT, binding, requests};
use crate::{
    cycle_state::CycleState,
    devices::Frozen,
    error::Fault,
    node_info::NodeInfo,
    plugin::{Filter, GroupKey, Grouping, Score},
    plugins::{ChosenNode, version_of},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// A number that nobody else has: what it stands for is looked at again.
fn once() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl Grouping for DynamicResources {
    fn group(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        let Some(claims) = state.get::<PodClaims>() else { return };
        match self.filter(state, pod, node) {
            Ok(Verdict::Success) => key.number(self.score(state, pod, node).unwrap_or_default()),
            Ok(verdict) => {
                let words = verdict.message();
                key.label(Some(&words));
                if words == TIMED_OUT {
                    // The next search may be faster.
                    key.number(once() as i64);
                }
                let all = claims.all().into_iter().enumerate();
                let unavailable = all.filter(|(_, claim)| !self.is_available(claim, node));
                unavailable.for_each(|(at, _)| key.number(at as i64));
            }
            // It ends the cycle, wherever it is found.
            Err(_) => key.label(None),
        }
    }

    fn version(&self, state: &CycleState) -> u64 {
        state.get::<PodClaims>().map_or(0, |claims| claims.version)
    }
}

impl DynamicResources {
    /// Looks for devices on the node that was chosen: of nodes that it cannot tell apart, Filter has
    /// looked at one.
    pub(super) fn find_on_chosen(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Fault> {
        let Some(claims) = state.get::<PodClaims>() else { return Ok(()) };
        let chosen = state.get::<ChosenNode>().filter(|chosen| **chosen.0.name() == *node);
        let known = claims.found.lock().solutions.contains_key(node);
        if let Some(ChosenNode(chosen)) = chosen.filter(|_| !known) {
            self.filter(state, pod, chosen)?;
        }
        Ok(())
    }

    /// The same number for claims that have the same outcome on every node, as long as the devices
    /// are those of nodes that are looked at again when they change.
    pub(super) fn version_of(&self, claims: &[Arc<ResourceClaim>], frozen: Option<&Frozen>) -> u64 {
        let Some(frozen) = frozen else { return version_of(&("once", once())) };
        let claims: Vec<_> = claims.iter().map(|claim| self.essence(claim)).collect();
        version_of(&(frozen.version(), claims))
    }

    /// What the outcome depends on: of a claim with devices where these can be used, of another one
    /// what it asks for.
    fn essence(&self, claim: &ResourceClaim) -> impl Hash {
        if !is_allocated(claim) {
            let classes = requests(claim).iter().flat_map(|request| {
                let exactly = request.exactly.iter().map(|one| &one.device_class_name);
                let alternatives = request.first_available.iter().flatten();
                exactly.chain(alternatives.map(|one| &one.device_class_name))
            });
            let class = |name: &String| {
                let metadata = self.devices.class(name).map(|class| class.metadata.clone());
                metadata.map(|metadata| (metadata.uid, metadata.resource_version))
            };
            let classes: Vec<_> = classes.map(class).collect();
            return (serde_json::to_string(&claim.spec).ok(), classes, None);
        }
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let place = allocation.and_then(|allocation| allocation.node_selector.as_ref());
        let place = place.and_then(|place| serde_json::to_string(place).ok());
        let ready = (binding::is_ready(claim), self.binder.is_overdue(claim));
        (place, Vec::new(), Some(ready))
    }
}
