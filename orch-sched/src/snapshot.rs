//! The cluster as one scheduling cycle sees it.

use std::{
    any::{Any, TypeId},
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use orch_core::{
    claim,
    selector::{Operator, Selector},
};
use parking_lot::Mutex;

use crate::{
    devices::Frozen,
    node_info::{NodeInfo, NodePods},
    nominations::ByNode,
    pod_info::PodInfo,
};

/// A pod and where it runs.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The name of its node.
    pub node: Arc<str>,
}

/// The claims that a pod uses, with its namespace.
fn claims_of(pod: &PodInfo) -> impl Iterator<Item = (String, String)> {
    let has_volumes = pod.spec().is_some_and(|spec| spec.volumes.is_some());
    let claims = has_volumes.then(|| claim::claims_of(pod.pod())).into_iter().flatten();
    claims.map(|claim| (pod.namespace().to_owned(), claim.name))
}

fn goes_ahead(other: &PodInfo, pod: &PodInfo) -> bool {
    other.priority() >= pod.priority() && other.uid() != pod.uid()
}

type Pods = HashMap<Arc<str>, Placed, foldhash::fast::RandomState>;

/// The cluster as one scheduling cycle sees it: every node with its pods, and indexes over the pods
/// so that a plugin need not visit them all. Kept up to date by what changed since the cycle before.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<Arc<NodeInfo>>,
    positions: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    by_namespace: HashMap<String, Pods>,
    /// Namespace, label key, label value.
    by_label: HashMap<(String, String, String), Pods>,
    /// How many pods use each claim, by namespace and name.
    claims: HashMap<(String, String), usize>,
    with_affinity: Pods,
    with_required_anti_affinity: Pods,
    images: HashMap<String, usize>,
    nominated: ByNode,
    changes: Changes,
    /// For the first who asks: nobody else is to keep them from changing in place.
    devices: Mutex<Option<Frozen>>,
    /// What plugins keep from cycle to cycle, by type.
    kept: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

/// How many changes are remembered at least; one who missed more looks at all nodes again.
const CHANGES_MIN: usize = 1024;

/// Which positions changed, oldest first.
#[derive(Debug)]
struct Changes {
    /// No two snapshots of a process have the same.
    snapshot: u64,
    positions: VecDeque<usize>,
    /// How many are no longer remembered.
    forgotten: u64,
}

impl Default for Changes {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let snapshot = NEXT.fetch_add(1, Relaxed);
        Self { snapshot, positions: VecDeque::new(), forgotten: 0 }
    }
}

/// Up to where the changes of a snapshot were seen. The default has seen nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    snapshot: u64,
    seen: u64,
}

/// Which rows to look at again, see [`Snapshot::changed_rows`].
pub(crate) struct ChangedRows {
    pub(crate) rows: usize,
    pub(crate) positions: Vec<usize>,
}

impl Snapshot {
    /// A snapshot of these nodes, for tests of plugins.
    pub fn of(nodes: impl IntoIterator<Item = NodeInfo>) -> Self {
        let mut snapshot = Self::default();
        nodes.into_iter().for_each(|node| snapshot.set(&Arc::new(node)));
        snapshot
    }

