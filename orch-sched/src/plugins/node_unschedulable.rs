//! No pods on cordoned nodes, except those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::tolerates;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, Reuse},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/nodeunschedulable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &str {
        "NodeUnschedulable"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        if !node.is_unschedulable() {
            return Ok(Verdict::Success);
        }
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        Ok(if pod.tolerations().iter().any(|toleration| tolerates(toleration, &cordon)) {
            Verdict::Success
        } else {
            Verdict::unresolvable("node(s) were unschedulable")
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl EventsToRegister for NodeUnschedulable {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_TAINT))]
    }

    fn hint(&self, _: &PodInfo, change: &ClusterChange) -> Hint {
        let spec = change.node().and_then(|node| node.spec.as_ref());
        let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        if cordoned { Hint::Skip } else { Hint::Queue }
    }
}
