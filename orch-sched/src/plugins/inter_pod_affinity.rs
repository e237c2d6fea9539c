//! Pods near other pods, or away from them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use orch_core::{Key, informer::Informer};

use self::counts::{Counts, Relation, counted};
use super::{InterPodAffinityArguments, Labels};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{
        Candidates, EventsToRegister, Filter, GroupKey, Grouping, Plugin, PreFilter, PreFiltered,
        PreScore, Reuse, SCORE_MAX, Score,
    },
    pod_info::{AffinityTerm, NO_LABELS, PodInfo},
    snapshot::Snapshot,
    verdict::Verdict,
};

mod counts;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Source: `pkg/scheduler/framework/plugins/interpodaffinity`.
#[derive(Clone, Debug)]
pub struct InterPodAffinity {
    namespaces: Option<Informer<Namespace>>,
    arguments: InterPodAffinityArguments,
}

/// What a pod asks of its surroundings, with the namespaces that selectors select spelled out.
#[derive(Clone, Debug, PartialEq)]
struct Terms {
    affinity: Vec<AffinityTerm>,
    anti_affinity: Vec<AffinityTerm>,
    /// Those that score, the ones against with a negative weight.
    preferred: Vec<AffinityTerm>,
    /// Of the pod's namespace.
    namespace_labels: Labels,
    arguments: InterPodAffinityArguments,
}

impl Terms {
    /// Whether what placed pods prefer does not count.
    fn ignores_existing(&self) -> bool {
        self.arguments.ignore_preferred_of_existing && self.preferred.is_empty()
    }

    /// Whether a pod that is placed may mean anything: a quick no for most.
    fn may_concern(&self, other: &PodInfo) -> bool {
        other.has_affinity()
            || !self.affinity.is_empty()
            || !self.anti_affinity.is_empty()
            || !self.preferred.is_empty()
    }
}

/// What was found out before any node.
#[derive(Clone, Debug)]
struct Found {
    terms: Arc<Terms>,
    counts: Arc<Counts>,
}

impl InterPodAffinity {
    /// Looks the labels of namespaces up in this informer; without one, namespaces have none.
    pub fn new(
        namespaces: Option<Informer<Namespace>>,
        arguments: InterPodAffinityArguments,
    ) -> Self {
        Self { namespaces, arguments }
    }

    fn labels_of(&self, namespace: &str) -> Labels {
        let found = self.namespaces.as_ref().and_then(|all| all.get(&Key::cluster(namespace)));
        found.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default()
    }

    /// Terms with the namespaces that their selectors select spelled out.
    fn resolved(&self, terms: &[AffinityTerm]) -> Vec<AffinityTerm> {
        let mut terms = terms.to_vec();
        for term in &mut terms {
            let Some(selector) = term.namespace_selector.take() else { continue };
            let Some(all) = &self.namespaces else { continue };
            let selected = all.list().into_iter().filter(|namespace| {
                selector.matches(namespace.metadata.labels.as_ref().unwrap_or(&NO_LABELS))
            });
            term.namespaces.extend(selected.filter_map(|ns| ns.metadata.name.clone()));
        }
        terms
    }

    fn terms(&self, pod: &PodInfo) -> Terms {
        let mut against = self.resolved(&pod.anti_affinity().preferred);
        against.iter_mut().for_each(|term| term.weight = -term.weight);
        let mut preferred = self.resolved(&pod.affinity().preferred);
        preferred.append(&mut against);
        Terms {
            affinity: self.resolved(&pod.affinity().required),
            anti_affinity: self.resolved(&pod.anti_affinity().required),
            preferred,
            namespace_labels: self.labels_of(pod.namespace()),
            arguments: self.arguments,
        }
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &str {
        "InterPodAffinity"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
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

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

/// Whether a pod matches every term: only such pods count for required affinity.
fn matches_all(terms: &[AffinityTerm], pod: &PodInfo) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, &NO_LABELS))
}

/// What a pod that is placed is to the pod: each relation with its topology and its amount.
fn relations(
    terms: &Terms,
    pod: &PodInfo,
    other: &PodInfo,
    found: &mut dyn FnMut(Relation, &str, i64),
) {
    if matches_all(&terms.affinity, other) {
        terms.affinity.iter().for_each(|term| found(Relation::Wanted, &term.topology_key, 1));
    }
    for term in terms.anti_affinity.iter().filter(|term| term.matches(other, &NO_LABELS)) {
        found(Relation::Unwanted, &term.topology_key, 1);
    }
    for term in terms.preferred.iter().filter(|term| term.matches(other, &NO_LABELS)) {
        found(Relation::Scored, &term.topology_key, term.weight);
    }
    if !other.has_affinity() {
        return;
    }
    let labels = &terms.namespace_labels;
    for term in other.anti_affinity().required.iter().filter(|term| term.matches(pod, labels)) {
        found(Relation::Unwilling, &term.topology_key, 1);
    }
    if terms.ignores_existing() {
        return;
    }
    let hard_weight = terms.arguments.hard_weight;
    if hard_weight > 0 {
        for term in other.affinity().required.iter().filter(|term| term.matches(pod, labels)) {
            found(Relation::Scored, &term.topology_key, hard_weight);
        }
    }
    for (terms, sign) in [(&other.affinity().preferred, 1), (&other.anti_affinity().preferred, -1)]
    {
        for term in terms.iter().filter(|term| term.matches(pod, labels)) {
            found(Relation::Scored, &term.topology_key, sign * term.weight);
        }
    }
}

