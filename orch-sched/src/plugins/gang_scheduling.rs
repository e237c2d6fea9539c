//! The pods of a gang are placed together or not at all.

use std::time::Duration;

use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use orch_core::{
    Key,
    informer::{Informer, Informers},
};

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    plugin::{EventsToRegister, Permit, Plugin, PreEnqueue},
    pod_groups::{PodGroups, group_of},
    pod_info::PodInfo,
    verdict::Verdict,
    waiting::WaitingPods,
};

/// How long members of a gang are held back for the others.
const WAIT: Duration = Duration::from_secs(5 * 60);

/// Marks the cycle of a whole pod group: nobody is let go yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupCycle;

/// Keeps the pods of a `PodGroup` with a gang policy out of the queue until there are `minCount` of
/// them, and from their nodes until so many have one. With this plugin in a profile, the pods of
/// any pod group are tried together, in one cycle.
///
/// Off by default, as upstream's feature gates are: a profile enables it by its name. The cluster
/// must serve `podgroups` of `scheduling.k8s.io/v1alpha2`.
///
/// Source: `pkg/scheduler/framework/plugins/gangscheduling`, KEP-4671.
#[derive(Debug)]
pub struct GangScheduling {
    pod_groups: Informer<PodGroup>,
    members: PodGroups,
    waiting: WaitingPods,
}

impl GangScheduling {
    /// The name under which profiles enable the plugin.
    pub(crate) const NAME: &str = "GangScheduling";

    pub(crate) fn new(informers: &Informers, members: PodGroups, waiting: WaitingPods) -> Self {
        Self { pod_groups: informers.of(), members, waiting }
    }

    /// How many members must be placed together; `None` if the policy asks for nothing.
    fn min_count(pod_group: &PodGroup) -> Option<usize> {
        let gang = pod_group.spec.scheduling_policy.gang.as_ref()?;
        usize::try_from(gang.min_count).ok()
    }
}

impl Plugin for GangScheduling {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        Some(self)
    }

    fn as_permit(&self) -> Option<&dyn Permit> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreEnqueue for GangScheduling {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        let Some(group) = group_of(pod) else { return Verdict::Success };
        let Some(pod_group) = self.pod_groups.get(&group) else {
            let name = &group.name;
            let words =
                format!("waiting for pods's pod group \"{name}\" to appear in scheduling queue");
            return Verdict::unresolvable(words);
        };
        let min_count = Self::min_count(&pod_group);
        if min_count.is_some_and(|min_count| self.members.counts(&group).all < min_count) {
            let words = "waiting for minCount pods from a gang to appear in scheduling queue";
            return Verdict::unresolvable(words);
        }
        Verdict::Success
    }
}

impl Permit for GangScheduling {
    fn permit(&self, state: &CycleState, pod: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        let Some(group) = group_of(pod) else { return Ok(Verdict::Success) };
        let Some(pod_group) = self.pod_groups.get(&group) else {
            let Key { namespace, name } = &group;
            let words = format!(
                "failed to get podGroup {namespace}/{name}: podgroup.scheduling.k8s.io \"{name}\" \
                 not found"
            );
            return Err(words.into());
        };
        let Some(min_count) = Self::min_count(&pod_group) else { return Ok(Verdict::Success) };
        // Upstream also wakes the members that have no node here. A cycle takes all of them along.
        if self.members.counts(&group).scheduled < min_count {
            return Ok(Verdict::Wait(WAIT));
        }
        if state.get::<GroupCycle>().is_none() {
            for uid in self.members.assumed(&group) {
                self.waiting.allow(&uid, Self::NAME);
            }
        }
        Ok(Verdict::Success)
    }
}

impl EventsToRegister for GangScheduling {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![
            ClusterEvent::new(EventResource::UnscheduledPod, Actions::ADD),
            ClusterEvent::new(EventResource::AssignedPod, Actions::ADD),
            ClusterEvent::new(EventResource::PodGroup, Actions::ADD),
        ]
    }

    /// The group itself helps, and one more of its pods.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let about = match &change.object {
            ChangedObject::PodGroup(pod_group) => Some(Key::of(&pod_group.metadata)),
            ChangedObject::AssignedPod { new: Some(new), .. } => group_of(new),
            ChangedObject::UnscheduledPod(new) => group_of(new),
            _ => return Hint::Queue,
        };
        let same = about.is_some() && about == group_of(pod);
        if same { Hint::Queue } else { Hint::Skip }
    }
}
