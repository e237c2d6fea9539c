//! Pods of lower priority make room for a pod that fits nowhere.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use orch_core::{
    Environment,
    informer::{Informer, Informers},
};

use self::{
    budgets::Budgets,
    candidates::{Candidate, best},
};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    framework::{Diagnosis, Rejection, Trial},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Nomination, Plugin, PostFilter, PostFiltered},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

mod budgets;
mod candidates;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NEVER: &str = "preemption: not eligible due to preemptionPolicy=Never.";
const TERMINATING: &str =
    "preemption: not eligible due to a terminating pod on the nominated node.";
const BY_SCHEDULER: &str = "PreemptionByScheduler";

/// On how many nodes it is tried out what would have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateNodes {
    /// At least so many percent of the nodes that may help, 0 to 100. The default is 10.
    pub percentage_min: i32,
    /// At least so many nodes, if there are so many. The default is 100.
    pub absolute_min: i32,
}

impl Default for CandidateNodes {
    fn default() -> Self {
        Self { percentage_min: 10, absolute_min: 100 }
    }
}

impl CandidateNodes {
    fn of(&self, nodes: usize) -> usize {
        let part = nodes.saturating_mul(usize::try_from(self.percentage_min).unwrap_or(0)) / 100;
        part.max(usize::try_from(self.absolute_min).unwrap_or(0)).min(nodes)
    }
}

/// Finds the node on which the least important pods would have to go for a pod that fits nowhere.
///
/// Source: `pkg/scheduler/framework/plugins/defaultpreemption`,
/// `pkg/scheduler/framework/preemption`.
/// Differs: where upstream takes the first node of a map, the last tie is broken by the seeded
/// generator.
pub struct DefaultPreemption {
    pods: Informer<Pod>,
    budgets: Informer<PodDisruptionBudget>,
    environment: Environment,
    candidates: CandidateNodes,
}

impl fmt::Debug for DefaultPreemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DefaultPreemption({:?})", self.candidates)
    }
}

impl DefaultPreemption {
    /// Looks pods and their budgets up in these informers.
    pub fn new(informers: &Informers, candidates: CandidateNodes) -> Self {
        Self {
            pods: informers.of(),
            budgets: informers.of(),
            environment: informers.environment().clone(),
            candidates,
        }
    }

    /// The newest state of a pod: what is counted with on nodes leaves most of the status out.
    fn newest(&self, pod: &PodInfo) -> Arc<Pod> {
        let newest = self.pods.get(pod.key());
        let same = newest.filter(|newest| newest.metadata.uid.as_deref() == Some(&**pod.uid()));
        same.unwrap_or_else(|| pod.pod().clone())
    }

    /// When a pod began to run; one that has not yet begins now.
    fn started(&self, pod: &PodInfo) -> Timestamp {
        let newest = self.newest(pod);
        let start = newest.status.as_ref().and_then(|status| status.start_time.as_ref());
        start.map_or_else(|| self.environment.clock.now(), |time| time.0)
    }

    /// Why the pod may not make others go, if it may not.
    fn ineligible(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Option<&'static str> {
        let policy = pod.spec().and_then(|spec| spec.preemption_policy.as_deref());
        if policy == Some("Never") {
            return Some(NEVER);
        }
        let newest = self.newest(pod);
        let said = newest.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        let node = said.filter(|name| !name.is_empty()).or_else(|| snapshot.nomination_of(pod))?;
        // A node that turned out to be hopeless is not waited for.
        if !matches!(diagnosis.verdict_on(node), Some(Verdict::Unschedulable(_))) {
            return None;
        }
        let on_their_way = |other: &Arc<PodInfo>| {
            other.priority() < pod.priority() && is_preempted(&self.newest(other))
        };
        let waits = snapshot.node(node)?.pods().iter().any(on_their_way);
        waits.then_some(TERMINATING)
    }

    /// What would have to go from each of these nodes, until enough are known.
    fn dry_run(
        &self,
        trial: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        nodes: &[&Arc<NodeInfo>],
    ) -> Result<DryRun, Fault> {
        let budgets = Budgets::of(&self.budgets.list());
        let offset = match nodes.len() {
            0 | 1 => 0,
            len => self.environment.random.below(len as u64) as usize,
        };
        let enough = self.candidates.of(nodes.len());
        let (mut kind, mut violating) = (Vec::new(), Vec::new());
        let (mut rejections, mut failed) = (Vec::new(), None);
        let (before, from) = nodes.split_at(offset);
        for node in from.iter().chain(before) {
            match self.victims_on(trial, state.clone(), pod, (***node).clone(), &budgets) {
                Err(fault) => failed = Some(fault),
                Ok(Err(verdict)) => {
                    let (node, plugin) = (node.name().clone(), self.name().into());
                    rejections.push(Rejection { node, plugin, verdict });
                }
                Ok(Ok(candidate)) if candidate.violations == 0 => kind.push(candidate),
                Ok(Ok(candidate)) => violating.push(candidate),
            }
            if !kind.is_empty() && kind.len() + violating.len() >= enough {
                break;
            }
        }
        violating.truncate(enough);
        kind.append(&mut violating);
        match failed {
            Some(fault) if kind.is_empty() => Err(fault),
            _ => Ok(DryRun { candidates: kind, rejections }),
        }
    }

