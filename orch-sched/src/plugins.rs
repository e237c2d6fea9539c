//! The built-in plugins, one file each, with upstream's names, semantics and words.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use k8s_openapi::api::core::v1::{Taint, Toleration};
use orch_core::informer::Informers;

use crate::{
    devices::Devices,
    plugin::{Plugin, SCORE_MAX},
};

mod arguments;
mod default_binder;
mod default_preemption;
mod dynamic_resources;
mod gang_scheduling;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

pub(crate) use arguments::cpu_and_memory;
pub use arguments::{
    Arguments, DynamicResourcesArguments, FitArguments, InterPodAffinityArguments, ScoringStrategy,
    ShapePoint, SpreadDefaults, VolumeBindingArguments, WeightedResource,
};
pub use default_binder::DefaultBinder;
pub use default_preemption::{CandidateNodes, DefaultPreemption};
pub use dynamic_resources::DynamicResources;
pub use gang_scheduling::GangScheduling;
pub(crate) use gang_scheduling::GroupCycle;
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_declared_features::NodeDeclaredFeatures;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
pub use node_resources_fit::NodeResourcesFit;
pub use node_unschedulable::NodeUnschedulable;
pub use node_volume_limits::NodeVolumeLimits;
pub use pod_topology_spread::PodTopologySpread;
pub use priority_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;
pub(crate) use volume_binding::ChosenNode;
use volume_binding::Promised;
pub use volume_binding::VolumeBinding;
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

/// What the built-in plugins of all profiles share.
#[derive(Default)]
pub(crate) struct Shared {
    promised: Promised,
    /// Followed once a profile asks.
    devices: OnceLock<Arc<Devices>>,
}

impl Shared {
    /// The devices, which are followed from now on.
    fn follow_devices(&self, informers: &Informers) -> Arc<Devices> {
        self.devices.get_or_init(|| Devices::follow(informers)).clone()
    }

    /// The devices, if a profile asked for them.
    pub(crate) fn devices(&self) -> Option<Arc<Devices>> {
        self.devices.get().cloned()
    }
}

/// A built-in plugin by its name.
pub(crate) fn built_in(
    name: &str,
    informers: &Informers,
    arguments: &Arguments,
    shared: &Shared,
) -> Option<Arc<dyn Plugin>> {
    let arguments = arguments.clone();
    Some(match name {
        "SchedulingGates" => Arc::new(SchedulingGates),
        "PrioritySort" => Arc::new(PrioritySort),
        "NodeUnschedulable" => Arc::new(NodeUnschedulable),
        "NodeName" => Arc::new(NodeName),
        "NodeDeclaredFeatures" => Arc::new(NodeDeclaredFeatures),
        "TaintToleration" => Arc::new(TaintToleration),
        "NodeAffinity" => Arc::new(NodeAffinity::adding(arguments.added_affinity)),
        "NodePorts" => Arc::new(NodePorts),
        "NodeResourcesFit" => {
            let fit = NodeResourcesFit::new(arguments.node_resources_fit);
            Arc::new(fit.backed_by(shared.follow_devices(informers)))
        }
        "VolumeRestrictions" => Arc::new(VolumeRestrictions::new(informers)),
        "NodeVolumeLimits" => Arc::new(NodeVolumeLimits::new(informers)),
        "VolumeBinding" => {
            let promised = shared.promised.clone();
            Arc::new(VolumeBinding::new(informers, arguments.volume_binding, promised))
        }
        "VolumeZone" => Arc::new(VolumeZone::new(informers)),
        "PodTopologySpread" => {
            Arc::new(PodTopologySpread::new(informers, arguments.spread_defaults))
        }
        "InterPodAffinity" => {
            Arc::new(InterPodAffinity::new(Some(informers.of()), arguments.inter_pod_affinity))
        }
        "DynamicResources" => {
            let devices = shared.follow_devices(informers);
            Arc::new(DynamicResources::new(informers, devices, arguments.dynamic_resources))
        }
        "DefaultPreemption" => {
            Arc::new(DefaultPreemption::new(informers, arguments.default_preemption))
        }
        "NodeResourcesBalancedAllocation" => {
            let balanced = NodeResourcesBalancedAllocation::of(arguments.balanced_resources);
            Arc::new(balanced.backed_by(shared.follow_devices(informers)))
        }
        "ImageLocality" => Arc::new(ImageLocality),
        "DefaultBinder" => Arc::new(DefaultBinder::new(informers.client().clone())),
        _ => return None,
    })
}

/// A number that is the same for what is equal, see [`Grouping::version`](crate::Grouping::version).
fn version_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Scales scores so that the highest becomes [`SCORE_MAX`]; `reverse` turns best and worst around.
///
/// Source: `pkg/scheduler/framework/plugins/helper/normalize_score.go`.
fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = match (max, reverse) {
            (0, true) => SCORE_MAX,
            (0, false) => continue,
            _ => {
                let scaled = SCORE_MAX.saturating_mul(*score) / max;
                if reverse { SCORE_MAX - scaled } else { scaled }
            }
        };
    }
}

/// Whether a toleration covers a taint.
///
/// Source: `k8s.io/component-helpers/scheduling/corev1/helpers.go`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (value, has) = (text(&toleration.value), text(&taint.value));
    let numbers = || Some((has.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == has,
        "Exists" => true,
        "Gt" => numbers().is_some_and(|(has, value)| has > value),
        "Lt" => numbers().is_some_and(|(has, value)| has < value),
        _ => false,
    }
}

/// A label set for lookups by reference.
type Labels = BTreeMap<String, String>;
