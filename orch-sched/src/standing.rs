//! What is known about every node for one kind of pod, kept from pod to pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};
use smallvec::SmallVec;

use crate::{
    framework::{Failure, Rejection},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::{Cursor, Snapshot},
};

/// The scores of a node that still have to be normalized, in the order of their plugins.
pub(crate) type Raw = SmallVec<[i64; 2]>;

/// One node's scores as far as they last until the node changes.
#[derive(Debug)]
pub(crate) struct Scored {
    /// The weighted sum of the scores that are final.
    pub(crate) sum: i64,
    /// What is still to be normalized.
    pub(crate) raw: Raw,
    /// Where the node is among those of the same scores.
    tie: usize,
}

impl Scored {
    pub(crate) fn new(sum: i64, raw: Raw) -> Self {
        Self { sum, raw, tie: 0 }
    }
}

#[derive(Debug, Default)]
enum Row {
    #[default]
    Unknown,
    Out(Rejection),
    In {
        slot: usize,
        scored: Option<Scored>,
    },
}

/// Nodes of the same raw scores: positions by sum. Usually there are few such groups.
pub(crate) type Group = BTreeMap<i64, Vec<usize>>;

/// Where all nodes stand for pods that are alike: which fit and how good they are, in the order of
/// their scores. Only nodes that changed are looked at again.
#[derive(Debug)]
pub(crate) struct Standing {
    sample: Arc<Pod>,
    cursor: Cursor,
    /// The plugins that were asked, by their places in the profile.
    filters: Vec<usize>,
    scorers: Vec<usize>,
    rows: Vec<Row>,
    feasible: Vec<Arc<NodeInfo>>,
    /// The position of each feasible node.
    positions: Vec<usize>,
    /// Positions without scores.
    stale: Vec<usize>,
    groups: BTreeMap<Raw, Group>,
}

