//! Two pods cannot have the same port of a node.

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, PreFilter, PreFiltered, Reuse},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/nodeports`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &str {
        "NodePorts"
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

impl PreFilter for NodePorts {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        let none = pod.ports().is_empty();
        Ok(if none { Verdict::Skip } else { Verdict::Success }.into())
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let free = !pod.ports().iter().any(|port| node.is_port_taken(port));
        let reason = "node(s) didn't have free ports for the requested pod ports";
        Ok(Verdict::success_if(free, reason))
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl EventsToRegister for NodePorts {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![
            ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE),
            ClusterEvent::new(EventResource::Node, Actions::ADD),
        ]
    }
}
