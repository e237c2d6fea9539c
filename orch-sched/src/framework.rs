//! Runs the extension points of a profile's plugins.
//!
//! Source: `pkg/scheduler/framework/runtime`.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::random::Random;
use parking_lot::Mutex;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::ClusterEvent,
    extender::Extender,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, Filter, Nomination, Plugin, PostFiltered, SCORE_MAX},
    pod_info::PodInfo,
    profile::PLUGIN_TIMEOUT,
    snapshot::Snapshot,
    standing::Standing,
    verdict::Verdict,
};

mod decide;
mod decision;
mod diagnosis;
mod explain;
mod placing;
mod profiles;
mod scoring;
mod search;
mod trial;

pub use diagnosis::{Diagnosis, Rejection};
pub use explain::{Explanation, NodeExplanation, Objection, ScoreDetail};
pub(crate) use profiles::Profiles;
use search::{Found, Search};
pub use trial::Trial;

/// A plugin as a profile has it.
#[derive(Clone, Debug)]
pub(crate) struct Enabled {
    pub(crate) name: Arc<str>,
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) weight: i64,
    /// What the plugin wants to hear of; `None` is everything.
    pub(crate) events: Option<Vec<ClusterEvent>>,
}

/// A profile, ready to run.
#[derive(Debug)]
pub(crate) struct Framework {
    pub(crate) scheduler_name: String,
    pub(crate) plugins: Vec<Enabled>,
    /// For each extension point the places of its plugins, in the order in which they run.
    order: [Vec<usize>; 12],
    /// Where the next pod's search begins: every node gets its turn.
    next_start: AtomicUsize,
    /// How many percent of the nodes are enough to choose from; `None` is all of them.
    percentage: Option<u8>,
    /// What pods that are alike share, last used first.
    standings: Mutex<Vec<Standing>>,
    /// Services outside that take part.
    extenders: Arc<[Extender]>,
    /// How long a plugin may take for an answer that it may wait for.
    patience: Duration,
}

/// Below this many nodes, all of them are looked at.
const FEASIBLE_MIN: usize = 100;

/// How many nodes that fit are enough to choose from.
///
/// Source: `pkg/scheduler/schedule_one.go`, `numFeasibleNodesToFind`.
fn enough_of(nodes: usize, percentage: Option<u8>) -> usize {
    let part = percentage.map_or(nodes, |percent| nodes * usize::from(percent) / 100);
    nodes.min(FEASIBLE_MIN.max(part))
}

/// Why a cycle did not end with a node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A verdict: the pod fits nowhere.
    #[error("{0}")]
    Unschedulable(Box<Diagnosis>),
    /// A fault in a plugin, or around it.
    #[error("{0}")]
    Fault(String),
}

/// The names of the nodes that are left to look at; `None` is all.
type Narrowed = Option<BTreeSet<String>>;

/// A fault, with the extension point and the plugin in which it happened.
pub(crate) fn fault(point: &str, plugin: &str, error: &Fault) -> Failure {
    Failure::Fault(format!("running {point} plugin {plugin:?}: {error}"))
}

fn panicked(point: &str, plugin: &str, panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    fault(point, plugin, &format!("panicked: {text}").into())
}

/// Asks a plugin. If it panics, that is a fault of it.
fn asked<T>(
    point: &str,
    plugin: &str,
    ask: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer.map_err(|error| fault(point, plugin, &error)),
        Err(panic) => Err(panicked(point, plugin, &*panic)),
    }
}

impl Framework {
    /// As [`asked`], for what may wait.
    async fn awaited<T>(
        &self,
        point: &str,
        plugin: &str,
        answer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Failure> {
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => answer.map_err(|error| fault(point, plugin, &error)),
            Ok(Err(panic)) => Err(panicked(point, plugin, &*panic)),
            Err(_) => {
                let late = format!("did not answer within {:?}", self.patience);
                Err(fault(point, plugin, &late.into()))
            }
        }
    }

