//! Nodes that are the same to a pod's volumes.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, PersistentVolume};

use super::{BIND_CONFLICT, Claims, NO_SPACE, NO_VOLUME, NODE_CONFLICT, Sources, VolumeBinding};
use crate::{
    cycle_state::CycleState,
    node_info::NodeInfo,
    plugin::{GroupKey, Grouping},
    plugins::version_of,
    pod_info::PodInfo,
};

const REASONS: [&str; 4] = [NO_VOLUME, NODE_CONFLICT, BIND_CONFLICT, NO_SPACE];

impl Grouping for VolumeBinding {
    fn group(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        let Some(claims) = state.get::<Claims>() else { return };
        let reason = self.serves(claims, pod, node).err();
        let code = reason.map_or(0, |reason| {
            1 + REASONS.iter().take_while(|known| **known != reason).count() as i64
        });
        key.number(code);
    }

    fn version(&self, state: &CycleState) -> u64 {
        state.get::<Claims>().map_or(0, |claims| claims.version)
    }
}

/// The same number for claims that have the same answer about every node. Where a volume is to be
/// chosen, or space is to be found, that is nobody but the pod itself at this time.
pub(super) fn version(bound: &[Option<Arc<PersistentVolume>>], candidates: &[Sources]) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let chooses = |(volumes, provision): &Sources| {
        !volumes.is_empty() || provision.as_ref().is_some_and(|provision| provision.has_limits())
    };
    if candidates.iter().any(chooses) {
        return version_of(&("once", NEXT.fetch_add(1, Relaxed)));
    }
    let places: Vec<_> = bound.iter().map(|volume| volume.as_deref().map(places)).collect();
    let provisions: Vec<_> = candidates
        .iter()
        .map(|(_, provision)| provision.as_ref().map(|provision| provision.reach()))
        .collect();
    version_of(&(places, provisions))
}

/// The terms of a volume's node affinity, of which one must hold.
fn places(volume: &PersistentVolume) -> Option<Vec<impl Hash>> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let terms = affinity.required.as_ref()?.node_selector_terms.iter();
    let parts = |requirements: &Option<Vec<NodeSelectorRequirement>>| {
        let requirements = requirements.iter().flatten();
        let part =
            requirements.map(|one| (one.key.clone(), one.operator.clone(), one.values.clone()));
        part.collect::<Vec<_>>()
    };
    Some(terms.map(|term| (parts(&term.match_expressions), parts(&term.match_fields))).collect())
}
