//! Runs the extension points of a profile's plugins.
//!
//! Source: `pkg/scheduler/framework/runtime`.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::random::Random;
use parking_lot::Mutex;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{ClusterChange, ClusterEvent, Hint},
    extender::Extender,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, Filter, Nomination, Plugin, PostFiltered, SCORE_MAX},
    pod_info::PodInfo,
    queue::QueuedPod,
    snapshot::Snapshot,
    standing::Standing,
    verdict::Verdict,
};

mod decide;
mod explain;
mod trial;

pub use explain::{Explanation, NodeExplanation, Objection, ScoreDetail};
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

/// One node's answer.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The node.
    pub node: Arc<str>,
    /// The plugin that ruled it out.
    pub plugin: Arc<str>,
    /// Its verdict.
    pub verdict: Verdict,
}

/// Why a pod fits nowhere. Display is upstream's sentence.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub total_nodes: usize,
    /// What was found out about each node that was looked at.
    pub rejections: Vec<Rejection>,
    /// What ruled all nodes out at once.
    pub pre_filter_message: String,
    /// What plugins that tried to make room had to say.
    pub post_filter_message: String,
    /// The plugins whose rejection a change of the cluster may lift.
    pub rejected_by: BTreeSet<Arc<str>>,
    /// How many nodes PreFilter left out, and the words for it.
    left_out: Option<(usize, String)>,
    /// PreFilter's verdict on all nodes at once.
    pre_filter_verdict: Option<Verdict>,
    /// The plugins that have nothing to filter.
    skipped: BTreeSet<Arc<str>>,
}

impl Diagnosis {
    /// Why a pod does not fit these nodes, and the others for one reason.
    pub fn of(total_nodes: usize, rejections: Vec<Rejection>, others: &str) -> Self {
        let left_out = total_nodes.saturating_sub(rejections.len());
        let left_out = (left_out > 0).then(|| (left_out, others.to_owned()));
        Self { total_nodes, rejections, left_out, ..Self::default() }
    }

    /// The nodes that the pod would fit if other pods went away, as far as is known.
    pub fn resolvable<'a>(&'a self, snapshot: &'a Snapshot) -> Vec<&'a Arc<NodeInfo>> {
        match &self.pre_filter_verdict {
            Some(Verdict::Unschedulable(_)) => return snapshot.nodes().iter().collect(),
            Some(_) => return Vec::new(),
            None => {}
        }
        let rejections = self.rejections.iter();
        let may_help = rejections.filter(|one| matches!(one.verdict, Verdict::Unschedulable(_)));
        may_help.filter_map(|one| snapshot.node(&one.node)).collect()
    }

    /// What somebody outside has against nodes that fitted.
    pub(crate) fn add(&mut self, rejections: Vec<Rejection>, by: &str) {
        self.rejections.extend(rejections);
        self.rejected_by.insert(by.into());
    }

    /// What was found out about a node.
    pub fn verdict_on(&self, node: &str) -> Option<&Verdict> {
        let one = self.rejections.iter().find(|one| *one.node == *node);
        one.map(|one| &one.verdict).or(self.pre_filter_verdict.as_ref())
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.total_nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.total_nodes)?;
        if self.pre_filter_message.is_empty() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for reason in self.rejections.iter().flat_map(|one| one.verdict.reasons()) {
                *counts.entry(reason).or_default() += 1;
            }
            if let Some((count, reason)) = &self.left_out {
                *counts.entry(reason).or_default() += count;
            }
            let mut lines: Vec<String> =
                counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            lines.sort();
            if !lines.is_empty() {
                write!(f, " {}.", lines.join(", "))?;
            }
        } else {
            write!(f, " {}.", self.pre_filter_message)?;
        }
        if !self.post_filter_message.is_empty() {
            write!(f, " {}", self.post_filter_message)?;
        }
        Ok(())
    }
}

/// Why a cycle did not end with a node.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A verdict: the pod fits nowhere.
    Unschedulable(Box<Diagnosis>),
    /// A fault in a plugin, or around it.
    Fault(String),
}

