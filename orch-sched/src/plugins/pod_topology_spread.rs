//! Pods spread evenly over topology domains.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};
use orch_core::{
    informer::Informers,
    selector::{Operator, Selector},
};
use smallvec::SmallVec;

use self::counts::{Tally, spreads};
use self::defaults::Defaults;
use super::{SpreadDefaults, node_affinity::node_fits, tolerates};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{
        Candidates, EventsToRegister, Filter, GroupKey, Grouping, Plugin, PreFilter, PreFiltered,
        PreScore, Reuse, SCORE_MAX, Score,
    },
    pod_info::{PodInfo, with_pod_labels},
    snapshot::Snapshot,
    verdict::Verdict,
};

mod counts;
mod defaults;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Source: `pkg/scheduler/framework/plugins/podtopologyspread`.
#[derive(Clone, Debug, Default)]
pub struct PodTopologySpread {
    /// Of pods that have no constraints of their own; none if unset.
    defaults: Option<Defaults>,
}

#[derive(Clone, Debug, PartialEq)]
struct Constraint {
    max_skew: i64,
    topology_key: String,
    selector: Selector,
    min_domains: i64,
    honor_affinity: bool,
    honor_taints: bool,
}

/// A constraint with the matching pods per domain, of eligible nodes.
#[derive(Clone, Debug)]
struct Spread {
    constraint: Arc<Constraint>,
    tally: Tally,
    /// Whether the pod counts in its own domain.
    itself: i64,
}

/// The constraints of one kind.
#[derive(Clone, Debug, Default)]
struct Spreads {
    all: SmallVec<[Spread; 2]>,
    /// Nodes that lack a label count all the same, in a domain of those.
    lenient: bool,
    /// Changes when other labels than before name nodes.
    version: u64,
}

/// The constraints that must be met.
#[derive(Clone, Debug)]
struct FilterState(Spreads);

/// The constraints that should be met, before it is known which nodes fit.
#[derive(Clone, Debug)]
struct Preferred(Spreads);

/// Each of the latter with its weight, and the domains in which nodes that fit are; `None` is all.
#[derive(Clone, Debug)]
struct ScoreState(Vec<(f64, Option<HashSet<Arc<str>>>)>);

impl Plugin for PodTopologySpread {
    fn name(&self) -> &str {
        "PodTopologySpread"
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

fn all(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref());
    constraints.unwrap_or_default()
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Result<Self, Fault> {
        let selector = Selector::from_label_selector(constraint.label_selector.as_ref())?;
        let keys = (constraint.match_label_keys.as_deref(), Operator::In);
        Ok(Self {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector: with_pod_labels(selector, pod.pod(), &[keys])?,
            min_domains: constraint.min_domains.unwrap_or(1).into(),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        })
    }
}

fn constraints(pod: &PodInfo, when_unsatisfiable: &str) -> Result<Vec<Constraint>, Fault> {
    let wanted = all(pod).iter().filter(|c| c.when_unsatisfiable == when_unsatisfiable);
    wanted.map(|constraint| Constraint::new(constraint, pod)).collect()
}

impl PodTopologySpread {
    /// With such constraints for pods that have none of their own.
    pub fn new(informers: &Informers, defaults: SpreadDefaults) -> Self {
        Self { defaults: Some(Defaults::new(informers, defaults)) }
    }

