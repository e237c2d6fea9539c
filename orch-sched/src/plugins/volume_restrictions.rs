//! Volumes that only one pod, or only pods that read, can use at a time.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, PreFilter, PreFiltered},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

const DISK_CONFLICT: &str = "node(s) had no available disk";
const ONE_POD_CONFLICT: &str = "node has pod using PersistentVolumeClaim with the same name and \
                                ReadWriteOncePod access mode";

/// Source: `pkg/scheduler/framework/plugins/volumerestrictions`.
#[derive(Clone, Debug)]
pub struct VolumeRestrictions {
    claims: Informer<PersistentVolumeClaim>,
}

/// The pod's claims that only one pod may use, and how many references other pods have to them.
#[derive(Clone, Debug)]
struct OnePodClaims {
    claims: Arc<BTreeSet<String>>,
    references: i64,
}

impl OnePodClaims {
    fn references_of(&self, pod: &PodInfo) -> i64 {
        claims_of(pod.pod()).filter(|claim| self.claims.contains(*claim)).count() as i64
    }
}

fn volumes_of(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// The claims that a pod names; those of its ephemeral volumes are its own anyway.
fn claims_of(pod: &Pod) -> impl Iterator<Item = &String> {
    let claims = volumes_of(pod).iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    claims.map(|claim| &claim.claim_name)
}

fn is_restricted(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// Whether two pods cannot use these volumes on one node at the same time.
fn conflict(a: &Volume, b: &Volume) -> bool {
    let both_read = |a: Option<bool>, b: Option<bool>| a == Some(true) && b == Some(true);
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk)
        && a.pd_name == b.pd_name
        && !both_read(a.read_only, b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store)
        && a.volume_id == b.volume_id
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi)
        && a.iqn == b.iqn
        && !both_read(a.read_only, b.read_only)
    {
        return true;
    }
    let pool = |pool: &Option<String>| pool.clone().unwrap_or_else(|| "rbd".into());
    matches!((&a.rbd, &b.rbd), (Some(a), Some(b))
        if a.monitors.iter().any(|monitor| b.monitors.contains(monitor))
            && pool(&a.pool) == pool(&b.pool)
            && a.image == b.image
            && !both_read(a.read_only, b.read_only))
}

fn conflicts_with(pod: &Pod, other: &Pod) -> bool {
    let restricted = volumes_of(pod).iter().filter(|volume| is_restricted(volume));
    let mut restricted = restricted.flat_map(|a| volumes_of(other).iter().map(move |b| (a, b)));
    restricted.any(|(a, b)| conflict(a, b))
}

impl VolumeRestrictions {
    /// Looks claims up in these informers.
    pub fn new(informers: &Informers) -> Self {
        Self { claims: informers.of() }
    }

    /// The pod's claims that only one pod may use; otherwise the name of one that does not exist.
    fn one_pod_claims(&self, pod: &PodInfo) -> Result<BTreeSet<String>, String> {
        let mut found = BTreeSet::new();
        for name in claims_of(pod.pod()) {
            let claim = self.claims.get(&Key::new(pod.namespace(), name.as_str()));
            let claim = claim.ok_or_else(|| name.clone())?;
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
            if modes.unwrap_or_default().iter().any(|mode| mode == "ReadWriteOncePod") {
                found.insert(name.clone());
            }
        }
        Ok(found)
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &str {
        "VolumeRestrictions"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if volumes_of(pod.pod()).is_empty() {
            return Ok(Verdict::Skip.into());
        }
        let claims = match self.one_pod_claims(pod) {
            Ok(claims) => claims,
            Err(name) => {
                let words = format!("persistentvolumeclaim \"{name}\" not found");
                return Ok(Verdict::unresolvable(words).into());
            }
        };
        let used = claims.iter().filter(|claim| snapshot.is_claim_used(pod.namespace(), claim));
        let references = used.count() as i64;
        if references == 0 && !volumes_of(pod.pod()).iter().any(is_restricted) {
            return Ok(Verdict::Skip.into());
        }
        state.insert(OnePodClaims { claims: Arc::new(claims), references });
        Ok(Verdict::Success.into())
    }

    fn add_pod(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        added: &PodInfo,
        _: &NodeInfo,
    ) -> Result<(), Fault> {
        let found = state.get_mut::<OnePodClaims>().ok_or("PreFilter did not run")?;
        found.references += found.references_of(added);
        Ok(())
    }

    fn remove_pod(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        removed: &PodInfo,
        _: &NodeInfo,
    ) -> Result<(), Fault> {
        let found = state.get_mut::<OnePodClaims>().ok_or("PreFilter did not run")?;
        found.references -= found.references_of(removed);
        Ok(())
    }
}

impl Filter for VolumeRestrictions {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        if node.pods().iter().any(|other| conflicts_with(pod.pod(), other.pod())) {
            return Ok(Verdict::unschedulable(DISK_CONFLICT));
        }
        let found = state.get::<OnePodClaims>().ok_or("PreFilter did not run")?;
        Ok(Verdict::success_if(found.references <= 0, ONE_POD_CONFLICT))
    }
}

impl EventsToRegister for VolumeRestrictions {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![
            ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE),
            ClusterEvent::new(EventResource::Node, Actions::ADD),
            ClusterEvent::new(EventResource::PersistentVolumeClaim, Actions::ADD),
        ]
    }

    /// A pod that went helps if it had one of the volumes or claims.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let ChangedObject::AssignedPod { old: Some(gone), .. } = &change.object else {
            return Hint::Queue;
        };
        let same_claim = || claims_of(pod.pod()).any(|a| claims_of(gone.pod()).any(|b| a == b));
        let helps = gone.namespace() == pod.namespace()
            && (conflicts_with(pod.pod(), gone.pod()) || same_claim());
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