/// The names of the nodes that are left to look at; `None` is all.
type Narrowed = Option<BTreeSet<String>>;

/// A fault, with the extension point and the plugin in which it happened.
pub(crate) fn fault(point: &str, plugin: &str, error: &Fault) -> Failure {
    Failure::Fault(format!("running {point} plugin {plugin:?}: {error}"))
}

impl Framework {
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
        let extenders = Arc::default();
        Self { scheduler_name, plugins, order, next_start, percentage, standings, extenders }
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

    /// All nodes that fit a pod, before anybody outside is asked; and what is known about the others.
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

    fn enabled(&self, name: &str) -> Option<&Enabled> {
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

    /// The nodes that are left to look at. The diagnosis learns which plugins have nothing to filter.
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
            let outcome = pre_filter.pre_filter(state, pod, snapshot);
            let outcome = outcome.map_err(|error| fault("PreFilter", &enabled.name, &error))?;
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
            let failed = |error: Fault| fault("Score", &enabled.name, &error);
            let scores: Result<Vec<i64>, Fault> =
                nodes.iter().map(|node| score.score(state, pod, node)).collect();
            let mut scores = scores.map_err(failed)?;
            score.normalize(state, pod, nodes, &mut scores).map_err(failed)?;
            for (total, score) in totals.iter_mut().zip(&scores) {
                if !(0..=SCORE_MAX).contains(score) {
                    let text = format!("returns an invalid score {score}, not 0 to {SCORE_MAX}");
                    return Err(failed(text.into()));
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
        let (mut messages, mut freed) = (Vec::new(), Vec::new());
        let mut nomination = Nomination::Keep;
        let trial = self.trial(&diagnosis.skipped, snapshot);
        for enabled in self.at(ExtensionPoint::PostFilter) {
            let Some(post_filter) = enabled.plugin.as_post_filter() else { continue };
            let outcome = post_filter.post_filter(&trial, state, pod, snapshot, diagnosis).await;
            let outcome = outcome.map_err(|error| fault("PostFilter", &enabled.name, &error))?;
            let PostFiltered { verdict, nomination: own, victims, freed: own_freed } = outcome;
            freed.extend(own_freed.into_iter().map(|claim| (enabled.name.clone(), claim)));
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

    /// Reserves with every plugin, or with none.
    pub(crate) fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        for enabled in self.at(ExtensionPoint::Reserve) {
            let Some(reserve) = enabled.plugin.as_reserve() else { continue };
            let failure = match reserve.reserve(state, pod, node) {
                Ok(Verdict::Success | Verdict::Skip) => continue,
                Ok(verdict) => self.rejected(&enabled.name, node, verdict),
                Err(error) => fault("Reserve", &enabled.name, &error),
            };
            self.unreserve(state, pod, node);
            return Err(failure);
        }
        Ok(())
    }

    /// Gives everything back, last reserved first.
    pub(crate) fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for enabled in self.at(ExtensionPoint::Reserve).rev() {
            if let Some(reserve) = enabled.plugin.as_reserve() {
                reserve.unreserve(state, pod, node);
            }
        }
    }

    /// How long each plugin wants to be waited for; none if the pod may go.
    pub(crate) fn permit(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Vec<(Arc<str>, std::time::Duration)>, Failure> {
        let mut waits = Vec::new();
        for enabled in self.at(ExtensionPoint::Permit) {
            let Some(permit) = enabled.plugin.as_permit() else { continue };
            match permit.permit(state, pod, node) {
                Ok(Verdict::Success | Verdict::Skip) => {}
                Ok(Verdict::Wait(timeout)) => waits.push((enabled.name.clone(), timeout)),
                Ok(verdict) => return Err(self.rejected(&enabled.name, node, verdict)),
                Err(error) => return Err(fault("Permit", &enabled.name, &error)),
            }
        }
        Ok(waits)
    }

    pub(crate) async fn pre_bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        for enabled in self.at(ExtensionPoint::PreBind) {
            let Some(pre_bind) = enabled.plugin.as_pre_bind() else { continue };
            match pre_bind.pre_bind(state, pod, node).await {
                Ok(Verdict::Success | Verdict::Skip) => {}
                Ok(verdict) => return Err(self.rejected(&enabled.name, node, verdict)),
                Err(error) => return Err(fault("PreBind", &enabled.name, &error)),
            }
        }
        Ok(())
    }

    pub(crate) async fn bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        let mut extenders = self.extenders.iter();
        if let Some(extender) = extenders.find(|one| one.binds() && one.is_interested(pod)) {
            let bound = extender.bind(pod, node).await;
            return bound.map_err(|error| Failure::Fault(error.to_string()));
        }
        for enabled in self.at(ExtensionPoint::Bind) {
            let Some(bind) = enabled.plugin.as_bind() else { continue };
            match bind.bind(state, pod, node).await {
                Ok(Verdict::Skip) => {}
                Ok(Verdict::Success) => return Ok(()),
                Ok(verdict) => return Err(self.rejected(&enabled.name, node, verdict)),
                Err(error) => return Err(fault("Bind", &enabled.name, &error)),
            }
        }
        Err(Failure::Fault("no Bind plugin took the pod".into()))
    }

    pub(crate) fn post_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for enabled in self.at(ExtensionPoint::PostBind) {
            if let Some(post_bind) = enabled.plugin.as_post_bind() {
                post_bind.post_bind(state, pod, node);
            }
        }
    }

