//! Keeps pods out of the queue while they have scheduling gates.

use crate::{
    event::{Actions, ClusterEvent, EventResource},
    plugin::{EventsToRegister, Plugin, PreEnqueue},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/schedulinggates`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &str {
        "SchedulingGates"
    }

    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        let gates = pod.spec().and_then(|spec| spec.scheduling_gates.as_deref());
        let gates: Vec<&str> =
            gates.unwrap_or_default().iter().map(|gate| gate.name.as_str()).collect();
        if gates.is_empty() {
            return Verdict::Success;
        }
        Verdict::unresolvable(format!("waiting for scheduling gates: [{}]", gates.join(" ")))
    }
}

impl EventsToRegister for SchedulingGates {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::PodItself, Actions::UPDATE)]
    }
}
