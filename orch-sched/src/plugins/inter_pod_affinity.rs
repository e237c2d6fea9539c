//! Pods near other pods, or away from them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use orch_core::{Key, informer::Informer};

use self::counts::counted;
use super::Labels;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{
        EventsToRegister, Filter, Plugin, PreFilter, PreFiltered, PreScore, SCORE_MAX, Score,
    },
    pod_info::{AffinityTerm, NO_LABELS, PodInfo},
    snapshot::{Placed, Snapshot},
    verdict::Verdict,
};

mod counts;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// How much an existing pod's required affinity to this pod counts when nodes are ranked.
const HARD_WEIGHT: i64 = 1;

/// Source: `pkg/scheduler/framework/plugins/interpodaffinity`.
#[derive(Clone, Debug)]
pub struct InterPodAffinity {
    namespaces: Option<Informer<Namespace>>,
}

/// How many matching pods (or how much weight) each topology domain has: key, then value.
#[derive(Clone, Debug, Default)]
struct Counts(HashMap<String, HashMap<String, i64>>);

impl Counts {
    fn add(&mut self, key: &str, node: &NodeInfo, by: i64) {
        let Some(value) = node.label(key) else { return };
        if let Some(count) = self.0.get_mut(key).and_then(|domain| domain.get_mut(value)) {
            *count += by;
            if *count == 0 {
                // Domains come and go with their nodes.
                self.forget(key, value);
            }
        } else {
            *self.0.entry(key.to_owned()).or_default().entry(value.to_owned()).or_default() += by;
        }
    }

    fn forget(&mut self, key: &str, value: &str) {
        if let Some(domain) = self.0.get_mut(key) {
            domain.remove(value);
            if domain.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn get(&self, key: &str, node: &NodeInfo) -> i64 {
        let count = || self.0.get(key)?.get(node.label(key)?).copied();
        count().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.values().flat_map(HashMap::values).all(|count| *count == 0)
    }
}

#[derive(Clone, Debug)]
struct FilterState {
    affinity: Vec<AffinityTerm>,
    anti_affinity: Vec<AffinityTerm>,
    /// Existing pods that match all of the pod's affinity terms.
    affinity_counts: Arc<Counts>,
    anti_affinity_counts: Arc<Counts>,
    /// Existing pods that do not want this pod near them.
    existing_counts: Arc<Counts>,
    namespace_labels: Labels,
}

#[derive(Clone, Debug, Default)]
struct ScoreState(Counts);

impl InterPodAffinity {
    /// Looks the labels of namespaces up in this informer; without one, namespaces have none.
    pub fn new(namespaces: Option<Informer<Namespace>>) -> Self {
        Self { namespaces }
    }

    fn labels_of(&self, namespace: &str) -> Labels {
        let found = self.namespaces.as_ref().and_then(|all| all.get(&Key::cluster(namespace)));
        found.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default()
    }

    /// The pod's terms, with the namespaces that their selectors select spelled out.
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

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

/// Whether a pod matches every term: only such pods count for required affinity.
fn matches_all(terms: &[AffinityTerm], pod: &PodInfo) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, &NO_LABELS))
}

/// The placed pods that a term is about.
fn about<'a>(snapshot: &'a Snapshot, term: &'a AffinityTerm) -> impl Iterator<Item = &'a Placed> {
    snapshot.matching(&term.namespaces, &term.selector)
}