    /// A rejection after a node was chosen.
    pub(crate) fn rejected(&self, plugin: &Arc<str>, node: &str, verdict: Verdict) -> Failure {
        let mut diagnosis = Diagnosis { total_nodes: 1, ..Diagnosis::default() };
        diagnosis.rejected_by.insert(plugin.clone());
        diagnosis.rejections.push(Rejection { node: node.into(), plugin: plugin.clone(), verdict });
        Failure::Unschedulable(Box::new(diagnosis))
    }
}

/// What making room for a pod came to.
#[derive(Debug)]
pub(crate) struct Room {
    /// The plugin that makes it.
    pub(crate) plugin: Arc<str>,
    pub(crate) nomination: Nomination,
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// Claims that give their devices back, with the plugins that want them to.
    pub(crate) freed: Vec<(Arc<str>, Arc<ResourceClaim>)>,
}

/// Nodes that were looked at, by whether a pod fits them.
#[derive(Default)]
struct Found {
    feasible: Vec<Arc<NodeInfo>>,
    rejections: Vec<Rejection>,
}

impl Found {
    /// Looks at these nodes until enough fit. Gives how many it looked at.
    fn run<'n>(
        &mut self,
        trial: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        nodes: impl Iterator<Item = &'n Arc<NodeInfo>>,
        enough: usize,
    ) -> Result<usize, Failure> {
        for node in nodes {
            if self.feasible.len() == enough {
                break;
            }
            match trial.rejection(state, pod, node)? {
                None => self.feasible.push(node.clone()),
                Some(rejection) => self.rejections.push(rejection),
            }
        }
        Ok(self.feasible.len() + self.rejections.len())
    }
}

/// Filters that are asked one after the other.
struct Search<'a> {
    filters: Vec<(&'a Arc<str>, &'a dyn Filter)>,
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.filters.iter().map(|(name, _)| name)).finish()
    }
}

impl<'a> Search<'a> {
    fn of(filters: Vec<(&'a Arc<str>, &'a dyn Filter)>) -> Self {
        Self { filters }
    }