    /// With plugins of their own for some extension points; for the others those among the first
    /// `everywhere` that implement it.
    pub(crate) fn new(
        scheduler_name: String,
        plugins: Vec<Enabled>,
        (everywhere, own): (usize, &BTreeMap<ExtensionPoint, Vec<usize>>),
        percentage: Option<u8>,
    ) -> Self {
        let (next_start, standings) = (AtomicUsize::new(0), Mutex::default());
        let order = ExtensionPoint::ALL.map(|point| match own.get(&point) {
            Some(own) => own.clone(),
            None => (0..everywhere).filter(|at| point.is_of(&*plugins[*at].plugin)).collect(),
        });
        Self {
            scheduler_name,
            plugins,
            order,
            next_start,
            percentage,
            standings,
            extenders: Arc::default(),
            patience: PLUGIN_TIMEOUT,
        }
    }

    /// With another limit for answers that a plugin may wait for.
    pub(crate) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With services outside that take part.
    pub(crate) fn extended_by(mut self, extenders: Arc<[Extender]>) -> Self {
        self.extenders = extenders;
        self
    }

    pub(crate) fn extenders(&self) -> &[Extender] {
        &self.extenders
    }

    /// Whether a service outside is to be asked where a pod goes.
    pub(crate) fn is_extended_for(&self, pod: &PodInfo) -> bool {
        let mut asked = self.extenders.iter().filter(|one| one.filters() || one.prioritizes());
        asked.any(|extender| extender.is_interested(pod))
    }

    /// All nodes that fit a pod, before anybody outside is asked; and what is known about the
    /// others.
    pub(crate) fn feasible(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Arc<NodeInfo>>, Box<Diagnosis>), Failure> {
        if let Some(error) = pod.error() {
            return Err(Failure::Fault(error.to_owned()));
        }
        let mut diagnosis = self.diagnosis(snapshot)?;
        let narrowed = self.pre_filter(state, pod, snapshot, &mut diagnosis)?;
        if let Some(node) = self.promised(state, pod, snapshot, &diagnosis)? {
            return Ok((snapshot.node(&node).into_iter().cloned().collect(), diagnosis));
        }
        let mut found = Found::default();
        let trial = self.trial(&diagnosis.skipped, snapshot);
        let is_left = |node: &&Arc<NodeInfo>| {
            narrowed.as_ref().is_none_or(|names| names.contains(&**node.name()))
        };
        let nodes = snapshot.nodes().iter().filter(is_left);
        found.run(&trial, state, pod, nodes, usize::MAX)?;
        diagnosis.reject(found.rejections);
        if found.feasible.is_empty() {
            return Err(Failure::Unschedulable(diagnosis));
        }
        Ok((found.feasible, diagnosis))
    }

    /// The places of the plugins that run at an extension point, in their order.
    fn places(&self, point: ExtensionPoint) -> &[usize] {
        &self.order[point as usize]
    }

    /// The plugins that run at an extension point, in their order.
    pub(crate) fn at(&self, point: ExtensionPoint) -> impl DoubleEndedIterator<Item = &Enabled> {
        self.places(point).iter().map(|at| &self.plugins[*at])
    }

    pub(crate) fn enabled(&self, name: &str) -> Option<&Enabled> {
        self.plugins.iter().find(|enabled| *enabled.name == *name)
    }

    /// The node for a pod: of those that fit the best, and of the best any.
    pub(crate) fn choose(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        random: &dyn Random,
    ) -> Result<Arc<str>, Failure> {
        let decision = self.decide(state, pod, snapshot)?;
        let chosen = decision.choose(snapshot, random);
        self.release(decision);
        chosen.ok_or_else(|| Failure::Fault("nothing is left to choose from".into()))
    }

