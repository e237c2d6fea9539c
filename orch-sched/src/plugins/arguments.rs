//! What a profile may set for the built-in plugins.

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};

use super::CandidateNodes;

/// A resource that counts when nodes are ranked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedResource {
    /// `cpu`, `memory` or another resource.
    pub name: String,
    /// How much it counts, 1 to 100.
    pub weight: i64,
}

/// CPU and memory, equally.
pub(crate) fn cpu_and_memory() -> Vec<WeightedResource> {
    ["cpu", "memory"].map(|name| WeightedResource { name: name.into(), weight: 1 }).into()
}

/// A point of a function of utilization; between points it is linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapePoint {
    /// Percent, 0 to 100.
    pub utilization: i64,
    /// How good that is, 0 to 10.
    pub score: i64,
}

/// Which nodes are better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// Those that are emptier. The default, by CPU and memory.
    LeastAllocated(Vec<WeightedResource>),
    /// Those that are fuller.
    MostAllocated(Vec<WeightedResource>),
    /// Those whose utilization is where the function is high.
    RequestedToCapacityRatio(Vec<WeightedResource>, Vec<ShapePoint>),
}

impl Default for ScoringStrategy {
    fn default() -> Self {
        Self::LeastAllocated(cpu_and_memory())
    }
}

/// Of NodeResourcesFit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitArguments {
    /// Extended resources that Filter does not look at. The default is none.
    pub ignored_resources: Vec<String>,
    /// The same for all resources with these prefixes, `example.com`.
    pub ignored_groups: Vec<String>,
    /// How nodes are ranked.
    pub strategy: ScoringStrategy,
}

/// Of InterPodAffinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterPodAffinityArguments {
    /// How much an existing pod's required affinity to this pod counts when nodes are ranked, 0 to
    /// 100. The default is 1.
    pub hard_weight: i64,
    /// Leave preferred terms of existing pods out when the pod at hand has none. The default is not
    /// to.
    pub ignore_preferred_of_existing: bool,
}

impl Default for InterPodAffinityArguments {
    fn default() -> Self {
        Self { hard_weight: 1, ignore_preferred_of_existing: false }
    }
}

/// How pods spread that have no constraints of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SpreadDefaults {
    /// Rather over hosts and zones, as far as there are such: upstream's default.
    #[default]
    System,
    /// By these constraints, whose selectors are those of the pod's services and owner.
    List(Vec<TopologySpreadConstraint>),
}

/// Of DynamicResources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicResourcesArguments {
    /// The search for devices on one node is given up after so long; `None` is never. The default
    /// is 10 s.
    pub filter_timeout: Option<Duration>,
    /// A pod whose devices are not ready by then goes back to the queue. The default is 600 s.
    pub binding_timeout: Duration,
}

impl Default for DynamicResourcesArguments {
    fn default() -> Self {
        Self {
            filter_timeout: Some(Duration::from_secs(10)),
            binding_timeout: Duration::from_secs(600),
        }
    }
}

/// Of VolumeBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeBindingArguments {
    /// A pod whose claims are not bound by then goes back to the queue. The default is 600 s.
    pub bind_timeout: Duration,
}

impl Default for VolumeBindingArguments {
    fn default() -> Self {
        Self { bind_timeout: Duration::from_secs(600) }
    }
}

/// What a profile sets for the built-in plugins; the default is upstream's.
///
/// Source: `k8s.io/kube-scheduler/config/v1/types_pluginargs.go`.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// Of DefaultPreemption.
    pub default_preemption: CandidateNodes,
    /// Of DynamicResources.
    pub dynamic_resources: DynamicResourcesArguments,
    /// Of InterPodAffinity.
    pub inter_pod_affinity: InterPodAffinityArguments,
    /// Of NodeAffinity: what is asked of nodes beside what pods ask. The default is nothing.
    pub added_affinity: Option<NodeAffinity>,
    /// Of NodeResourcesBalancedAllocation: the resources that are balanced. The default is CPU and
    /// memory.
    pub balanced_resources: Vec<WeightedResource>,
    /// Of NodeResourcesFit.
    pub node_resources_fit: FitArguments,
    /// Of PodTopologySpread.
    pub spread_defaults: SpreadDefaults,
    /// Of VolumeBinding.
    pub volume_binding: VolumeBindingArguments,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            default_preemption: CandidateNodes::default(),
            dynamic_resources: DynamicResourcesArguments::default(),
            inter_pod_affinity: InterPodAffinityArguments::default(),
            added_affinity: None,
            balanced_resources: cpu_and_memory(),
            node_resources_fit: FitArguments::default(),
            spread_defaults: SpreadDefaults::default(),
            volume_binding: VolumeBindingArguments::default(),
        }
    }
}
