//! What the pods on each node mean for one kind of pods, kept up to date by the nodes that changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::api::core::v1::Pod;

use super::{Terms, relations};
use crate::{
    node_info::{Changed, NodeInfo},
    pod_info::PodInfo,
    snapshot::{Cursor, Snapshot},
    standing::are_alike,
    unique::names_nodes,
};

/// For how many kinds of pods counts are kept; the one longest out of use goes first.
const KINDS_MAX: usize = 64;

/// What a pod that is placed is to a pod that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// It is what all of the pod's affinity terms are about.
    Wanted = 0,
    /// It is what one of the pod's anti-affinity terms is about.
    Unwanted = 1,
    /// One of its anti-affinity terms is about the pod.
    Unwilling = 2,
    /// It makes its surroundings better or worse, by weight.
    Scored = 3,
}

/// Sums by domain of one topology, for each relation.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    /// Every node that has the label is a domain of its own: nothing is kept by domain.
    pub(super) by_node: bool,
    /// How many contributions there are anywhere.
    contributions: [i64; 4],
    domains: [HashMap<Arc<str>, i64, foldhash::fast::RandomState>; 4],
}

impl Topology {
    /// Whether anything was added anywhere.
    pub(super) fn has(&self, relation: Relation) -> bool {
        self.contributions[relation as usize] != 0
    }

    fn add(&mut self, relation: Relation, value: &str, times: i64, amount: i64) {
        self.contributions[relation as usize] += times;
        if self.by_node {
            return;
        }
        let domains = &mut self.domains[relation as usize];
        match domains.get_mut(value) {
            Some(sum) => {
                *sum += times * amount;
                // Domains come and go with their nodes.
                if *sum == 0 {
                    domains.remove(value);
                }
            }
            None => drop(domains.insert(value.into(), times * amount)),
        }
    }

    fn sum(&self, relation: Relation, value: &str) -> i64 {
        self.domains[relation as usize].get(value).copied().unwrap_or(0)
    }
}

/// The sums of all topologies by their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) topologies: BTreeMap<Arc<str>, Topology>,
    /// Changes when there are other topologies, or other labels than before name nodes.
    pub(super) version: u64,
}

fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl Counts {
    /// Whether anything was added anywhere.
    pub(super) fn has(&self, relation: Relation) -> bool {
        self.topologies.values().any(|topology| topology.has(relation))
    }

    /// A pod came to a node, or left it (`times` is -1).
    pub(super) fn count(
        &mut self,
        terms: &Terms,
        pod: &PodInfo,
        other: &PodInfo,
        node: &NodeInfo,
        times: i64,
        by_node: &dyn Fn(&str) -> bool,
    ) {
        relations(terms, pod, other, &mut |relation, key, amount| {
            let Some(value) = node.label(key) else { return };
            if !self.topologies.contains_key(key) {
                let topology = Topology { by_node: by_node(key), ..Topology::default() };
                self.topologies.insert(key.into(), topology);
                self.version = next_version();
            }
            if let Some(topology) = self.topologies.get_mut(key) {
                topology.add(relation, value, times, amount);
            }
        });
    }

    /// The sum of a node's domain.
    pub(super) fn get(
        &self,
        (relation, key): (Relation, &str),
        terms: &Terms,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> i64 {
        let (Some(topology), Some(value)) = (self.topologies.get(key), node.label(key)) else {
            return 0;
        };
        if !topology.by_node {
            return topology.sum(relation, value);
        }
        if !topology.has(relation) {
            return 0;
        }
        let mut sum = 0;
        for other in node.pods() {
            relations(terms, pod, other, &mut |found, of, amount| {
                if found == relation && of == key {
                    sum += amount;
                }
            });
        }
        sum
    }
}

/// The counts of every kind of pods that was asked for, last used first.
#[derive(Default)]
struct Kept(Vec<Kind>);

struct Kind {
    sample: Arc<Pod>,
    cursor: Cursor,
    /// The nodes as they were counted, by position; none without pods.
    rows: Vec<Option<Arc<NodeInfo>>>,
    terms: Arc<Terms>,
    counts: Arc<Counts>,
}

impl Kind {
    fn new(pod: &PodInfo, terms: Terms, snapshot: &Snapshot) -> Self {
        let mut counts = Counts { version: next_version(), ..Counts::default() };
        for key in terms.affinity.iter().map(|term| &*term.topology_key) {
            let by_node = names_nodes(key, snapshot);
            counts.topologies.insert(key.into(), Topology { by_node, ..Topology::default() });
        }
        Self {
            sample: pod.pod().clone(),
            cursor: Cursor::default(),
            rows: Vec::new(),
            terms: Arc::new(terms),
            counts: Arc::new(counts),
        }
    }

    /// Whether the labels that named nodes still do, and no others.
    fn holds(&self, snapshot: &Snapshot) -> bool {
        let mut topologies = self.counts.topologies.iter();
        topologies.all(|(key, topology)| names_nodes(key, snapshot) == topology.by_node)
    }

    fn update(&mut self, pod: &PodInfo, snapshot: &Snapshot) {
        let nodes = snapshot.nodes();
        let changed = snapshot.changed_rows(&mut self.cursor, self.rows.len());
        self.rows.resize(changed.rows, None);
        for position in changed.positions {
            let after = nodes.get(position).filter(|node| !node.pods().is_empty());
            let before = std::mem::replace(&mut self.rows[position], after.cloned());
            self.recount(pod, before.as_deref(), after.map(|node| &**node), snapshot);
        }
        self.rows.truncate(nodes.len());
    }

    fn recount(
        &mut self,
        pod: &PodInfo,
        before: Option<&NodeInfo>,
        after: Option<&NodeInfo>,
        snapshot: &Snapshot,
    ) {
        let same = matches!(
            (before.and_then(NodeInfo::node), after.and_then(NodeInfo::node)),
            (Some(a), Some(b)) if Arc::ptr_eq(a, b)
        );
        let Changed { gone, come } = match (before, after) {
            (Some(before), Some(after)) if same => before.pods().changed(after.pods()),
            _ => Changed {
                gone: before.into_iter().flat_map(NodeInfo::pods).collect(),
                come: after.into_iter().flat_map(NodeInfo::pods).collect(),
            },
        };
        for (node, pods, times) in [(before, gone, -1), (after, come, 1)] {
            let Some(node) = node else { continue };
            for other in pods.iter().filter(|other| self.terms.may_concern(other)) {
                let by_node = |key: &str| names_nodes(key, snapshot);
                let counts = Arc::make_mut(&mut self.counts);
                counts.count(&self.terms, pod, other, node, times, &by_node);
            }
        }
    }
}

/// The kept terms and counts of pods that are alike and have these terms.
pub(super) fn counted(
    pod: &PodInfo,
    terms: Terms,
    snapshot: &Snapshot,
) -> (Arc<Terms>, Arc<Counts>) {
    snapshot.keep(|kept: &mut Kept| {
        let is_of = |kind: &Kind| are_alike(&kind.sample, pod.pod()) && *kind.terms == terms;
        let found = kept.0.iter().position(is_of).map(|at| kept.0.remove(at));
        let mut kind = match found.filter(|kind| kind.holds(snapshot)) {
            Some(kind) => kind,
            None => Kind::new(pod, terms, snapshot),
        };
        kind.update(pod, snapshot);
        let found = (kind.terms.clone(), kind.counts.clone());
        kept.0.insert(0, kind);
        kept.0.truncate(KINDS_MAX);
        found
    })
}