    /// The nodes that fit a pod best; at least one.
    pub(crate) fn best(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Vec<Arc<str>>, Failure> {
        let decision = self.decide(state, pod, snapshot)?;
        let best = decision.best(snapshot);
        self.release(decision);
        Ok(best)
    }

    /// The nodes that a pod fits with the weighted sums of their scores; at least one.
    pub(crate) fn evaluate(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Vec<(Arc<str>, i64)>, Failure> {
        let decision = self.decide(state, pod, snapshot)?;
        let all = decision.all(snapshot);
        self.release(decision);
        Ok(all)
    }

    /// Before anything is known; a failure without nodes.
    fn diagnosis(&self, snapshot: &Snapshot) -> Result<Box<Diagnosis>, Failure> {
        let total_nodes = snapshot.nodes().len();
        let mut diagnosis = Box::new(Diagnosis { total_nodes, ..Default::default() });
        if total_nodes == 0 {
            // Any node that is added is worth another try.
            diagnosis.rejected_by.extend(self.plugins.iter().map(|enabled| enabled.name.clone()));
            return Err(Failure::Unschedulable(diagnosis));
        }
        Ok(diagnosis)
    }

    /// Nodes that a pod fits, of the named ones or of a part of all.
    fn search(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        narrowed: Option<&BTreeSet<String>>,
        mut diagnosis: Box<Diagnosis>,
    ) -> Result<Vec<Arc<NodeInfo>>, Failure> {
        let trial = self.trial(&diagnosis.skipped, snapshot);
        let mut found = Found::default();
        let looked_at = match narrowed {
            None => {
                let (before, from) = snapshot.nodes().split_at(self.start(snapshot));
                let enough = enough_of(snapshot.nodes().len(), self.percentage);
                found.run(&trial, state, pod, from.iter().chain(before), enough)?
            }
            Some(names) => {
                let nodes = names.iter().filter_map(|name| snapshot.node(name));
                found.run(&trial, state, pod, nodes, enough_of(names.len(), self.percentage))?
            }
        };
        self.next_start.fetch_add(looked_at, Relaxed);
        if found.feasible.is_empty() {
            diagnosis.reject(found.rejections);
            return Err(Failure::Unschedulable(diagnosis));
        }
        Ok(found.feasible)
    }

    fn trial<'a>(&'a self, skipped: &'a BTreeSet<Arc<str>>, snapshot: &'a Snapshot) -> Trial<'a> {
        Trial::new(self, skipped, snapshot)
    }

    fn start(&self, snapshot: &Snapshot) -> usize {
        self.next_start.load(Relaxed) % snapshot.nodes().len()
    }

    fn filters(&self, skipped: &BTreeSet<Arc<str>>) -> Vec<(&Arc<str>, &dyn Filter)> {
        let wanted = self.at(ExtensionPoint::Filter);
        let wanted = wanted.filter(|enabled| !skipped.contains(&enabled.name));
        wanted.filter_map(|enabled| Some((&enabled.name, enabled.plugin.as_filter()?))).collect()
    }

    fn filters_at(&self, places: &[usize]) -> Vec<(&Arc<str>, &dyn Filter)> {
        let enabled = places.iter().map(|at| &self.plugins[*at]);
        enabled.filter_map(|one| Some((&one.name, one.plugin.as_filter()?))).collect()
    }

