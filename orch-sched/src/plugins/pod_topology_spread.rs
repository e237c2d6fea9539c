//! Pods spread evenly over topology domains.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};
use orch_core::selector::{Operator, Selector};

use self::counts::{Domains, is_labelled, spreads};
use super::{node_affinity::node_fits, tolerates};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{
        EventsToRegister, Filter, Plugin, PreFilter, PreFiltered, PreScore, SCORE_MAX, Score,
    },
    pod_info::{PodInfo, with_pod_labels},
    snapshot::Snapshot,
    verdict::Verdict,
};

mod counts;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Source: `pkg/scheduler/framework/plugins/podtopologyspread`.
/// Differs: no default constraints for pods that have none of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTopologySpread;

#[derive(Clone, Debug)]
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
    constraint: Constraint,
    domains: Domains,
    /// Whether the pod counts in its own domain.
    itself: i64,
}

/// The constraints, each with the pods of its emptiest domain.
#[derive(Clone, Debug)]
struct FilterState(Vec<(Spread, i64)>);

impl FilterState {
    fn new(spreads: Vec<Spread>) -> Self {
        Self(
            spreads
                .into_iter()
                .map(|spread| {
                    let least = spread.least();
                    (spread, least)
                })
                .collect(),
        )
    }

    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        for (spread, least) in &mut self.0 {
            spread.count(pod, other, node, by);
            *least = spread.least();
        }
    }
}

#[derive(Clone, Debug)]
struct ScoreState {
    spreads: Vec<(Spread, f64)>,
    /// Nodes that lack a label, and so cannot be ranked.
    ignored: BTreeSet<Arc<str>>,
}

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

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

fn all(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref());
    constraints.unwrap_or_default()
}

fn constraints(pod: &PodInfo, when_unsatisfiable: &str) -> Result<Vec<Constraint>, Fault> {
    let of = |constraint: &TopologySpreadConstraint| {
        let selector = Selector::from_label_selector(constraint.label_selector.as_ref())?;
        let keys = (constraint.match_label_keys.as_deref(), Operator::In);
        Ok(Constraint {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector: with_pod_labels(selector, pod.pod(), &[keys])?,
            min_domains: constraint.min_domains.unwrap_or(1).into(),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        })
    };
    let wanted = all(pod).iter().filter(|c| c.when_unsatisfiable == when_unsatisfiable);
    wanted.map(of).collect()
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
    /// Before anything is counted.
    fn of(constraint: Constraint, pod: &PodInfo) -> Self {
        let itself = i64::from(constraint.selector.matches(pod.labels()));
        Self { constraint, domains: Domains::default(), itself }
    }

    /// With fewer domains than asked for, an empty one is taken to exist elsewhere.
    fn least(&self) -> i64 {
        let few = (self.domains.len() as i64) < self.constraint.min_domains;
        if few { 0 } else { self.domains.values().copied().min().unwrap_or(0) }
    }

    /// Leaves out the domains in which none of these nodes is.
    fn keep_domains_of(&mut self, nodes: &[&Arc<NodeInfo>], pod: &PodInfo) {
        let mut seen = Domains::default();
        for node in nodes.iter().filter(|node| is_eligible(&self.constraint, pod, node)) {
            let Some(value) = node.label(&self.constraint.topology_key) else { continue };
            if !seen.contains_key(value)
                && let Some((domain, count)) = self.domains.get_key_value(value)
            {
                seen.insert(domain.clone(), *count);
            }
        }
        self.domains = seen;
    }

    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        if !is_counted(&self.constraint, pod, other) || !is_eligible(&self.constraint, pod, node) {
            return;
        }
        let value = node.label(&self.constraint.topology_key);
        if let Some(count) = value.and_then(|value| self.domains.get_mut(value)) {
            *count += by;
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
        if !all(pod).iter().any(|c| c.when_unsatisfiable == "DoNotSchedule") {
            return Ok(Verdict::Skip.into());
        }
        state.insert(FilterState::new(spreads(pod, "DoNotSchedule", snapshot)?));
        Ok(Verdict::Success.into())
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

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let FilterState(spreads) = state.get().ok_or("PreFilter did not run")?;
        for (Spread { constraint, domains, itself }, least) in spreads {
            let Some(value) = node.label(&constraint.topology_key) else {
                return Ok(Verdict::unresolvable(MISSING_LABEL));
            };
            let here = domains.get(value).copied().unwrap_or(0);
            if here + itself - least > constraint.max_skew {
                return Ok(Verdict::unschedulable(REASON));
            }
        }
        Ok(Verdict::Success)
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault> {
        if !all(pod).iter().any(|c| c.when_unsatisfiable == "ScheduleAnyway") {
            return Ok(Verdict::Skip);
        }
        let mut spreads = spreads(pod, "ScheduleAnyway", snapshot)?;
        let constraints: Vec<_> = spreads.iter().map(|spread| spread.constraint.clone()).collect();
        let (ranked, lacking): (Vec<_>, Vec<_>) =
            nodes.iter().partition(|node| is_labelled(node, &constraints));
        let ignored: BTreeSet<_> = lacking.iter().map(|node| node.name().clone()).collect();
        if nodes.len() < snapshot.nodes().len() {
            spreads.iter_mut().for_each(|spread| spread.keep_domains_of(&ranked, pod));
        }
        let weighed = spreads.into_iter().map(|spread| {
            // Nodes are counted one by one in Score, even if they share a name.
            let by_node = spread.constraint.topology_key == HOSTNAME;
            let size = if by_node { ranked.len() } else { spread.domains.len() };
            // The more domains, the less one more pod in one of them matters.
            (spread, (size as f64 + 2.0).ln())
        });
        let spreads = weighed.collect();
        state.insert(ScoreState { spreads, ignored });
        Ok(Verdict::Success)
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let own = state.get::<ScoreState>().ok_or("PreScore did not run")?;
        if own.ignored.contains(node.name()) {
            return Ok(0);
        }
        let mut score = 0.0;
        for (spread, weight) in &own.spreads {
            let key = &spread.constraint.topology_key;
            let count = if key == HOSTNAME {
                on_node(&spread.constraint, pod, node)
            } else {
                let value = node.label(key);
                value.and_then(|value| spread.domains.get(value)).copied().unwrap_or(0)
            };
            score += count as f64 * weight + (spread.constraint.max_skew - 1) as f64;
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
        let own = state.get::<ScoreState>().ok_or("PreScore did not run")?;
        let ranked = |node: &Arc<NodeInfo>| !own.ignored.contains(node.name());
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
        let constraints = constraints(pod, "DoNotSchedule").unwrap_or_default();
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
