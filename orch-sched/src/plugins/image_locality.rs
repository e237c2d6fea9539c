//! Nodes that have the pod's images are better.

use crate::{
    cycle_state::CycleState,
    error::Fault,
    node_info::{NodeInfo, normalized_image},
    plugin::{Candidates, GroupKey, Grouping, Plugin, PreScore, Reuse, SCORE_MAX, Score},
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

    fn as_grouping(&self) -> Option<&dyn Grouping> {
        Some(self)
    }
}

/// The images of a pod's containers, as nodes report them.
fn images(pod: &PodInfo) -> impl Iterator<Item = String> + '_ {
    let containers = pod
        .spec()
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.map(|container| normalized_image(container.image.as_deref().unwrap_or_default()))
}

impl Grouping for ImageLocality {
    /// Nodes with the same of the pod's images, of the same sizes.
    fn group(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        let here = node.images();
        if !here.is_empty() {
            images(pod).for_each(|image| key.number(here.get(&image).map_or(-1, |bytes| *bytes)));
        }
    }
}

impl PreScore for ImageLocality {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Candidates<'_>,
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault> {
        if !snapshot.has_images() {
            return Ok(Verdict::Skip);
        }
        let total = snapshot.nodes().len().max(1) as f64;
        let mut found = Images { spread: Vec::new(), containers: 0 };
        for image in images(pod) {
            found.containers += 1;
            let nodes = snapshot.nodes_with_image(&image) as f64;
            if nodes > 0.0 {
                found.spread.push((image, nodes / total));
            }
        }
        if found.spread.is_empty() {
            return Ok(Verdict::Skip);
        }
        state.insert(found);
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

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}