    /// The nodes that are left to look at. The diagnosis learns which plugins have nothing to
    /// filter.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &mut Diagnosis,
    ) -> Result<Narrowed, Failure> {
        let mut narrowed: Narrowed = None;
        let mut narrowed_by = BTreeSet::new();
        for enabled in self.at(ExtensionPoint::PreFilter) {
            let Some(pre_filter) = enabled.plugin.as_pre_filter() else { continue };
            let outcome =
                asked("PreFilter", &enabled.name, || pre_filter.pre_filter(state, pod, snapshot))?;
            match outcome.verdict {
                Verdict::Success => {}
                Verdict::Skip => {
                    diagnosis.skipped.insert(enabled.name.clone());
                }
                verdict if verdict.is_rejection() => {
                    let for_good = matches!(verdict, Verdict::UnschedulableAndUnresolvable(_));
                    diagnosis.pre_filter_message = verdict.message();
                    diagnosis.pre_filter_verdict = Some(verdict);
                    diagnosis.rejected_by.insert(enabled.name.clone());
                    if for_good {
                        break;
                    }
                    // Who makes room needs to know what the others have prepared.
                }
                verdict => return Err(illegal("PreFilter", &enabled.name, &verdict)),
            }
            if let Some(nodes) = outcome.nodes {
                narrowed_by.insert(enabled.name.clone());
                narrowed = Some(match narrowed {
                    None => nodes,
                    Some(before) => before.intersection(&nodes).cloned().collect(),
                });
            }
        }
        if diagnosis.pre_filter_verdict.is_some() {
            return Err(Failure::Unschedulable(Box::new(diagnosis.clone())));
        }
        if let Some(nodes) = &mut narrowed {
            nodes.retain(|name| snapshot.node(name).is_some());
            let names: Vec<&str> = narrowed_by.iter().map(|name| &**name).collect();
            let words = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
            diagnosis.left_out = Some((diagnosis.total_nodes - nodes.len(), words));
            diagnosis.rejected_by.extend(narrowed_by);
        }
        Ok(narrowed)
    }

    /// The weighted sum of all plugins' scores, node by node.
    pub(crate) fn scores(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>, Failure> {
        let candidates = Candidates::each(nodes);
        let skipped = self.pre_score(state, pod, &candidates, snapshot)?;
        let mut totals = vec![0i64; nodes.len()];
        let scoring = self.at(ExtensionPoint::Score);
        for enabled in scoring.filter(|enabled| !skipped.contains(&enabled.name)) {
            let Some(score) = enabled.plugin.as_score() else { continue };
            let scores = asked("Score", &enabled.name, || {
                let scores = nodes.iter().map(|node| score.score(state, pod, node));
                let mut scores = scores.collect::<Result<Vec<i64>, Fault>>()?;
                score.normalize(state, pod, nodes, &mut scores)?;
                Ok(scores)
            })?;
            for (total, score) in totals.iter_mut().zip(&scores) {
                if !(0..=SCORE_MAX).contains(score) {
                    let text = format!("returns an invalid score {score}, not 0 to {SCORE_MAX}");
                    return Err(fault("Score", &enabled.name, &text.into()));
                }
                *total = total.saturating_add(score.saturating_mul(enabled.weight));
            }
        }
        Ok(totals)
    }

    /// Tries to make room: where, and whose.
    pub(crate) async fn post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &mut Diagnosis,
    ) -> Result<Room, Failure> {
        let (mut messages, mut freed) = (Vec::new(), Freed::new());
        let mut nomination = Nomination::Keep;
        let trial = self.trial(&diagnosis.skipped, snapshot);
        for enabled in self.at(ExtensionPoint::PostFilter) {
            let Some(post_filter) = enabled.plugin.as_post_filter() else { continue };
            let outcome = post_filter.post_filter(&trial, state, pod, snapshot, diagnosis);
            let outcome = self.awaited("PostFilter", &enabled.name, outcome).await?;
            let PostFiltered { verdict, nomination: own, victims, freed: own_freed, deleted } =
                outcome;
            let by = |claim, deleted| (enabled.name.clone(), claim, deleted);
            freed.extend(own_freed.into_iter().map(|claim| by(claim, false)));
            freed.extend(deleted.into_iter().map(|claim| by(claim, true)));
            if verdict == Verdict::Success {
                let plugin = enabled.name.clone();
                return Ok(Room { plugin, nomination: own, victims, freed });
            }
            if own != Nomination::Keep {
                nomination = own;
            }
            let message = verdict.message();
            if !message.is_empty() {
                messages.push(message);
            }
            if matches!(verdict, Verdict::UnschedulableAndUnresolvable(_)) {
                break;
            }
        }
        diagnosis.post_filter_message = messages.join(", ");
        Ok(Room { plugin: "".into(), nomination, victims: Vec::new(), freed })
    }
}

/// What making room for a pod came to.
#[derive(Debug)]
pub(crate) struct Room {
    /// The plugin that makes it.
    pub(crate) plugin: Arc<str>,
    pub(crate) nomination: Nomination,
    pub(crate) victims: Vec<Arc<PodInfo>>,
    pub(crate) freed: Freed,
}

/// Claims that give their devices back, with the plugins that want them to, and whether they go
/// themselves.
pub(crate) type Freed = Vec<(Arc<str>, Arc<ResourceClaim>, bool)>;

fn illegal(point: &str, plugin: &str, verdict: &Verdict) -> Failure {
    let text = format!("the verdict {verdict:?} has no meaning here");
    fault(point, plugin, &text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_nodes_are_all_of_few_and_a_part_of_many() {
        let check = |nodes: usize, percentage: Option<u8>, enough: usize| {
            assert_eq!(enough_of(nodes, percentage), enough, "{nodes}");
        };
        check(1, None, 1);
        check(20_000, None, 20_000);
        check(99, Some(5), 99);
        check(150, Some(5), 100);
        check(5000, Some(10), 500);
        check(5000, Some(100), 5000);
    }
}
