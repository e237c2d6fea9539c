//! Nodes whose resources are used evenly are better.

use std::sync::Arc;

use super::{WeightedResource, cpu_and_memory, node_resources_fit::Backing};
use crate::{
    cycle_state::CycleState,
    devices::Devices,
    error::Fault,
    node_info::NodeInfo,
    plugin::{Candidates, Plugin, PreScore, Reuse, SCORE_MAX, Score},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// Source: `pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go`.
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    resources: Vec<WeightedResource>,
    backing: Backing,
}

impl Default for NodeResourcesBalancedAllocation {
    /// CPU and memory.
    fn default() -> Self {
        Self::of(cpu_and_memory())
    }
}

impl NodeResourcesBalancedAllocation {
    /// Balances these resources.
    pub fn of(resources: Vec<WeightedResource>) -> Self {
        Self { resources, backing: Backing::default() }
    }

    /// Counts the devices that stand behind extended resources.
    pub(crate) fn backed_by(self, devices: Arc<Devices>) -> Self {
        Self { backing: Backing(Some(devices)), ..self }
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &str {
        "NodeResourcesBalancedAllocation"
    }

    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    /// A pod that requests nothing changes no balance.
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Candidates<'_>,
        _: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let wants = pod.requests();
        let requested = self.resources.iter().any(|resource| match resource.name.as_str() {
            "cpu" => wants.milli_cpu > 0,
            "memory" => wants.memory > 0,
            "ephemeral-storage" => wants.ephemeral_storage > 0,
            other => wants.scalar(other) > 0,
        });
        Ok(if requested { Verdict::Success } else { Verdict::Skip })
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let mut fractions: Vec<f64> = Vec::with_capacity(self.resources.len());
        for resource in &self.resources {
            let (has, used) = self.backing.usage(&resource.name, pod, node, false);
            if has > 0 {
                fractions.push((used as f64 / has as f64).min(1.0));
            }
        }
        let deviation = match fractions.as_slice() {
            [a, b] => ((a - b) / 2.0).abs(),
            many if many.len() > 2 => {
                let mean = many.iter().sum::<f64>() / many.len() as f64;
                let squares: f64 = many.iter().map(|f| (f - mean) * (f - mean)).sum();
                (squares / many.len() as f64).sqrt()
            }
            _ => 0.0,
        };
        Ok(((1.0 - deviation) * SCORE_MAX as f64) as i64)
    }

    fn reuse(&self) -> Reuse {
        self.backing.reuse(&self.resources)
    }
}
