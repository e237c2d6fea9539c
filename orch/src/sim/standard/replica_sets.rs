//! Replica sets have as many pods as they ask for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use orch_core::owner::controller_of;

use super::Recent;
use crate::sim::{Invariant, Step, View, faults::Component};

/// Whether a pod is neither over nor going.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod has succeeded or failed.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod says of itself that it is Ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
}

/// Whether the step is one of the controllers of workloads.
pub(super) fn by_workloads(step: &Step<'_>) -> bool {
    step.writer == Some(Component::Workloads.to_string().as_str())
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether a replica set says that it cannot create its pods, such as for a quota.
pub(super) fn is_failing(set: &ReplicaSet) -> bool {
    let conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "ReplicaFailure").any(|c| c.status == "True")
}

/// No replica set creates a pod beyond the number that it asks for, and in the end each has as many
/// as it asks for, unless it says that it cannot create them.
#[derive(Debug)]
pub struct ReplicaCounts {
    staleness: Duration,
    sizes: BTreeMap<String, Recent<i32>>,
}

impl ReplicaCounts {
    /// For a controller whose copy of replica sets may be so old.
    pub fn new(staleness: Duration) -> Self {
        Self { staleness, sizes: BTreeMap::new() }
    }

    fn check(&mut self, pod: &Pod, step: &Step<'_>) -> Result<(), String> {
        let Some(owner) = controller_of(&pod.metadata) else { return Ok(()) };
        let Some(sizes) = self.sizes.get_mut(&owner.uid) else { return Ok(()) };
        let most = sizes.values(step.view.time()).max().copied().unwrap_or(0);
        let pods = step.view.controlled_by::<Pod>(&owner.uid);
        let active = pods.iter().filter(|pod| is_active(pod)).count();
        if active <= usize::try_from(most).unwrap_or(0) {
            return Ok(());
        }
        Err(format!("ReplicaSet {} has {active} pods and asks for {most}", owner.name))
    }
}

fn has_settled(set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), String> {
    let wanted = size(set);
    let active = pods.iter().filter(|pod| is_active(pod)).count();
    let status = set.status.clone().unwrap_or_default();
    let seen = status.observed_generation == set.metadata.generation;
    let counted = usize::try_from(status.replicas).is_ok_and(|count| count == active);
    let enough = usize::try_from(wanted).is_ok_and(|wanted| wanted == active);
    if seen && counted && (enough || is_failing(set)) {
        return Ok(());
    }
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Err(format!("ReplicaSet {name} asks for {wanted}, has {active} pods, and says {status:?}"))
}

impl Invariant for ReplicaCounts {
    fn name(&self) -> &str {
        "replica sets have no pods beyond what they ask for"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        for change in step.changes {
            if let Some(set) = change.of::<ReplicaSet>()
                && let Some(uid) = &set.metadata.uid
            {
                let sizes = self.sizes.entry(uid.clone());
                let sizes = sizes.or_insert_with(|| Recent::new(self.staleness));
                sizes.set(step.view.time(), size(&set));
            }
            if by_workloads(step)
                && let Some(pod) = change.created::<Pod>()
            {
                self.check(&pod, step)?;
            }
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        for set in view.list::<ReplicaSet>() {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            has_settled(&set, &view.controlled_by::<Pod>(uid))?;
        }
        Ok(())
    }
}
