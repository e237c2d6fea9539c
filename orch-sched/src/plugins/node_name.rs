//! A pod that names its node goes nowhere else.

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, Reuse},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/nodename`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &str {
        "NodeName"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        Ok(match pod.node_name() {
            Some(name) if *name != **node.name() => {
                Verdict::unresolvable("node(s) didn't match the requested node name")
            }
            _ => Verdict::Success,
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl EventsToRegister for NodeName {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::Node, Actions::ADD)]
    }
}
