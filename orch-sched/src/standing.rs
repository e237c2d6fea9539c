//! What is known about every node for one kind of pod, kept from pod to pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Container, Pod};
use smallvec::SmallVec;

use crate::{
    framework::{Failure, Rejection},
    node_info::NodeInfo,
    plugin::GroupKey,
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
        bucket: usize,
        slot: usize,
        scored: Option<Scored>,
    },
}

/// Nodes of the same raw scores: positions by sum. Usually there are few such groups.
pub(crate) type Group = BTreeMap<i64, Vec<usize>>;

/// The nodes that fit and that plugins with a [`Grouping`](crate::Grouping) cannot tell apart.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    key: GroupKey,
    members: Vec<usize>,
    groups: BTreeMap<Raw, Group>,
}

impl Bucket {
    /// The positions of the nodes, in no particular order.
    pub(crate) fn members(&self) -> &[usize] {
        &self.members
    }

    fn take_score(&mut self, scored: &Scored) -> Option<usize> {
        let group = self.groups.get_mut(&scored.raw)?;
        let ties = group.get_mut(&scored.sum)?;
        ties.swap_remove(scored.tie);
        let moved = ties.get(scored.tie).copied();
        if ties.is_empty() {
            group.remove(&scored.sum);
            if group.is_empty() {
                self.groups.remove(&scored.raw);
            }
        }
        moved
    }
}

/// Whose answers a standing consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The filters, by their places in the profile.
    pub(crate) filters: Vec<usize>,
    /// The versions of the plugins' groups.
    pub(crate) versions: SmallVec<[u64; 4]>,
}

/// Where all nodes stand for pods that are alike: which fit and how good they are, in the order of
/// their scores. Only nodes that changed are looked at again.
#[derive(Debug)]
pub(crate) struct Standing {
    sample: Arc<Pod>,
    cursor: Cursor,
    asked: Asked,
    scorers: Vec<usize>,
    rows: Vec<Row>,
    /// Empty ones are used again.
    buckets: Vec<Bucket>,
    by_key: HashMap<GroupKey, usize, foldhash::fast::RandomState>,
    empty: Vec<usize>,
    /// Positions without scores.
    stale: Vec<usize>,
    /// Positions whose row holds for one pod only.
    overruled: Vec<usize>,
}

impl Standing {
    pub(crate) fn new(sample: Arc<Pod>) -> Self {
        Self {
            sample,
            cursor: Cursor::default(),
            asked: Asked::default(),
            scorers: Vec::new(),
            rows: Vec::new(),
            buckets: Vec::new(),
            by_key: HashMap::default(),
            empty: Vec::new(),
            stale: Vec::new(),
            overruled: Vec::new(),
        }
    }

    /// Whether this is about such pods.
    pub(crate) fn is_of(&self, pod: &PodInfo) -> bool {
        are_alike(&self.sample, pod.pod())
    }

    /// Whether these plugins were asked, in these versions.
    pub(crate) fn is_about(&self, asked: &Asked) -> bool {
        self.asked == *asked
    }