    /// What rules a node out, if anything.
    fn rejection(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<Rejection>, Failure> {
        for (name, filter) in &self.filters {
            let verdict = filter.filter(state, pod, node);
            match verdict.map_err(|error| fault("Filter", name, &error))? {
                Verdict::Success => {}
                verdict if verdict.is_rejection() => {
                    let (node, plugin) = (node.name().clone(), (*name).clone());
                    return Ok(Some(Rejection { node, plugin, verdict }));
                }
                verdict => return Err(illegal("Filter", name, &verdict)),
            }
        }
        Ok(None)
    }
}

fn illegal(point: &str, plugin: &str, verdict: &Verdict) -> Failure {
    let text = format!("the verdict {verdict:?} has no meaning here");
    fault(point, plugin, &text.into())
}

/// All profiles of a scheduler, by the scheduler name that pods ask for.
#[derive(Debug)]
pub(crate) struct Profiles {
    by_name: HashMap<String, Arc<Framework>>,
    /// The queue's order, the same for all.
    sort: Arc<dyn Plugin>,
}

impl Profiles {
    pub(crate) fn new(frameworks: Vec<Framework>, sort: Arc<dyn Plugin>) -> Self {
        let by_name = frameworks
            .into_iter()
            .map(|framework| (framework.scheduler_name.clone(), Arc::new(framework)))
            .collect();
        Self { by_name, sort }
    }

    /// The profile that a pod asks for; `None` if it asks for another scheduler.
    pub(crate) fn of(&self, pod: &PodInfo) -> Option<&Arc<Framework>> {
        self.by_name.get(pod.scheduler_name())
    }

    /// All of them with nothing remembered.
    pub(crate) fn fork(&self) -> impl Iterator<Item = Framework> {
        self.by_name.values().map(|framework| framework.fork())
    }

    pub(crate) fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self.sort.as_queue_sort().map_or(Ordering::Equal, |sort| sort.compare(a, b))
    }

    /// The plugin that keeps the pod out of the queue, if one does.
    pub(crate) fn gate(&self, pod: &PodInfo) -> Option<&Enabled> {
        let framework = self.of(pod).into_iter();
        let mut plugins = framework.flat_map(|framework| framework.at(ExtensionPoint::PreEnqueue));
        plugins.find(|enabled| {
            let pre_enqueue = enabled.plugin.as_pre_enqueue();
            pre_enqueue.is_some_and(|pre_enqueue| pre_enqueue.pre_enqueue(pod).is_rejection())
        })
    }

    /// Whether any profile's plugin of this name wants to hear of a change.
    pub(crate) fn listens(&self, plugin: &str, change: &ClusterChange) -> bool {
        let mut known = self.by_name.values().filter_map(|framework| framework.enabled(plugin));
        let mut known = known.by_ref().peekable();
        // What nobody here said is asked about after every change: an extender's refusal.
        known.peek().is_none()
            || known.any(|enabled| {
                let events = enabled.events.as_ref();
                events.is_none_or(|events| events.iter().any(|event| event.includes(change)))
            })
    }

    /// Whether a change may help a pod that a plugin rejected.
    pub(crate) fn hint(&self, pod: &PodInfo, plugin: &str, change: &ClusterChange) -> Hint {
        let enabled = self.of(pod).and_then(|framework| framework.enabled(plugin));
        let Some(enabled) = enabled else { return Hint::Queue };
        let Some(events) = &enabled.events else { return Hint::Queue };
        if !events.iter().any(|event| event.includes(change)) {
            return Hint::Skip;
        }
        let registered = enabled.plugin.as_events_to_register();
        registered.map_or(Hint::Queue, |registered| registered.hint(pod, change))
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        use crate::plugins::{NodeResourcesFit, PrioritySort, SchedulingGates};
        let plugins: [Arc<dyn Plugin>; 3] = [
            Arc::new(SchedulingGates),
            Arc::new(PrioritySort),
            Arc::new(NodeResourcesFit::default()),
        ];
        let enabled = |plugin: &Arc<dyn Plugin>| Enabled {
            name: plugin.name().into(),
            plugin: plugin.clone(),
            weight: 1,
            events: plugin.as_events_to_register().map(|registered| registered.events()),
        };
        let plugins: Vec<Enabled> = plugins.iter().map(enabled).collect();
        let everywhere = (plugins.len(), &BTreeMap::new());
        let framework = Framework::new("default-scheduler".into(), plugins, everywhere, None);
        Self::new(vec![framework], Arc::new(PrioritySort))
    }
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