    /// The constraints of one kind with their counts; `None` if there are none.
    fn spreads(
        &self,
        pod: &PodInfo,
        when: &'static str,
        snapshot: &Snapshot,
    ) -> Result<Option<Spreads>, Fault> {
        if !all(pod).is_empty() {
            let has = all(pod).iter().any(|c| c.when_unsatisfiable == when);
            return has.then(|| spreads(pod, when, snapshot, None)).transpose();
        }
        let Some(defaults) = &self.defaults else { return Ok(None) };
        let constraints = defaults.of(pod, when)?;
        if constraints.is_empty() {
            return Ok(None);
        }
        let lenient = defaults.are_systems();
        spreads(pod, when, snapshot, Some((constraints, lenient))).map(Some)
    }
}

/// Whether a node's pods count for a constraint.
fn is_eligible(constraint: &Constraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    if constraint.honor_affinity && !node_fits(pod, node.labels(), node.name()) {
        return false;
    }
    let hard = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
    !constraint.honor_taints
        || node
            .taints()
            .iter()
            .filter(|taint| hard(&taint.effect))
            .all(|taint| pod.tolerations().iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a constraint is about a placed pod. Upstream counts nothing for a selector without
/// requirements, and no pods that are on their way out.
fn is_counted(constraint: &Constraint, pod: &PodInfo, other: &PodInfo) -> bool {
    !constraint.selector.is_everything()
        && pod.namespace() == other.namespace()
        && other.pod().metadata.deletion_timestamp.is_none()
        && constraint.selector.matches(other.labels())
}

fn on_node(constraint: &Constraint, pod: &PodInfo, node: &NodeInfo) -> i64 {
    node.pods().iter().filter(|other| is_counted(constraint, pod, other)).count() as i64
}

impl Spread {
    fn of(constraint: Constraint, pod: &PodInfo, tally: Tally) -> Self {
        let itself = i64::from(constraint.selector.matches(pod.labels()));
        Self { constraint: Arc::new(constraint), tally, itself }
    }

    fn value<'n>(&self, node: &'n NodeInfo) -> Option<&'n str> {
        node.label(&self.constraint.topology_key)
    }

    /// Adds to the domain of a node that counts, and had so many pods itself.
    fn add(&mut self, node: &NodeInfo, had: i64, by: i64) {
        let Some(domains) = &mut self.tally.domains else {
            return self.tally.shift(Some(had), Some(had + by));
        };
        let value = node.label(&self.constraint.topology_key);
        let count = value.and_then(|value| Arc::make_mut(domains).get_mut(value));
        if let Some(count) = count {
            let before = *count;
            *count += by;
            self.tally.shift(Some(before), Some(before + by));
        }
    }

    /// The pods of a node's domain, on nodes that count.
    fn here(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        match &self.tally.domains {
            Some(domains) => {
                domains.get(self.value(node).unwrap_or_default()).copied().unwrap_or(0)
            }
            None if is_eligible(&self.constraint, pod, node) => {
                on_node(&self.constraint, pod, node)
            }
            None => 0,
        }
    }
}

impl Spreads {
    /// Whether a node has the labels of all constraints: the pods of others do not count.
    fn are_labels_of(&self, node: &NodeInfo) -> bool {
        self.lenient || self.all.iter().all(|spread| spread.value(node).is_some())
    }

    /// A pod came to a node that shows it already, or left one that does not show it any more.
    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        if !self.are_labels_of(node) {
            return;
        }
        for spread in &mut self.all {
            let constraint = &spread.constraint;
            if is_counted(constraint, pod, other) && is_eligible(constraint, pod, node) {
                let had = on_node(constraint, pod, node) - by;
                spread.add(node, had, by);
            }
        }
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if let Some(preferred) = self.spreads(pod, "ScheduleAnyway", snapshot)? {
            state.insert(Preferred(preferred));
        }
        Ok(match self.spreads(pod, "DoNotSchedule", snapshot)? {
            None => Verdict::Skip.into(),
            Some(required) => {
                state.insert(FilterState(required));
                Verdict::Success.into()
            }
        })
    }

    fn add_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        added: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Fault> {
        let FilterState(own) = state.get_mut().ok_or("PreFilter did not run")?;
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
        let FilterState(own) = state.get_mut().ok_or("PreFilter did not run")?;
        own.count(pod, removed, node, -1);
        Ok(())
    }
}

impl Grouping for PodTopologySpread {
    fn group(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        let required = state.get().map(|FilterState(spreads)| spreads);
        for spread in required.into_iter().flat_map(|spreads| &spreads.all) {
            match spread.tally.domains {
                None if spread.value(node).is_some() => key.number(spread.here(pod, node)),
                _ => key.label(spread.value(node)),
            }
        }
        let preferred = state.get().map(|Preferred(spreads)| spreads);
        for spread in preferred.into_iter().flat_map(|spreads| &spreads.all) {
            let constraint = &spread.constraint;
            key.number(i64::from(is_eligible(constraint, pod, node)));
            let by_node = spread.tally.domains.is_none() && spread.value(node).is_some();
            if by_node || constraint.topology_key == HOSTNAME {
                key.number(on_node(constraint, pod, node));
            }
            if !by_node {
                key.label(spread.value(node));
            }
        }
    }