impl FilterState {
    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        for term in &other.anti_affinity().required {
            if term.matches(pod, &self.namespace_labels) {
                Arc::make_mut(&mut self.existing_counts).add(&term.topology_key, node, by);
            }
        }
        if matches_all(&self.affinity, other) {
            for term in &self.affinity {
                Arc::make_mut(&mut self.affinity_counts).add(&term.topology_key, node, by);
            }
        }
        for term in &self.anti_affinity {
            if term.matches(other, &NO_LABELS) {
                Arc::make_mut(&mut self.anti_affinity_counts).add(&term.topology_key, node, by);
            }
        }
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        let mut own = FilterState {
            affinity: self.resolved(&pod.affinity().required),
            anti_affinity: self.resolved(&pod.anti_affinity().required),
            affinity_counts: Arc::default(),
            anti_affinity_counts: Arc::default(),
            existing_counts: Arc::default(),
            namespace_labels: self.labels_of(pod.namespace()),
        };
        let mut others = snapshot.pods_with_required_anti_affinity();
        let lonely = own.affinity.is_empty() && own.anti_affinity.is_empty();
        if !lonely || others.next().is_some() {
            own = counted(pod, own, snapshot);
        }
        let nothing = own.affinity.is_empty()
            && own.anti_affinity.is_empty()
            && own.existing_counts.is_empty();
        let verdict = if nothing { Verdict::Skip } else { Verdict::Success };
        state.insert(own);
        Ok(verdict.into())
    }

    fn add_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        added: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Fault> {
        let own = state.get_mut::<FilterState>().ok_or("PreFilter did not run")?;
        own.count(pod, added, node, 1);
        Ok(())
    }

    fn remove_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        removed: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Fault> {
        let own = state.get_mut::<FilterState>().ok_or("PreFilter did not run")?;
        own.count(pod, removed, node, -1);
        Ok(())
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let own = state.get::<FilterState>().ok_or("PreFilter did not run")?;
        if !satisfies_affinity(own, pod, node) {
            return Ok(Verdict::unresolvable(AFFINITY));
        }
        let near = |term: &AffinityTerm| own.anti_affinity_counts.get(&term.topology_key, node) > 0;
        if own.anti_affinity.iter().any(near) {
            return Ok(Verdict::unschedulable(ANTI_AFFINITY));
        }
        let unwanted =
            own.existing_counts.0.keys().any(|key| own.existing_counts.get(key, node) > 0);
        Ok(Verdict::success_if(!unwanted, EXISTING))
    }
}

fn satisfies_affinity(own: &FilterState, pod: &PodInfo, node: &NodeInfo) -> bool {
    let mut met = true;
    for term in &own.affinity {
        if node.label(&term.topology_key).is_none() {
            return false;
        }
        met &= own.affinity_counts.get(&term.topology_key, node) > 0;
    }
    // The first of a group of pods that want to be together has nobody to be with yet.
    met || own.affinity_counts.is_empty() && matches_all(&own.affinity, pod)
}

impl PreScore for InterPodAffinity {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let mut counts = Counts::default();
        for (terms, sign) in [(&pod.affinity().preferred, 1), (&pod.anti_affinity().preferred, -1)]
        {
            for term in &self.resolved(terms) {
                for placed in about(snapshot, term) {
                    let Some(node) = snapshot.node(&placed.node) else { continue };
                    counts.add(&term.topology_key, node, sign * term.weight);
                }
            }
        }
        let labels = self.labels_of(pod.namespace());
        for placed in snapshot.pods_with_affinity() {
            let Some(node) = snapshot.node(&placed.node) else { continue };
            let other = &placed.pod;
            let terms = [
                (&other.affinity().required, HARD_WEIGHT, true),
                (&other.affinity().preferred, 1, false),
                (&other.anti_affinity().preferred, -1, false),
            ];
            for (terms, sign, hard) in terms {
                for term in terms.iter().filter(|term| term.matches(pod, &labels)) {
                    let weight = if hard { 1 } else { term.weight };
                    counts.add(&term.topology_key, node, sign * weight);
                }
            }
        }
        if counts.0.is_empty() {
            return Ok(Verdict::Skip);
        }
        state.insert(ScoreState(counts));
        Ok(Verdict::Success)
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let ScoreState(counts) = state.get().ok_or("PreScore did not run")?;
        Ok(counts.0.keys().map(|key| counts.get(key, node)).sum())
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
