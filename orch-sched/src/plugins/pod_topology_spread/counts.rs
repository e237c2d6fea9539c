//! How many pods each topology domain has, kept up to date by the nodes that changed.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{Constraint, Spread, constraints, is_eligible, on_node};
use crate::{
    error::Fault,
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::{Cursor, Snapshot},
    standing::are_alike,
};

/// For how many kinds of pods counts are kept; the one longest out of use goes first.
const KINDS_MAX: usize = 64;

/// Counts of pods by domain.
pub(super) type Domains = HashMap<Arc<str>, i64, foldhash::fast::RandomState>;

/// The counts of every kind of pods that was asked for, last used first.
#[derive(Default)]
struct Kept(Vec<Kind>);

/// The constraints of pods that are alike with their counts.
struct Kind {
    sample: Arc<Pod>,
    when_unsatisfiable: &'static str,
    cursor: Cursor,
    constraints: Vec<Constraint>,
    counts: Vec<Counts>,
}

/// The counts of one constraint.
#[derive(Default)]
struct Counts {
    /// By position: the domain of a node that counts, and the pods on it.
    rows: Vec<Option<(Arc<str>, i64)>>,
    /// How many nodes that count each domain has.
    nodes: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    pods: Domains,
}

impl Counts {
    fn take_out(&mut self, position: usize) {
        let Some((domain, pods)) = self.rows.get_mut(position).and_then(Option::take) else {
            return;
        };
        if let Some(count) = self.pods.get_mut(&domain) {
            *count -= pods;
        }
        if let Some(nodes) = self.nodes.get_mut(&domain) {
            *nodes -= 1;
            if *nodes == 0 {
                self.nodes.remove(&domain);
                self.pods.remove(&domain);
            }
        }
    }

    fn put_in(&mut self, position: usize, value: &str, pods: i64) {
        let known = self.pods.get_key_value(value).map(|(domain, _)| domain.clone());
        let domain: Arc<str> = known.unwrap_or_else(|| value.into());
        *self.pods.entry(domain.clone()).or_default() += pods;
        *self.nodes.entry(domain.clone()).or_default() += 1;
        self.rows[position] = Some((domain, pods));
    }
}

impl Kind {
    fn new(pod: &PodInfo, when_unsatisfiable: &'static str) -> Result<Self, Fault> {
        let constraints = constraints(pod, when_unsatisfiable)?;
        let counts = constraints.iter().map(|_| Counts::default()).collect();
        let sample = pod.pod().clone();
        Ok(Self { sample, when_unsatisfiable, cursor: Cursor::default(), constraints, counts })
    }

    fn update(&mut self, pod: &PodInfo, snapshot: &Snapshot) {
        let nodes = snapshot.nodes();
        let rows = self.counts.iter().map(|counts| counts.rows.len()).max().unwrap_or(0);
        let rows = rows.max(nodes.len());
        let changed = snapshot.changed_since(&mut self.cursor);
        let changed = changed.unwrap_or_else(|| (0..rows).collect());
        self.counts.iter_mut().for_each(|counts| counts.rows.resize(rows, None));
        for position in changed.into_iter().filter(|position| *position < rows) {
            let node = nodes.get(position).filter(|node| is_labelled(node, &self.constraints));
            for (constraint, counts) in self.constraints.iter().zip(&mut self.counts) {
                counts.take_out(position);
                let Some(node) = node.filter(|node| is_eligible(constraint, pod, node)) else {
                    continue;
                };
                if let Some(value) = node.label(&constraint.topology_key) {
                    counts.put_in(position, value, on_node(constraint, pod, node));
                }
            }
        }
        self.counts.iter_mut().for_each(|counts| counts.rows.truncate(nodes.len()));
    }

    fn spreads(&self, pod: &PodInfo) -> Vec<Spread> {
        let of = |(constraint, counts): (&Constraint, &Counts)| Spread {
            domains: counts.pods.clone(),
            ..Spread::of(constraint.clone(), pod)
        };
        self.constraints.iter().zip(&self.counts).map(of).collect()
    }
}

/// Whether a node has the labels of all constraints: the pods of others do not count.
pub(super) fn is_labelled(node: &NodeInfo, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| node.label(&constraint.topology_key).is_some())
}

/// The pod's constraints of one kind, with the counts of all nodes.
pub(super) fn spreads(
    pod: &PodInfo,
    when_unsatisfiable: &'static str,
    snapshot: &Snapshot,
) -> Result<Vec<Spread>, Fault> {
    snapshot.keep(|kept: &mut Kept| {
        let found = kept.0.iter().position(|kind| {
            kind.when_unsatisfiable == when_unsatisfiable && are_alike(&kind.sample, pod.pod())
        });
        let mut kind = match found {
            Some(at) => kept.0.remove(at),
            None => Kind::new(pod, when_unsatisfiable)?,
        };
        kind.update(pod, snapshot);
        let spreads = kind.spreads(pod);
        kept.0.insert(0, kind);
        kept.0.truncate(KINDS_MAX);
        Ok(spreads)
    })
}