    /// All nodes, in no particular order.
    pub fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.positions.get(name).map(|position| &self.nodes[*position])
    }

    /// The pods that have affinity or anti-affinity terms, required or preferred.
    pub fn pods_with_affinity(&self) -> impl Iterator<Item = &Placed> {
        self.with_affinity.values()
    }

    /// The pods that have required anti-affinity terms.
    pub fn pods_with_required_anti_affinity(&self) -> impl Iterator<Item = &Placed> {
        self.with_required_anti_affinity.values()
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Whether a placed pod uses a claim.
    pub fn is_claim_used(&self, namespace: &str, claim: &str) -> bool {
        !self.claims.is_empty()
            && self.claims.contains_key(&(namespace.to_owned(), claim.to_owned()))
    }

    /// The pods for which room is being made on a node.
    pub fn nominated_to(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map_or(&[], |pods| pods)
    }

    /// The node on which room is being made for a pod.
    pub(crate) fn nomination_of(&self, pod: &PodInfo) -> Option<&str> {
        let mut nominated = self.nominated.iter();
        let own = nominated.find(|(_, pods)| pods.iter().any(|other| other.uid() == pod.uid()));
        own.map(|(node, _)| &**node)
    }

    /// The pods of the same priority or a higher one for which room is being made on a node: they
    /// are there as far as this pod is concerned.
    pub(crate) fn ahead_of<'a>(
        &'a self,
        pod: &'a PodInfo,
        node: &str,
    ) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.nominated_to(node).iter().filter(|other| goes_ahead(other, pod))
    }

    /// The positions of the nodes where others are ahead of this pod.
    pub(crate) fn contested(&self, pod: &PodInfo) -> Vec<usize> {
        let contested = self
            .nominated
            .iter()
            .filter(|(_, pods)| pods.iter().any(|other| goes_ahead(other, pod)));
        contested.filter_map(|(node, _)| self.positions.get(node).copied()).collect()
    }

    pub(crate) fn nominated_mut(&mut self) -> &mut ByNode {
        &mut self.nominated
    }

    /// Whether any node has any image.
    pub(crate) fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// The pods of these namespaces that a selector matches, found through the most useful of its
    /// conditions.
    pub fn matching<'a>(
        &'a self,
        namespaces: &'a BTreeSet<String>,
        selector: &'a Selector,
    ) -> Box<dyn Iterator<Item = &'a Placed> + 'a> {
        if selector.is_nothing() {
            return Box::new(std::iter::empty());
        }
        let exact = selector.requirements().iter().find(|requirement| {
            let operator = requirement.operator();
            matches!(operator, Operator::In | Operator::Equals | Operator::DoubleEquals)
        });
        let matches = |placed: &&Placed| selector.matches(placed.pod.labels());
        let Some(exact) = exact else {
            let pods = namespaces.iter().filter_map(|namespace| self.by_namespace.get(namespace));
            return Box::new(pods.flat_map(HashMap::values).filter(matches));
        };
        let labels = namespaces.iter().flat_map(move |namespace| {
            let label =
                move |value: &String| (namespace.clone(), exact.key().to_owned(), value.clone());
            exact.values().iter().map(label)
        });
        let pods = labels.filter_map(|label| self.by_label.get(&label));
        Box::new(pods.flat_map(HashMap::values).filter(matches))
    }

    /// The rows to look at again for somebody who keeps one for each node, `have` of them so far: those
    /// of nodes that changed since the cursor was here, some twice, and those past the last node.
    /// `rows` is how many there must be while they are looked at; afterwards one for each node.
    pub(crate) fn changed_rows(&self, cursor: &mut Cursor, have: usize) -> ChangedRows {
        let rows = self.nodes.len().max(have);
        let changed = self.changed_since(cursor);
        let mut positions = changed.unwrap_or_else(|| (0..rows).collect());
        positions.retain(|position| *position < rows);
        ChangedRows { rows, positions }
    }

    /// The positions of the nodes that changed since the cursor was here, some of them twice and
    /// some past the last node; `None` if any may have changed.
    fn changed_since(&self, cursor: &mut Cursor) -> Option<Vec<usize>> {
        let Changes { snapshot, positions, forgotten } = &self.changes;
        let now = Cursor { snapshot: *snapshot, seen: forgotten + positions.len() as u64 };
        let before = std::mem::replace(cursor, now);
        if before.snapshot != *snapshot || before.seen < *forgotten {
            return None;
        }
        let known = (before.seen - forgotten) as usize;
        Some(positions.iter().skip(known).copied().collect())
    }

    pub(crate) fn set_devices(&mut self, devices: Frozen) {
        *self.devices.get_mut() = Some(devices);
    }

    /// The devices as they were when the nodes were brought up to date, once.
    pub(crate) fn take_devices(&self) -> Option<Frozen> {
        self.devices.lock().take()
    }

    /// What a plugin keeps beside the snapshot from cycle to cycle, one value per type. After a panic
    /// it starts anew.
    pub(crate) fn keep<T: Default + Send + 'static, R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let kept = self.kept.lock().remove(&TypeId::of::<T>());
        let mut kept: Box<T> = kept.and_then(|kept| kept.downcast().ok()).unwrap_or_default();
        let outcome = work(&mut kept);
        self.kept.lock().insert(TypeId::of::<T>(), kept);
        outcome
    }

    fn note_change(&mut self, position: usize) {
        self.changes.positions.push_back(position);
        if self.changes.positions.len() > self.nodes.len().max(CHANGES_MIN) {
            self.changes.positions.pop_front();
            self.changes.forgotten += 1;
        }
    }

    /// Puts a node in, or over its former state.
    pub(crate) fn set(&mut self, node: &Arc<NodeInfo>) {
        let name = node.name().clone();
        let old = match self.positions.get(&name) {
            Some(position) => Some(std::mem::replace(&mut self.nodes[*position], node.clone())),
            None => {
                self.positions.insert(name, self.nodes.len());
                self.nodes.push(node.clone());
                None
            }
        };
        let position = self.positions[node.name()];
        self.note_change(position);
        self.reindex(old.as_deref(), Some(node));
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(position) = self.positions.remove(name) else { return };
        let old = self.nodes.swap_remove(position);
        if let Some(moved) = self.nodes.get(position) {
            self.positions.insert(moved.name().clone(), position);
        }
        self.note_change(position);
        self.note_change(self.nodes.len());
        self.reindex(Some(&old), None);
    }

    fn reindex(&mut self, old: Option<&NodeInfo>, new: Option<&Arc<NodeInfo>>) {
        let none = NodePods::default();
        let before = old.map_or(&none, NodeInfo::pods);
        let after = new.map_or(&none, |node| node.pods());
        let changed = before.changed(after);
        let node_name = old.map(|node| &**node.name()).unwrap_or_default();
        changed.gone.into_iter().for_each(|pod| self.unindex(pod, node_name));
        if let Some(node) = new {
            for pod in changed.come {
                self.index(Placed { pod: pod.clone(), node: node.name().clone() });
            }
        }
        let images = |node: Option<&NodeInfo>| node.map(|node| node.images().clone());
        let (had, has) = (images(old), images(new.map(|node| &**node)));
        let unchanged = matches!((&had, &has), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
        if unchanged {
            return;
        }
        for image in had.iter().flat_map(|images| images.keys()) {
            if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
        for image in has.iter().flat_map(|images| images.keys()) {
            *self.images.entry(image.clone()).or_default() += 1;
        }
    }

    fn index(&mut self, placed: Placed) {
        let (pod, uid) = (placed.pod.clone(), placed.pod.uid().clone());
        let namespace = pod.namespace();
        for (key, value) in pod.labels() {
            let label = (namespace.to_owned(), key.clone(), value.clone());
            self.by_label.entry(label).or_default().insert(uid.clone(), placed.clone());
        }
        for claim in claims_of(&pod) {
            *self.claims.entry(claim).or_default() += 1;
        }
        if pod.has_affinity() {
            self.with_affinity.insert(uid.clone(), placed.clone());
        }
        if !pod.anti_affinity().required.is_empty() {
            self.with_required_anti_affinity.insert(uid.clone(), placed.clone());
        }
        if let Some(pods) = self.by_namespace.get_mut(namespace) {
            pods.insert(uid, placed);
        } else {
            self.by_namespace.entry(namespace.to_owned()).or_default().insert(uid, placed);
        }
    }

    /// Takes a pod off a node. A pod that moved may have been put on its new node before.
    fn unindex(&mut self, pod: &PodInfo, node: &str) {
        let take = |pods: &mut Pods| {
            if pods.get(pod.uid()).is_some_and(|placed| *placed.node == *node) {
                pods.remove(pod.uid());
            }
            pods.is_empty()
        };
        let namespace = pod.namespace();
        for (key, value) in pod.labels() {
            let label = (namespace.to_owned(), key.clone(), value.clone());
            if self.by_label.get_mut(&label).is_some_and(take) {
                self.by_label.remove(&label);
            }
        }
        for claim in claims_of(pod) {
            if let Some(count) = self.claims.get_mut(&claim) {
                *count -= 1;
                if *count == 0 {
                    self.claims.remove(&claim);
                }
            }
        }
        take(&mut self.with_affinity);
        take(&mut self.with_required_anti_affinity);
        if self.by_namespace.get_mut(namespace).is_some_and(take) {
            self.by_namespace.remove(namespace);
        }
    }
}
