//! How many pods each topology domain has, kept up to date by the nodes that changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::api::core::v1::Pod;
use smallvec::SmallVec;

use super::{Constraint, Spread, Spreads, constraints, is_counted, is_eligible, on_node};
use crate::{
    error::Fault,
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::{Cursor, Snapshot},
    standing::are_alike,
    unique::names_nodes,
};

/// For how many kinds of pods counts are kept; the one longest out of use goes first.
const KINDS_MAX: usize = 64;

/// Counts of pods by domain.
pub(super) type Domains = HashMap<Arc<str>, i64, foldhash::fast::RandomState>;

/// How the pods that a constraint is about are spread over the domains of eligible nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// `None` where every node is a domain of its own, and has its count itself.
    pub(super) domains: Option<Arc<Domains>>,
    /// How many domains have so many pods.
    sizes: BTreeMap<i64, usize>,
}

impl Tally {
    /// How many domains there are.
    pub(super) fn len(&self) -> usize {
        self.sizes.values().sum()
    }

    /// The pods of the emptiest domain. With fewer domains than asked for, an empty one is taken to
    /// exist elsewhere.
    pub(super) fn least(&self, min_domains: i64) -> i64 {
        let few = min_domains > 1 && (self.len() as i64) < min_domains;
        if few { 0 } else { self.sizes.keys().next().copied().unwrap_or(0) }
    }

    /// A domain of so many pods has so many now.
    pub(super) fn shift(&mut self, before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(count) = self.sizes.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.sizes.remove(&before);
            }
        }
        if let Some(after) = after {
            *self.sizes.entry(after).or_default() += 1;
        }
    }
}

/// The counts of every kind of pods that was asked for, last used first.
#[derive(Default)]
struct Kept(Vec<Kind>);

/// The constraints of pods that are alike with their counts.
struct Kind {
    sample: Arc<Pod>,
    when_unsatisfiable: &'static str,
    cursor: Cursor,
    spreads: Spreads,
    /// How many nodes that count each domain has, by constraint.
    nodes: Vec<HashMap<Arc<str>, usize, foldhash::fast::RandomState>>,
    /// By position: a node that has all labels, and the pods on it, where it counts.
    rows: Vec<Option<(Arc<NodeInfo>, PodsByConstraint)>>,
}

type PodsByConstraint = SmallVec<[Option<i64>; 2]>;

