//! Decisions in which services outside take part.
//!
//! Source: `pkg/scheduler/schedule_one.go`, `findNodesThatPassExtenders`, `prioritizeNodes`.

use std::sync::Arc;

use orch_core::random::Random;

use crate::{
    cycle_state::CycleState,
    extender::Extender,
    framework::{Failure, Framework, Rejection},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// The plugin's name in diagnoses.
const EXTENDER: &str = "extender";

/// The node for a pod: of those that fit and that no extender refuses the best, and of the best any.
pub(super) async fn choose(
    framework: &Framework,
    state: &mut CycleState,
    pod: &PodInfo,
    snapshot: &Snapshot,
    random: &dyn Random,
) -> Result<Arc<str>, Failure> {
    let (mut nodes, mut diagnosis) = framework.feasible(state, pod, snapshot)?;
    let asked: Vec<&Extender> =
        framework.extenders().iter().filter(|extender| extender.is_interested(pod)).collect();
    let mut rejections = Vec::new();
    for extender in asked.iter().filter(|extender| extender.filters()) {
        if nodes.is_empty() {
            break;
        }
        match extender.filter(pod, &mut nodes).await {
            Ok(refused) => rejections.extend(refused.into_iter().map(|(node, (reason, good))| {
                let (node, plugin) = (node.as_str().into(), EXTENDER.into());
                let verdict = match good {
                    true => Verdict::unresolvable(reason),
                    false => Verdict::unschedulable(reason),
                };
                Rejection { node, plugin, verdict }
            })),
            Err(error) if extender.is_ignorable() => {
                tracing::info!(%error, "skipped an extender that failed and may be ignored");
            }
            Err(error) => return Err(Failure::Fault(error.to_string())),
        }
    }
    if nodes.is_empty() {
        diagnosis.add(rejections, EXTENDER);
        return Err(Failure::Unschedulable(diagnosis));
    }
    if let [only] = nodes.as_slice() {
        return Ok(only.name().clone());
    }
    let mut totals = framework.scores(state, pod, &nodes, snapshot)?;
    prioritize(&asked, pod, &nodes, &mut totals).await;
    let best = totals.iter().copied().max();
    let ties = nodes.iter().zip(&totals).filter(|(_, total)| Some(**total) == best);
    let mut ties: Vec<Arc<str>> = ties.map(|(node, _)| node.name().clone()).collect();
    let at = if ties.len() < 2 { 0 } else { random.below(ties.len() as u64) as usize };
    Ok(ties.swap_remove(at))
}

/// An extender that fails here is left out: the scores of the others are as good.
async fn prioritize(
    asked: &[&Extender],
    pod: &PodInfo,
    nodes: &[Arc<NodeInfo>],
    totals: &mut [i64],
) {
    for extender in asked.iter().filter(|extender| extender.prioritizes()) {
        match extender.prioritize(pod, nodes).await {
            Ok(scores) => {
                for (node, total) in nodes.iter().zip(totals.iter_mut()) {
                    *total = total.saturating_add(scores.get(&**node.name()).copied().unwrap_or(0));
                }
            }
            Err(error) => tracing::debug!(%error, "an extender did not prioritize"),
        }
    }
}
