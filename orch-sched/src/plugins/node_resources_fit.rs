//! A node must have what a pod requests, and the emptier node is the better one.

use std::borrow::Cow;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, Reuse, Score},
    plugins::FitArguments,
    pod_info::PodInfo,
    resources::Resources,
    verdict::{Reasons, Verdict},
};

mod strategy;

/// Filters by requests and ranks by utilization.
///
/// Source: `pkg/scheduler/framework/plugins/noderesources/fit.go`.
#[derive(Clone, Debug, Default)]
pub struct NodeResourcesFit {
    arguments: FitArguments,
}

impl NodeResourcesFit {
    /// As these arguments have it.
    pub fn new(arguments: FitArguments) -> Self {
        Self { arguments }
    }

    /// Whether Filter leaves a resource out. Only extended resources can be.
    fn ignores(&self, name: &str) -> bool {
        let Some((group, _)) = name.split_once('/') else { return false };
        let FitArguments { ignored_resources, ignored_groups, .. } = &self.arguments;
        !(group == "kubernetes.io" || group.ends_with(".kubernetes.io"))
            && (ignored_resources.iter().any(|ignored| ignored == name)
                || ignored_groups.iter().any(|ignored| ignored == group))
    }

    /// What is missing, and whether the node could never give it.
    fn missing(&self, pod: &Resources, node: &NodeInfo) -> (Reasons, bool) {
        let (has, used) = (node.allocatable(), node.requested());
        let mut reasons = Reasons::new();
        let mut never = false;
        if used.pods.saturating_add(1) > has.pods {
            reasons.push("Too many pods".into());
        }
        let mut check = |name: &str, wants: i64, has: i64, used: i64| {
            if wants > 0 && wants > has.saturating_sub(used) {
                never |= wants > has;
                reasons.push(match name {
                    "cpu" => "Insufficient cpu".into(),
                    "memory" => "Insufficient memory".into(),
                    other => Cow::Owned(format!("Insufficient {other}")),
                });
            }
        };
        check("cpu", pod.milli_cpu, has.milli_cpu, used.milli_cpu);
        check("memory", pod.memory, has.memory, used.memory);
        let disk = (pod.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage);
        check("ephemeral-storage", disk.0, disk.1, disk.2);
        for (name, wants) in pod.scalar.iter().filter(|(name, _)| !self.ignores(name)) {
            check(name, *wants, has.scalar(name), used.scalar(name));
        }
        (reasons, never)
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &str {
        "NodeResourcesFit"
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

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let (reasons, never) = self.missing(pod.requests(), node);
        Ok(if reasons.is_empty() {
            Verdict::Success
        } else if never {
            Verdict::UnschedulableAndUnresolvable(reasons)
        } else {
            Verdict::Unschedulable(reasons)
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

/// What a node has of a resource, and what would be requested of it with the pod on it.
pub(super) fn usage(name: &str, pod: &PodInfo, node: &NodeInfo, non_zero: bool) -> (i64, i64) {
    let (has, used, wants) = (node.allocatable(), node.requested(), pod.requests());
    match name {
        "cpu" if non_zero => {
            let sum = node.non_zero().milli_cpu.saturating_add(pod.non_zero().milli_cpu);
            (has.milli_cpu, sum)
        }
        "memory" if non_zero => {
            (has.memory, node.non_zero().memory.saturating_add(pod.non_zero().memory))
        }
        "cpu" => (has.milli_cpu, used.milli_cpu.saturating_add(wants.milli_cpu)),
        "memory" => (has.memory, used.memory.saturating_add(wants.memory)),
        "ephemeral-storage" => {
            let sum = used.ephemeral_storage.saturating_add(wants.ephemeral_storage);
            (has.ephemeral_storage, sum)
        }
        // What neither node nor pod has does not count.
        other if wants.scalar(other) == 0 => (0, 0),
        other => (has.scalar(other), used.scalar(other).saturating_add(wants.scalar(other))),
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        Ok(self.arguments.strategy.score(|name| usage(name, pod, node, true)))
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl EventsToRegister for NodeResourcesFit {
    fn events(&self) -> Vec<ClusterEvent> {
        let node = Actions::ADD.or(Actions::UPDATE_ALLOCATABLE);
        let pod = Actions::DELETE.or(Actions::UPDATE_SCALE_DOWN);
        vec![
            ClusterEvent::new(EventResource::AssignedPod, pod),
            ClusterEvent::new(EventResource::Node, node),
        ]
    }

    /// A node helps only if it is large enough when empty; a pod only if it gives something back.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let wants = pod.requests();
        let helps = match &change.object {
            ChangedObject::Node { new: Some(node), .. } => {
                let has = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
                Resources::of(has).is_ok_and(|has| {
                    wants.milli_cpu <= has.milli_cpu
                        && wants.memory <= has.memory
                        && wants.ephemeral_storage <= has.ephemeral_storage
                        && wants
                            .scalar
                            .iter()
                            .all(|(name, wants)| *wants <= has.scalar(name) || self.ignores(name))
                })
            }
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
