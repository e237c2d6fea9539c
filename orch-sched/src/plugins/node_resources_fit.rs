//! A node must have what a pod requests, and the emptier node is the better one.

use std::{borrow::Cow, sync::Arc};

use orch_core::extended_resource::{CLASS_PREFIX, may_be_devices};

use super::WeightedResource;
use crate::{
    cycle_state::CycleState,
    devices::Devices,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, GroupKey, Grouping, Plugin, Reuse, Score},
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
    backing: Backing,
}

/// The devices that stand behind extended resources; `None` if nobody follows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Backing(pub(super) Option<Arc<Devices>>);

impl Backing {
    /// Whether devices are to give a resource, of which a node has so much by itself.
    fn gives(&self, name: &str, has: i64) -> bool {
        let devices = self.0.as_ref().filter(|_| has == 0 && may_be_devices(name));
        devices.is_some_and(|devices| devices.behind(name).is_some())
    }

    /// What a node has of a resource, and what would be requested of it with the pod on it.
    pub(super) fn usage(
        &self,
        name: &str,
        pod: &PodInfo,
        node: &NodeInfo,
        non_zero: bool,
    ) -> (i64, i64) {
        let wants = pod.requests().scalar(name);
        let devices = self
            .0
            .as_ref()
            .filter(|_| wants > 0 && node.allocatable().scalar(name) == 0 && may_be_devices(name));
        let of_devices = devices.and_then(|devices| {
            let (all, taken) = devices.totals(&*devices.behind(name)?, node);
            (all > 0).then_some((all, taken.saturating_add(wants)))
        });
        of_devices.unwrap_or_else(|| usage(name, pod, node, non_zero))
    }

    /// How long scores by these resources hold: devices come and go without their node's changing.
    pub(super) fn reuse(&self, resources: &[WeightedResource]) -> Reuse {
        let devices = resources.iter().any(|resource| may_be_devices(&resource.name));
        if self.0.is_some() && devices { Reuse::Never } else { Reuse::UntilNodeChanges }
    }
}

impl NodeResourcesFit {
    /// As these arguments have it.
    pub fn new(arguments: FitArguments) -> Self {
        Self { arguments, backing: Backing::default() }
    }

    /// Leaves extended resources to devices, where a class of them stands behind a resource.
    pub(crate) fn backed_by(self, devices: Arc<Devices>) -> Self {
        Self { backing: Backing(Some(devices)), ..self }
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
            if *wants > 0 && !self.backing.gives(name, has.scalar(name)) {
                check(name, *wants, has.scalar(name), used.scalar(name));
            }
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

    fn as_grouping(&self) -> Option<&dyn Grouping> {
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

impl Grouping for NodeResourcesFit {
    fn group(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo, _: &mut GroupKey) {}

    /// What is left to devices is known of pods that are alike as long as the same classes stand
    /// behind the same resources.
    fn version(&self, _: &CycleState) -> u64 {
        self.backing.0.as_ref().map_or(0, |devices| devices.mapping())
    }
}

/// What a node by itself has of a resource, and what would be requested of it with the pod on it.
fn usage(name: &str, pod: &PodInfo, node: &NodeInfo, non_zero: bool) -> (i64, i64) {
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
        Ok(self.arguments.strategy.score(|name| self.backing.usage(name, pod, node, true)))
    }

    fn reuse(&self) -> Reuse {
        self.backing.reuse(self.arguments.strategy.resources())
    }
}

impl EventsToRegister for NodeResourcesFit {
    fn events(&self) -> Vec<ClusterEvent> {
        let node = Actions::ADD.or(Actions::UPDATE_ALLOCATABLE);
        let pod = Actions::DELETE.or(Actions::UPDATE_SCALE_DOWN);
        vec![
            ClusterEvent::new(EventResource::AssignedPod, pod),
            ClusterEvent::new(EventResource::Node, node),
            ClusterEvent::new(EventResource::DeviceClass, Actions::ADD.or(Actions::UPDATE)),
        ]
    }

    /// A node helps only if it is large enough when empty; a pod only if it gives something back; a
    /// class only if it stands behind a resource of the pod from now on.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let wants = pod.requests();
        let helps = match &change.object {
            ChangedObject::Node { new: Some(node), .. } => {
                let has = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
                Resources::of(has).is_ok_and(|has| {
                    wants.milli_cpu <= has.milli_cpu
                        && wants.memory <= has.memory
                        && wants.ephemeral_storage <= has.ephemeral_storage
                        && wants.scalar.iter().all(|(name, wants)| {
                            let has = has.scalar(name);
                            *wants <= has || self.ignores(name) || self.backing.gives(name, has)
                        })
                })
            }
            ChangedObject::DeviceClass { old, new: Some(new) } => {
                let name = new.spec.extended_resource_name.as_deref();
                let before = old.as_ref().map(|old| old.spec.extended_resource_name.as_deref());
                let implicit = || {
                    let class = new.metadata.name.as_deref().unwrap_or_default();
                    old.is_none() && wants.scalar.contains_key(&format!("{CLASS_PREFIX}{class}"))
                };
                before != Some(name)
                    && (implicit() || name.is_some_and(|name| wants.scalar.contains_key(name)))
            }
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