impl Standing {
    pub(crate) fn new(sample: Arc<Pod>) -> Self {
        Self {
            sample,
            cursor: Cursor::default(),
            filters: Vec::new(),
            scorers: Vec::new(),
            rows: Vec::new(),
            feasible: Vec::new(),
            positions: Vec::new(),
            stale: Vec::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Whether this is about such pods.
    pub(crate) fn is_of(&self, pod: &PodInfo) -> bool {
        are_alike(&self.sample, pod.pod())
    }

    /// The nodes that fit, in no particular order, and the position of each.
    pub(crate) fn feasible(&self) -> (&[Arc<NodeInfo>], &[usize]) {
        (&self.feasible, &self.positions)
    }

    /// What ruled the other nodes out.
    pub(crate) fn rejections(&self) -> Vec<Rejection> {
        let out = |row: &Row| match row {
            Row::Out(rejection) => Some(rejection.clone()),
            _ => None,
        };
        self.rows.iter().filter_map(out).collect()
    }

    /// The scores of a node that fits, after [`Standing::rescore`].
    pub(crate) fn scored(&self, position: usize) -> Option<&Scored> {
        match self.rows.get(position)? {
            Row::In { scored, .. } => scored.as_ref(),
            _ => None,
        }
    }

    /// The nodes that fit, by their scores.
    pub(crate) fn groups(&self) -> &BTreeMap<Raw, Group> {
        &self.groups
    }

    /// Looks again at the nodes that changed. After an error nothing here may be used.
    pub(crate) fn refilter(
        &mut self,
        snapshot: &Snapshot,
        filters: &[usize],
        rejection: impl Fn(&NodeInfo) -> Result<Option<Rejection>, Failure>,
    ) -> Result<(), Failure> {
        if self.filters != filters {
            *self = Self::new(self.sample.clone());
            self.filters = filters.to_vec();
        }
        let nodes = snapshot.nodes();
        let changed = snapshot.changed_since(&mut self.cursor);
        let changed = changed.unwrap_or_else(|| (0..nodes.len().max(self.rows.len())).collect());
        let rows = nodes.len().max(self.rows.len());
        self.rows.resize_with(rows, Row::default);
        for position in changed.into_iter().filter(|position| *position < rows) {
            self.take_out(position);
            let Some(node) = nodes.get(position) else { continue };
            self.rows[position] = match rejection(node)? {
                Some(rejection) => Row::Out(rejection),
                None => {
                    self.feasible.push(node.clone());
                    self.positions.push(position);
                    self.stale.push(position);
                    Row::In { slot: self.feasible.len() - 1, scored: None }
                }
            };
        }
        self.rows.truncate(nodes.len());
        if self.stale.len() > 2 * nodes.len() {
            // Such pods fit nowhere for long: nobody asked for the scores.
            self.stale.sort_unstable();
            self.stale.dedup();
        }
        Ok(())
    }

    /// Asks for the scores that are missing. After an error nothing here may be used.
    pub(crate) fn rescore(
        &mut self,
        scorers: &[usize],
        score: impl Fn(&NodeInfo) -> Result<Scored, Failure>,
    ) -> Result<(), Failure> {
        if self.scorers != scorers {
            self.scorers = scorers.to_vec();
            self.groups.clear();
            self.stale = self.positions.clone();
            for row in &mut self.rows {
                if let Row::In { scored, .. } = row {
                    *scored = None;
                }
            }
        }
        for position in std::mem::take(&mut self.stale) {
            // A node that changed twice is here twice, and one that fits no more may be.
            let Some(Row::In { slot, scored: scored @ None }) = self.rows.get_mut(position) else {
                continue;
            };
            let mut own = score(&self.feasible[*slot])?;
            let group = self.groups.entry(own.raw.clone()).or_default();
            let ties = group.entry(own.sum).or_default();
            own.tie = ties.len();
            ties.push(position);
            *scored = Some(own);
        }
        Ok(())
    }

    fn take_out(&mut self, position: usize) {
        let Row::In { slot, scored } = std::mem::take(&mut self.rows[position]) else { return };
        self.feasible.swap_remove(slot);
        self.positions.swap_remove(slot);
        if let Some(moved) = self.positions.get(slot)
            && let Row::In { slot: at, .. } = &mut self.rows[*moved]
        {
            *at = slot;
        }
        let Some(Scored { sum, raw, tie }) = scored else { return };
        let Some(group) = self.groups.get_mut(&raw) else { return };
        let Some(ties) = group.get_mut(&sum) else { return };
        ties.swap_remove(tie);
        if let Some(moved) = ties.get(tie) {
            if let Row::In { scored: Some(moved), .. } = &mut self.rows[*moved] {
                moved.tie = tie;
            }
        } else if ties.is_empty() {
            group.remove(&sum);
        }
        if group.is_empty() {
            self.groups.remove(&raw);
        }
    }
}

/// Whether two pods are the same for plugins whose answers are reused, see
/// [`Reuse`](crate::Reuse).
pub(crate) fn are_alike(a: &Pod, b: &Pod) -> bool {
    let (one, other) = (&a.metadata, &b.metadata);
    if one.namespace != other.namespace || one.labels != other.labels {
        return false;
    }
    let (Some(a), Some(b)) = (&a.spec, &b.spec) else { return a.spec == b.spec };
    let same = |a: &[Container], b: &[Container]| {
        let alike = |(a, b): (&Container, &Container)| {
            a.resources == b.resources
                && a.image == b.image
                && a.ports == b.ports
                && a.restart_policy == b.restart_policy
        };
        a.len() == b.len() && a.iter().zip(b).all(alike)
    };
    same(&a.containers, &b.containers)
        && same(
            a.init_containers.as_deref().unwrap_or_default(),
            b.init_containers.as_deref().unwrap_or_default(),
        )
        && a.node_name == b.node_name
        && a.node_selector == b.node_selector
        && a.affinity == b.affinity
        && a.tolerations == b.tolerations
        && a.topology_spread_constraints == b.topology_spread_constraints
        && a.resources == b.resources
        && a.overhead == b.overhead
}
