//! Taints keep pods away that do not tolerate them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::{default_normalize, tolerates};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, Reuse, Score},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/tainttoleration`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &str {
        "TaintToleration"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

fn is_tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations().iter().any(|toleration| tolerates(toleration, taint))
}

fn keeps_away(pod: &PodInfo, taints: &[Taint]) -> bool {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(hard).any(|taint| !is_tolerated(pod, taint))
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        Ok(if keeps_away(pod, node.taints()) {
            Verdict::unresolvable("node(s) had untolerated taint(s)")
        } else {
            Verdict::Success
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl Score for TaintToleration {
    /// How many taints the pod should rather avoid.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        Ok(soft.filter(|taint| !is_tolerated(pod, taint)).count() as i64)
    }

    fn normalize(
        &self,
        _: &CycleState,
        _: &PodInfo,
        _: &[Arc<NodeInfo>],
        scores: &mut [i64],
    ) -> Result<(), Fault> {
        default_normalize(scores, true);
        Ok(())
    }

    fn reuse(&self) -> Reuse {
        Reuse::BeforeNormalization
    }
}

impl EventsToRegister for TaintToleration {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_TAINT))]
    }

    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let taints = change.node().and_then(|node| node.spec.as_ref()?.taints.as_deref());
        if keeps_away(pod, taints.unwrap_or_default()) { Hint::Skip } else { Hint::Queue }
    }
}