    /// The pods that would have to go from one node.
    fn victims_on(
        &self,
        trial: &Trial<'_>,
        mut state: CycleState,
        pod: &PodInfo,
        mut node: NodeInfo,
        budgets: &Budgets,
    ) -> Result<Result<Candidate, Verdict>, Fault> {
        let lower = |other: &&Arc<PodInfo>| other.priority() < pod.priority();
        let mut potential: Vec<Arc<PodInfo>> = node.pods().iter().filter(lower).cloned().collect();
        if potential.is_empty() {
            return Ok(Err(Verdict::unresolvable(NO_VICTIMS)));
        }
        for other in &potential {
            trial.remove_pod(&mut state, pod, other, &mut node)?;
        }
        let verdict = trial.verdict(&state, pod, &node)?;
        if verdict != Verdict::Success {
            return Ok(Err(verdict));
        }
        potential.sort_by_cached_key(|other| self.importance(other));
        let (violating, others) = budgets.split(potential);
        let both = !violating.is_empty() && !others.is_empty();
        let mut victims = Vec::new();
        let mut violations = 0;
        let all = violating.into_iter().map(|other| (other, 1));
        for (other, violates) in all.chain(others.into_iter().map(|other| (other, 0))) {
            // Whoever can stay beside the pod is spared, the most important first.
            trial.add_pod(&mut state, pod, &other, &mut node)?;
            if trial.verdict(&state, pod, &node)? != Verdict::Success {
                trial.remove_pod(&mut state, pod, &other, &mut node)?;
                violations += violates;
                victims.push(other);
            }
        }
        if both {
            victims.sort_by_cached_key(|other| self.importance(other));
        }
        if victims.is_empty() {
            let text = format!("expected at least one victim pod on node {:?}", node.name());
            return Err(text.into());
        }
        let started = victims.iter().take_while(|v| v.priority() == victims[0].priority());
        let started = started.map(|victim| self.started(victim)).min();
        let node = node.name().clone();
        Ok(Ok(Candidate { node, victims, violations, started: started.unwrap_or_default() }))
    }

    /// What is left of the candidates once services outside have been asked.
    async fn extended(
        &self,
        trial: &Trial<'_>,
        pod: &PodInfo,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Fault> {
        if candidates.is_empty() || !trial.is_extended_for(pod) {
            return Ok(candidates);
        }
        let told = candidates.into_iter();
        let told = told.map(|one| (one.node, (one.victims, one.violations))).collect();
        let left = trial.ask_extenders(pod, told).await?;
        let candidate = |(node, (victims, violations)): (Arc<str>, (Vec<Arc<PodInfo>>, usize))| {
            let highest = victims.first().map(|victim| victim.priority());
            let oldest = victims.iter().filter(|victim| Some(victim.priority()) == highest);
            let started = oldest.map(|victim| self.started(victim)).min().unwrap_or_default();
            Candidate { node, victims, violations, started }
        };
        Ok(left.into_iter().map(candidate).collect())
    }

    /// Sorts the most important pods first: those of high priority, and of these the oldest.
    fn importance(&self, pod: &PodInfo) -> (i64, Timestamp) {
        (-i64::from(pod.priority()), self.started(pod))
    }
}

/// What trying out came to.
struct DryRun {
    candidates: Vec<Candidate>,
    rejections: Vec<Rejection>,
}

/// Whether a pod is on its way out because it was preempted.
fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let target = conditions.into_iter().flatten().find(|one| one.type_ == "DisruptionTarget");
    pod.metadata.deletion_timestamp.is_some()
        && target
            .is_some_and(|one| one.status == "True" && one.reason.as_deref() == Some(BY_SCHEDULER))
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &str {
        "DefaultPreemption"
    }

    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

#[async_trait]
impl PostFilter for DefaultPreemption {
    async fn post_filter(
        &self,
        trial: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Result<PostFiltered, Fault> {
        if let Some(words) = self.ineligible(pod, snapshot, diagnosis) {
            return Ok(Verdict::unschedulable(words).into());
        }
        let nodes = diagnosis.resolvable(snapshot);
        let DryRun { candidates, rejections } = self.dry_run(trial, state, pod, &nodes)?;
        let found = !candidates.is_empty();
        let candidates = self.extended(trial, pod, candidates).await?;
        if found && candidates.is_empty() {
            let words = "preemption: no candidate node for preemption";
            return Ok(Verdict::unschedulable(words).into());
        }
        let Some(Candidate { node, victims, .. }) = best(candidates) else {
            let total = snapshot.nodes().len();
            let why = Diagnosis::of(total, rejections, NOT_HELPFUL);
            let verdict = Verdict::unschedulable(format!("preemption: {why}"));
            let nomination = Nomination::Clear;
            return Ok(PostFiltered { nomination, ..verdict.into() });
        };
        let nomination = Nomination::Node(node);
        Ok(PostFiltered { nomination, victims, ..Verdict::Success.into() })
    }
}

impl EventsToRegister for DefaultPreemption {
    /// A pod that was preempted before it was bound waits for room.
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_nodes_is_tried_out() {
        let check = |percentage_min, absolute_min, nodes, expected| {
            let candidates = CandidateNodes { percentage_min, absolute_min };
            assert_eq!(candidates.of(nodes), expected, "{candidates:?} of {nodes}");
        };
        check(10, 100, 5000, 500);
        check(10, 100, 500, 100);
        check(10, 100, 7, 7);
        check(0, 1, 500, 1);
        check(100, 0, 500, 500);
        check(0, 0, 0, 0);
    }
}
