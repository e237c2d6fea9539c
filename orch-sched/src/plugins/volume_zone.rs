//! Volumes that live in a zone are used there.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::{
    Key,
    claim::claims_of,
    informer::{Informer, Informers},
};

use super::version_of;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, GroupKey, Grouping, Plugin, PreFilter, PreFiltered, Reuse},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

const TOPOLOGY: &[&str] = &[
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// Joins the zones of a volume that is in several.
const SEPARATOR: &str = "__";

/// Source: `pkg/scheduler/framework/plugins/volumezone`.
#[derive(Clone, Debug)]
pub struct VolumeZone {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

/// What the node's labels must be among.
#[derive(Clone, Debug, Hash)]
struct Zones(Vec<BTreeMap<String, Vec<String>>>);

impl VolumeZone {
    /// Looks claims and volumes up in these informers.
    pub fn new(informers: &Informers) -> Self {
        Self { claims: informers.of(), volumes: informers.of() }
    }

    fn zones(&self, pod: &PodInfo, claim: &str) -> Option<BTreeMap<String, Vec<String>>> {
        let claim = self.claims.get(&Key::new(pod.namespace(), claim))?;
        let volume = claim.spec.as_ref()?.volume_name.clone()?;
        let volume = self.volumes.get(&Key::cluster(volume))?;
        let labels = volume.metadata.labels.as_ref()?;
        let zones = labels.iter().filter(|(key, _)| TOPOLOGY.contains(&key.as_str()));
        let split = |value: &String| value.split(SEPARATOR).map(str::to_owned).collect();
        Some(zones.map(|(key, value)| (key.clone(), split(value))).collect())
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &str {
        "VolumeZone"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_grouping(&self) -> Option<&dyn Grouping> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        let zones = claims_of(pod.pod()).filter_map(|claim| self.zones(pod, &claim.name));
        let zones: Vec<_> = zones.filter(|zones| !zones.is_empty()).collect();
        if zones.is_empty() {
            return Ok(Verdict::Skip.into());
        }
        state.insert(Arc::new(Zones(zones)));
        Ok(Verdict::Success.into())
    }
}

impl Zones {
    fn allow(&self, node: &NodeInfo) -> bool {
        // A cluster without zones has no conflicts of zones.
        if !TOPOLOGY.iter().any(|key| node.label(key).is_some()) {
            return true;
        }
        self.0.iter().flatten().all(|(key, values)| {
            let label = node.label(key).or_else(|| node.label(&translated(key)));
            label.is_some_and(|label| values.iter().any(|value| value == label))
        })
    }
}

impl Filter for VolumeZone {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let zones = state.get::<Arc<Zones>>().ok_or("PreFilter did not run")?;
        Ok(if zones.allow(node) {
            Verdict::Success
        } else {
            Verdict::unresolvable("node(s) had no available volume zone")
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

/// The nodes of the zones, and the others.
impl Grouping for VolumeZone {
    fn group(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        if let Some(zones) = state.get::<Arc<Zones>>() {
            key.number(zones.allow(node).into());
        }
    }

    fn version(&self, state: &CycleState) -> u64 {
        state.get::<Arc<Zones>>().map_or(0, version_of)
    }
}

/// The old and the new name of a topology label stand for each other.
fn translated(key: &str) -> String {
    match key.split_once('/') {
        Some(("topology.kubernetes.io", what)) => {
            format!("failure-domain.beta.kubernetes.io/{what}")
        }
        Some((_, what)) => format!("topology.kubernetes.io/{what}"),
        None => key.to_owned(),
    }
}

impl EventsToRegister for VolumeZone {
    fn events(&self) -> Vec<ClusterEvent> {
        let changed = Actions::ADD.or(Actions::UPDATE);
        vec![
            ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_LABEL)),
            ClusterEvent::new(EventResource::PersistentVolumeClaim, changed),
            ClusterEvent::new(EventResource::PersistentVolume, changed),
            ClusterEvent::new(EventResource::StorageClass, Actions::ADD),
        ]
    }
}