impl Kind {
    fn new(
        pod: &PodInfo,
        when_unsatisfiable: &'static str,
        snapshot: &Snapshot,
        defaults: Option<(Vec<Constraint>, bool)>,
    ) -> Result<Self, Fault> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (constraints, lenient) = match defaults {
            Some(defaults) => defaults,
            None => (constraints(pod, when_unsatisfiable)?, false),
        };
        let spread = |constraint: Constraint| {
            let by_node = names_nodes(&constraint.topology_key, snapshot);
            let domains = (!by_node).then(Arc::default);
            Spread::of(constraint, pod, Tally { domains, ..Tally::default() })
        };
        let nodes = constraints.iter().map(|_| HashMap::default()).collect();
        let all = constraints.into_iter().map(spread).collect();
        Ok(Self {
            sample: pod.pod().clone(),
            when_unsatisfiable,
            cursor: Cursor::default(),
            spreads: Spreads { all, lenient, version: NEXT.fetch_add(1, Relaxed) },
            nodes,
            rows: Vec::new(),
        })
    }

    /// Whether the labels that named nodes still do, and no others.
    fn holds(&self, snapshot: &Snapshot) -> bool {
        self.spreads.all.iter().all(|spread| {
            names_nodes(&spread.constraint.topology_key, snapshot) == spread.tally.domains.is_none()
        })
    }

    fn update(&mut self, pod: &PodInfo, snapshot: &Snapshot) {
        let nodes = snapshot.nodes();
        let changed = snapshot.changed_rows(&mut self.cursor, self.rows.len());
        self.rows.resize(changed.rows, None);
        for position in changed.positions {
            let before = self.rows[position].take();
            let after = nodes.get(position).filter(|node| self.spreads.are_labels_of(node));
            let same = |(before, _): &(Arc<NodeInfo>, _)| {
                after.is_some_and(|after| is_same_node(before, after))
            };
            match (before, after) {
                (Some(before), Some(after)) if same(&before) => {
                    self.rows[position] = Some(self.recount(pod, before, after));
                }
                (before, after) => {
                    if let Some((node, pods)) = before {
                        self.take_out(&node, &pods);
                    }
                    self.rows[position] = after.map(|node| self.put_in(pod, node));
                }
            }
        }
        self.rows.truncate(nodes.len());
    }

    /// Only the pods of the node changed.
    fn recount(
        &mut self,
        pod: &PodInfo,
        (before, mut pods): (Arc<NodeInfo>, PodsByConstraint),
        after: &Arc<NodeInfo>,
    ) -> (Arc<NodeInfo>, PodsByConstraint) {
        let changed = before.pods().changed(after.pods());
        for (spread, pods) in self.spreads.all.iter_mut().zip(&mut pods) {
            let Some(pods) = pods else { continue };
            let count = |others: &[&Arc<PodInfo>]| {
                others.iter().filter(|o| is_counted(&spread.constraint, pod, o)).count() as i64
            };
            let by = count(&changed.come) - count(&changed.gone);
            if by != 0 {
                spread.add(after, *pods, by);
                *pods += by;
            }
        }
        (after.clone(), pods)
    }

    fn put_in(&mut self, pod: &PodInfo, node: &Arc<NodeInfo>) -> (Arc<NodeInfo>, PodsByConstraint) {
        let mut all = PodsByConstraint::new();
        for (spread, nodes) in self.spreads.all.iter_mut().zip(&mut self.nodes) {
            if !is_eligible(&spread.constraint, pod, node) {
                all.push(None);
                continue;
            }
            let pods = on_node(&spread.constraint, pod, node);
            all.push(Some(pods));
            let Some(domains) = &mut spread.tally.domains else {
                spread.tally.shift(None, Some(pods));
                continue;
            };
            let value = node.label(&spread.constraint.topology_key).unwrap_or_default();
            if let Some(count) = nodes.get_mut(value) {
                *count += 1;
                spread.add(node, pods, pods);
            } else {
                let value: Arc<str> = value.into();
                nodes.insert(value.clone(), 1);
                Arc::make_mut(domains).insert(value, pods);
                spread.tally.shift(None, Some(pods));
            }
        }
        (node.clone(), all)
    }

    fn take_out(&mut self, node: &NodeInfo, pods: &PodsByConstraint) {
        let all = self.spreads.all.iter_mut().zip(&mut self.nodes).zip(pods);
        for ((spread, nodes), pods) in all {
            let Some(pods) = pods else { continue };
            let Some(domains) = &mut spread.tally.domains else {
                spread.tally.shift(Some(*pods), None);
                continue;
            };
            let value = node.label(&spread.constraint.topology_key).unwrap_or_default();
            let Some(count) = nodes.get_mut(value) else { continue };
            *count -= 1;
            if *count > 0 {
                spread.add(node, *pods, -pods);
                continue;
            }
            nodes.remove(value);
            let had = Arc::make_mut(domains).remove(value);
            spread.tally.shift(had, None);
        }
    }
}

/// Whether two states are of the same node, with nothing but its pods changed.
fn is_same_node(before: &NodeInfo, after: &NodeInfo) -> bool {
    matches!((before.node(), after.node()), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
}

/// The pod's constraints of one kind, with the counts of all nodes. Pods that have none of their own
/// may be alike and differ in the defaults, which are by what they belong to.
pub(super) fn spreads(
    pod: &PodInfo,
    when_unsatisfiable: &'static str,
    snapshot: &Snapshot,
    defaults: Option<(Vec<Constraint>, bool)>,
) -> Result<Spreads, Fault> {
    snapshot.keep(|kept: &mut Kept| {
        let found = kept.0.iter().position(|kind| {
            kind.when_unsatisfiable == when_unsatisfiable
                && are_alike(&kind.sample, pod.pod())
                && defaults.as_ref().is_none_or(|(constraints, lenient)| {
                    kind.spreads.lenient == *lenient
                        && kind.spreads.all.iter().map(|spread| &*spread.constraint).eq(constraints)
                })
        });
        let known = found.map(|at| kept.0.remove(at)).filter(|kind| kind.holds(snapshot));
        let mut kind = match known {
            Some(kind) => kind,
            None => Kind::new(pod, when_unsatisfiable, snapshot, defaults)?,
        };
        kind.update(pod, snapshot);
        let spreads = kind.spreads.clone();
        kept.0.insert(0, kind);
        kept.0.truncate(KINDS_MAX);
        Ok(spreads)
    })
}
