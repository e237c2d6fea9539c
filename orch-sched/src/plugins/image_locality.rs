//! Nodes that have the pod's images are better.

use std::sync::Arc;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    node_info::{NodeInfo, normalized_image},
    plugin::{Plugin, PreScore, SCORE_MAX, Score},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// Images smaller than this, per container, do not count.
const BYTES_MIN: i64 = 23 << 20;
/// Images larger than this, per container, count no more.
const BYTES_MAX: i64 = 1000 << 20;

/// Source: `pkg/scheduler/framework/plugins/imagelocality`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageLocality;

/// The image of each container with the part of the nodes that have it: an image that is rare in the
/// cluster must not draw all pods to one node. An image of two containers counts twice.
#[derive(Clone)]
struct Images {
    spread: Vec<(String, f64)>,
    containers: i64,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &str {
        "ImageLocality"
    }

    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl PreScore for ImageLocality {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let Some(spec) = pod.spec() else { return Ok(Verdict::Skip) };
        let total = snapshot.nodes().len().max(1) as f64;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mut images = Images { spread: Vec::new(), containers: 0 };
        for image in containers.map(|container| container.image.as_deref().unwrap_or_default()) {
            images.containers += 1;
            let name = normalized_image(image);
            let nodes = snapshot.nodes_with_image(&name) as f64;
            if nodes > 0.0 {
                images.spread.push((name, nodes / total));
            }
        }
        if images.spread.is_empty() {
            return Ok(Verdict::Skip);
        }
        state.insert(images);
        Ok(Verdict::Success)
    }
}

impl Score for ImageLocality {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let images = state.get::<Images>().ok_or("PreScore did not run")?;
        let here = node.images();
        let sizes = images.spread.iter().filter_map(|(image, spread)| {
            here.get(image).map(|bytes| (*bytes as f64 * spread) as i64)
        });
        let max = BYTES_MAX.saturating_mul(images.containers.max(1));
        let sum = sizes.fold(0i64, i64::saturating_add).clamp(BYTES_MIN, max);
        Ok(SCORE_MAX * (sum - BYTES_MIN) / (max - BYTES_MIN))
    }
}