impl Found {
    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, times: i64) {
        if self.terms.may_concern(other) {
            let counts = Arc::make_mut(&mut self.counts);
            counts.count(&self.terms, pod, other, node, times, &|_| false);
        }
    }

    fn get(&self, relation: Relation, key: &str, pod: &PodInfo, node: &NodeInfo) -> i64 {
        self.counts.get((relation, key), &self.terms, pod, node)
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if !pod.has_affinity() && snapshot.pods_with_affinity().next().is_none() {
            return Ok(Verdict::Skip.into());
        }
        let (terms, counts) = counted(pod, self.terms(pod), snapshot);
        let nothing = terms.affinity.is_empty()
            && terms.anti_affinity.is_empty()
            && !counts.has(Relation::Unwilling);
        state.insert(Found { terms, counts });
        Ok(if nothing { Verdict::Skip } else { Verdict::Success }.into())
    }

    fn add_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        added: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Fault> {
        state.get_mut::<Found>().ok_or("PreFilter did not run")?.count(pod, added, node, 1);
        Ok(())
    }

    fn remove_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        removed: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Fault> {
        state.get_mut::<Found>().ok_or("PreFilter did not run")?.count(pod, removed, node, -1);
        Ok(())
    }
}

impl Grouping for InterPodAffinity {
    fn group(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        let Some(found) = state.get::<Found>() else { return };
        for (of, topology) in &found.counts.topologies {
            if !topology.by_node || node.label(of).is_none() {
                key.label(node.label(of));
                continue;
            }
            let mut sums = [0; 4];
            for other in node.pods().iter().filter(|other| found.terms.may_concern(other)) {
                relations(&found.terms, pod, other, &mut |relation, topology_key, amount| {
                    if *topology_key == **of {
                        sums[relation as usize] += amount;
                    }
                });
            }
            let [wanted, unwanted, unwilling, scored] = sums;
            let flags = [wanted, unwanted, unwilling].map(|sum| i64::from(sum > 0));
            flags.into_iter().chain([scored]).for_each(|number| key.number(number));
        }
    }

    fn version(&self, state: &CycleState) -> u64 {
        state.get::<Found>().map_or(0, |found| found.counts.version)
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let found = state.get::<Found>().ok_or("PreFilter did not run")?;
        if !satisfies_affinity(found, pod, node) {
            return Ok(Verdict::unresolvable(AFFINITY));
        }
        let near =
            |term: &AffinityTerm| found.get(Relation::Unwanted, &term.topology_key, pod, node) > 0;
        if found.terms.anti_affinity.iter().any(near) {
            return Ok(Verdict::unschedulable(ANTI_AFFINITY));
        }
        let mut keys = found.counts.topologies.keys();
        let unwanted = keys.any(|key| found.get(Relation::Unwilling, key, pod, node) > 0);
        Ok(Verdict::success_if(!unwanted, EXISTING))
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

fn satisfies_affinity(found: &Found, pod: &PodInfo, node: &NodeInfo) -> bool {
    let terms = &found.terms.affinity;
    let mut met = true;
    for term in terms {
        if node.label(&term.topology_key).is_none() {
            return false;
        }
        met &= found.get(Relation::Wanted, &term.topology_key, pod, node) > 0;
    }
    // The first of a group of pods that want to be together has nobody to be with yet.
    met || !found.counts.has(Relation::Wanted) && matches_all(terms, pod)
}

impl PreScore for InterPodAffinity {
    fn pre_score(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        _: &Candidates<'_>,
        _: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let found = state.get::<Found>();
        let scores = found.is_some_and(|found| found.counts.has(Relation::Scored));
        Ok(if scores { Verdict::Success } else { Verdict::Skip })
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let found = state.get::<Found>().ok_or("PreFilter did not run")?;
        let keys = found.counts.topologies.keys();
        Ok(keys.map(|key| found.get(Relation::Scored, key, pod, node)).sum())
    }

    fn normalize(
        &self,
        _: &CycleState,
        _: &PodInfo,
        _: &[Arc<NodeInfo>],
        scores: &mut [i64],
    ) -> Result<(), Fault> {
        let (min, max) = (scores.iter().copied().min(), scores.iter().copied().max());
        let (Some(min), Some(max)) = (min, max) else { return Ok(()) };
        for score in scores {
            let part = (*score - min) as f64 / (max - min).max(1) as f64;
            *score = (SCORE_MAX as f64 * part) as i64;
        }
        Ok(())
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

impl EventsToRegister for InterPodAffinity {
    fn events(&self) -> Vec<ClusterEvent> {
        let pod = Actions::ADD.or(Actions::DELETE).or(Actions::UPDATE_LABEL);
        vec![
            ClusterEvent::new(EventResource::AssignedPod, pod),
            ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_LABEL)),
        ]
    }

    /// A pod helps if it came and is wanted, or left (or changed) and was in the way.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let ChangedObject::AssignedPod { old, new } = &change.object else { return Hint::Queue };
        let wanted =
            |other: &Arc<PodInfo>| matches_all(&self.resolved(&pod.affinity().required), other);
        let in_the_way = |other: &Arc<PodInfo>| {
            let labels = self.labels_of(pod.namespace());
            let own = self.resolved(&pod.anti_affinity().required);
            own.iter().any(|term| term.matches(other, &NO_LABELS))
                || other.anti_affinity().required.iter().any(|term| term.matches(pod, &labels))
        };
        let helps = new.as_ref().is_some_and(wanted) || old.as_ref().is_some_and(in_the_way);
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