    fn version(&self, state: &CycleState) -> u64 {
        let required = state.get().map_or(0, |FilterState(spreads)| spreads.version);
        let preferred = state.get().map_or(0, |Preferred(spreads)| spreads.version);
        required.rotate_left(32) ^ preferred
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let FilterState(spreads) = state.get().ok_or("PreFilter did not run")?;
        let is_labelled = spreads.are_labels_of(node);
        for spread in &spreads.all {
            let constraint = &spread.constraint;
            if spread.value(node).is_none() {
                return Ok(Verdict::unresolvable(MISSING_LABEL));
            }
            // Where every node is a domain, one that lacks another label is none.
            let counts = is_labelled || spread.tally.domains.is_some();
            let here = if counts { spread.here(pod, node) } else { 0 };
            let least = spread.tally.least(constraint.min_domains);
            if here + spread.itself - least > constraint.max_skew {
                return Ok(Verdict::unschedulable(REASON));
            }
        }
        Ok(Verdict::Success)
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

/// Over how many domains the nodes that fit are spread, and over which, unless over all.
fn reach(
    spread: &Spread,
    ranked: &[(&Arc<NodeInfo>, usize)],
    pod: &PodInfo,
    all: bool,
) -> (usize, Option<HashSet<Arc<str>>>) {
    let constraint = &spread.constraint;
    // Nodes are counted one by one in Score, even if they share a name.
    let by_host = constraint.topology_key == HOSTNAME;
    let (mut nodes, mut unlabelled) = (0, false);
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    for (node, count) in ranked {
        let eligible = is_eligible(constraint, pod, node);
        match spread.value(node) {
            // Nodes without the label are one domain, where they are ranked at all.
            None if !by_host => unlabelled = true,
            _ if by_host || eligible => nodes += count,
            _ => {}
        }
        let domains = spread.tally.domains.as_ref().filter(|_| eligible && !all);
        let value = spread.value(node).unwrap_or_default();
        let domain = domains.and_then(|domains| domains.get_key_value(value));
        seen.extend(domain.map(|(domain, _)| domain.clone()));
    }
    match spread.tally.domains {
        None => (nodes + usize::from(unlabelled), None),
        Some(_) if all => (if by_host { nodes } else { spread.tally.len() }, None),
        Some(_) => (if by_host { nodes } else { seen.len() }, Some(seen)),
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &Candidates<'_>,
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let Some(Preferred(spreads)) = state.get() else { return Ok(Verdict::Skip) };
        let ranked = nodes.groups().filter(|(node, _)| spreads.are_labels_of(node));
        let ranked: Vec<_> = ranked.collect();
        let all = nodes.len() == snapshot.nodes().len();
        let weighed = spreads.all.iter().map(|spread| {
            let (size, seen) = reach(spread, &ranked, pod, all);
            // The more domains, the less one more pod in one of them matters.
            ((size as f64 + 2.0).ln(), seen)
        });
        let weighed = ScoreState(weighed.collect());
        state.insert(weighed);
        Ok(Verdict::Success)
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let Preferred(spreads) = state.get().ok_or("PreFilter did not run")?;
        let ScoreState(weighed) = state.get().ok_or("PreScore did not run")?;
        if !spreads.are_labels_of(node) {
            return Ok(0);
        }
        let mut score = 0.0;
        for (spread, (weight, seen)) in spreads.all.iter().zip(weighed) {
            let constraint = &spread.constraint;
            if spread.value(node).is_none() {
                continue;
            }
            let is_seen = || {
                let value = spread.value(node).unwrap_or_default();
                seen.as_ref().is_none_or(|seen| seen.contains(value))
            };
            let count = if constraint.topology_key == HOSTNAME {
                on_node(constraint, pod, node)
            } else if is_seen() {
                spread.here(pod, node)
            } else {
                0
            };
            score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        Ok(score.round() as i64)
    }

    fn normalize(
        &self,
        state: &CycleState,
        _: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        scores: &mut [i64],
    ) -> Result<(), Fault> {
        let Preferred(spreads) = state.get().ok_or("PreFilter did not run")?;
        // Nodes that lack a label cannot be ranked.
        let ranked = |node: &Arc<NodeInfo>| spreads.are_labels_of(node);
        let counted = || nodes.iter().zip(&*scores).filter(|(node, _)| ranked(node));
        let min = counted().map(|(_, score)| *score).min().unwrap_or(0);
        let max = counted().map(|(_, score)| *score).max().unwrap_or(0);
        for (node, score) in nodes.iter().zip(scores) {
            *score = match max {
                _ if !ranked(node) => 0,
                0 => SCORE_MAX,
                max => SCORE_MAX * (max + min - *score) / max,
            };
        }
        Ok(())
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

impl EventsToRegister for PodTopologySpread {
    fn events(&self) -> Vec<ClusterEvent> {
        let pod = Actions::ADD.or(Actions::DELETE).or(Actions::UPDATE_LABEL);
        let node = Actions::ADD.or(Actions::DELETE).or(Actions::UPDATE_LABEL);
        vec![
            ClusterEvent::new(EventResource::AssignedPod, pod),
            ClusterEvent::new(EventResource::Node, node.or(Actions::UPDATE_TAINT)),
        ]
    }

    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let constraints = match &self.defaults {
            Some(defaults) if all(pod).is_empty() => defaults.of(pod, "DoNotSchedule"),
            _ => constraints(pod, "DoNotSchedule"),
        };
        let constraints = constraints.unwrap_or_default();
        let concerns = |other: &Arc<PodInfo>| {
            other.namespace() == pod.namespace()
                && constraints.iter().any(|c| c.selector.matches(other.labels()))
        };
        let labelled = |node: &Arc<Node>| {
            let labels = node.metadata.labels.as_ref();
            constraints.iter().all(|c| labels.is_some_and(|l| l.contains_key(&c.topology_key)))
        };
        let helps = match &change.object {
            ChangedObject::AssignedPod { old, new } => {
                [old, new].into_iter().flatten().any(concerns)
            }
            ChangedObject::Node { old, new } => [old, new].into_iter().flatten().any(labelled),
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