    /// The nodes that fit, in their groups, each with its place.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.members.is_empty())
    }

    /// The positions of the nodes of one bucket.
    pub(crate) fn members(&self, bucket: usize) -> &[usize] {
        &self.buckets[bucket].members
    }

    /// The nodes of one bucket by their scores, after [`Standing::rescore`].
    pub(crate) fn groups(&self, bucket: usize) -> &BTreeMap<Raw, Group> {
        &self.buckets[bucket].groups
    }

    /// The nodes of one bucket and the same raw scores.
    pub(crate) fn group(&self, bucket: usize, raw: &Raw) -> Option<&Group> {
        self.buckets.get(bucket)?.groups.get(raw)
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

    /// Looks again at the nodes that changed: each is ruled out or has its group. After an error
    /// nothing here may be used.
    pub(crate) fn refilter(
        &mut self,
        snapshot: &Snapshot,
        asked: Asked,
        look: impl Fn(&NodeInfo) -> Result<Result<GroupKey, Rejection>, Failure>,
    ) -> Result<(), Failure> {
        if self.asked != asked {
            *self = Self::new(self.sample.clone());
            self.asked = asked;
        }
        let nodes = snapshot.nodes();
        let changed = snapshot.changed_rows(&mut self.cursor, self.rows.len());
        self.rows.resize_with(changed.rows, Row::default);
        let mut overruled = std::mem::take(&mut self.overruled);
        overruled.retain(|position| *position < changed.rows);
        for position in changed.positions.into_iter().chain(overruled) {
            self.take_out(position);
            let Some(node) = nodes.get(position) else { continue };
            self.rows[position] = match look(node)? {
                Err(rejection) => Row::Out(rejection),
                Ok(key) => self.put_in(position, key),
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

    /// Rules a node out for the pod at hand. The next one of its kind is looked at anew there.
    pub(crate) fn overrule(&mut self, position: usize, rejection: Rejection) {
        self.take_out(position);
        self.rows[position] = Row::Out(rejection);
        self.overruled.push(position);
    }

    /// Asks for the scores that are missing. After an error nothing here may be used.
    pub(crate) fn rescore(
        &mut self,
        snapshot: &Snapshot,
        scorers: &[usize],
        score: impl Fn(&NodeInfo) -> Result<Scored, Failure>,
    ) -> Result<(), Failure> {
        if self.scorers != scorers {
            self.scorers = scorers.to_vec();
            self.forget_scores();
        }
        for position in std::mem::take(&mut self.stale) {
            // A node that changed twice is here twice, and one that fits no more may be.
            let row = self.rows.get_mut(position);
            let Some(Row::In { bucket, scored: scored @ None, .. }) = row else { continue };
            let mut own = score(&snapshot.nodes()[position])?;
            let group = self.buckets[*bucket].groups.entry(own.raw.clone()).or_default();
            let ties = group.entry(own.sum).or_default();
            own.tie = ties.len();
            ties.push(position);
            *scored = Some(own);
        }
        Ok(())
    }

    fn forget_scores(&mut self) {
        self.stale.clear();
        for (position, row) in self.rows.iter_mut().enumerate() {
            if let Row::In { scored, .. } = row {
                *scored = None;
                self.stale.push(position);
            }
        }
        self.buckets.iter_mut().for_each(|bucket| bucket.groups.clear());
    }

    fn put_in(&mut self, position: usize, key: GroupKey) -> Row {
        let bucket = match self.by_key.get(&key) {
            Some(bucket) => *bucket,
            None => {
                let at = self.empty.pop().unwrap_or(self.buckets.len());
                if at == self.buckets.len() {
                    self.buckets.push(Bucket::default());
                }
                self.by_key.insert(key.clone(), at);
                self.buckets[at].key = key;
                at
            }
        };
        let members = &mut self.buckets[bucket].members;
        members.push(position);
        self.stale.push(position);
        Row::In { bucket, slot: members.len() - 1, scored: None }
    }

    fn take_out(&mut self, position: usize) {
        let row = std::mem::take(&mut self.rows[position]);
        let Row::In { bucket: at, slot, scored } = row else { return };
        let bucket = &mut self.buckets[at];
        bucket.members.swap_remove(slot);
        if let Some(moved) = bucket.members.get(slot)
            && let Row::In { slot: own, .. } = &mut self.rows[*moved]
        {
            *own = slot;
        }
        if let Some(scored) = scored
            && let Some(moved) = bucket.take_score(&scored)
            && let Row::In { scored: Some(own), .. } = &mut self.rows[moved]
        {
            own.tie = scored.tie;
        }
        if bucket.members.is_empty() {
            self.by_key.remove(&bucket.key);
            self.empty.push(at);
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
                && a.restart_policy_rules == b.restart_policy_rules
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
        && a.host_network == b.host_network
        && a.host_users == b.host_users
}
