//! The pod's node selector and node affinity.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity as Affinity, NodeSelectorTerm, PreferredSchedulingTerm,
};

use super::{Labels, default_normalize};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{
        Candidates, EventsToRegister, Filter, Plugin, PreFilter, PreFiltered, PreScore, Reuse,
        Score,
    },
    pod_info::{NO_LABELS, PodInfo, term_matches},
    snapshot::Snapshot,
    verdict::Verdict,
};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";

/// Source: `pkg/scheduler/framework/plugins/nodeaffinity`.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// Asked of nodes beside what the pod asks.
    added: Option<Affinity>,
}

impl NodeAffinity {
    /// Asks this of nodes beside what pods ask.
    pub fn adding(added: Option<Affinity>) -> Self {
        Self { added }
    }

    fn added_terms(&self) -> Option<&[NodeSelectorTerm]> {
        let required = &self.added.as_ref()?.required_during_scheduling_ignored_during_execution;
        required.as_ref().map(|required| required.node_selector_terms.as_slice())
    }

    fn enforced(&self, labels: &Labels, name: &str) -> bool {
        let mut terms = self.added_terms().into_iter().flatten().peekable();
        self.added_terms().is_none() || terms.any(|term| term_matches(term, labels, name))
    }

    fn preferred<'a>(
        &'a self,
        pod: &'a PodInfo,
    ) -> impl Iterator<Item = &'a PreferredSchedulingTerm> {
        let both = self.added.iter().chain(affinity(pod));
        both.flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &str {
        "NodeAffinity"
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

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()
}

fn required_terms(pod: &PodInfo) -> Option<&[NodeSelectorTerm]> {
    let required = affinity(pod)?.required_during_scheduling_ignored_during_execution.as_ref();
    required.map(|required| required.node_selector_terms.as_slice())
}

/// Whether a node has what the pod requires of it.
pub(super) fn node_fits(pod: &PodInfo, labels: &Labels, name: &str) -> bool {
    let selector = pod.spec().and_then(|spec| spec.node_selector.as_ref());
    let selected =
        selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    selected
        && required_terms(pod)
            .is_none_or(|terms| terms.iter().any(|term| term_matches(term, labels, name)))
}

/// The names of the only nodes that can match, if every term names its nodes.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let named = fields.iter().filter(|f| f.key == "metadata.name" && f.operator == "In");
        let mut in_term: Option<BTreeSet<String>> = None;
        for field in named {
            let values: BTreeSet<String> = field.values.iter().flatten().cloned().collect();
            in_term = Some(match in_term {
                None => values,
                Some(before) => before.intersection(&values).cloned().collect(),
            });
        }
        names.extend(in_term?);
    }
    (!terms.is_empty()).then_some(names)
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        let has_selector = pod.spec().is_some_and(|spec| spec.node_selector.is_some());
        let terms = required_terms(pod);
        if !has_selector && terms.is_none() && self.added_terms().is_none() {
            return Ok(Verdict::Skip.into());
        }
        let nodes = terms.and_then(named_nodes);
        if nodes.as_ref().is_some_and(BTreeSet::is_empty) {
            let words = "pod affinity terms conflict";
            return Ok(Verdict::unresolvable(words).into());
        }
        Ok(PreFiltered { verdict: Verdict::Success, nodes })
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        if !self.enforced(node.labels(), node.name()) {
            return Ok(Verdict::unresolvable(ENFORCED));
        }
        let fits = node_fits(pod, node.labels(), node.name());
        Ok(if fits { Verdict::Success } else { Verdict::unresolvable(REASON) })
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Candidates<'_>,
        _: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let none = self.preferred(pod).next().is_none();
        Ok(if none { Verdict::Skip } else { Verdict::Success })
    }
}

impl Score for NodeAffinity {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let matching = self
            .preferred(pod)
            .filter(|term| term_matches(&term.preference, node.labels(), node.name()));
        Ok(matching.map(|term| i64::from(term.weight)).sum())
    }

    fn normalize(
        &self,
        _: &CycleState,
        _: &PodInfo,
        _: &[Arc<NodeInfo>],
        scores: &mut [i64],
    ) -> Result<(), Fault> {
        default_normalize(scores, false);
        Ok(())
    }

    fn reuse(&self) -> Reuse {
        Reuse::BeforeNormalization
    }
}

impl EventsToRegister for NodeAffinity {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_LABEL))]
    }

    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let fits = |node: &Node| {
            let labels = node.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
            let name = node.metadata.name.as_deref().unwrap_or_default();
            self.enforced(labels, name) && node_fits(pod, labels, name)
        };
        if change.node().is_some_and(|node| !fits(node)) { Hint::Skip } else { Hint::Queue }
    }
}
