//! A node with what runs on it added up, one event at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    pod_info::{HostPort, NO_LABELS, PodInfo},
    resources::{NonZero, Resources},
};

/// A node and the pods on it, with their requests added up. A snapshot: it never changes in a
/// cycle.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    name: Arc<str>,
    node: Option<Arc<Node>>,
    allocatable: Resources,
    requested: Resources,
    non_zero: NonZero,
    ports: HashMap<HostPort, u32>,
    pods: Vec<Arc<PodInfo>>,
    images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    /// A place for pods of a node that is not known (yet).
    pub(crate) fn unknown(name: Arc<str>) -> Self {
        Self {
            name,
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            non_zero: NonZero::default(),
            ports: HashMap::new(),
            pods: Vec::new(),
            images: Arc::default(),
        }
    }

    /// A node with pods, for tests of plugins.
    pub fn new(node: Arc<Node>, pods: impl IntoIterator<Item = Arc<PodInfo>>) -> Self {
        let mut info = Self::unknown(node.metadata.name.clone().unwrap_or_default().into());
        info.set_node(node);
        pods.into_iter().for_each(|pod| info.add_pod(pod));
        info
    }

    /// The node's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The node.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The node's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.node.as_ref().and_then(|node| node.metadata.labels.as_ref()).unwrap_or(&NO_LABELS)
    }

    /// One label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether the node was cordoned.
    pub fn is_unschedulable(&self) -> bool {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// What the node can give to pods altogether.
    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    /// What its pods request altogether.
    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    /// What its pods count as when nodes are ranked.
    pub fn non_zero(&self) -> NonZero {
        self.non_zero
    }

    /// The pods on the node, bound or about to be.
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.pods
    }

    /// The images on the node with their sizes in bytes.
    pub fn images(&self) -> &Arc<HashMap<String, i64>> {
        &self.images
    }

    /// Whether a port is taken by a pod: on the same address, or on all addresses on either side.
    pub fn is_port_taken(&self, wanted: &HostPort) -> bool {
        if self.ports.is_empty() {
            return false;
        }
        let same = |have: &HostPort| have.port == wanted.port && have.protocol == wanted.protocol;
        let any = |port: &HostPort| port.ip == "0.0.0.0";
        self.ports
            .keys()
            .any(|have| same(have) && (have.ip == wanted.ip || any(have) || any(wanted)))
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        // Amounts that cannot be read are none: nothing is placed on what is not understood.
        self.allocatable = Resources::of(allocatable).unwrap_or_default();
        let images = status.and_then(|status| status.images.as_deref()).unwrap_or_default();
        let mut sizes = HashMap::new();
        for image in images {
            for name in image.names.iter().flatten() {
                sizes.insert(normalized_image(name), image.size_bytes.unwrap_or(0));
            }
        }
        self.images = Arc::new(sizes);
        self.node = Some(node);
    }

    pub(crate) fn clear_node(&mut self) {
        let bare = Self::unknown(self.name.clone());
        self.node = None;
        self.allocatable = bare.allocatable;
        self.images = bare.images;
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(pod.requests());
        self.requested.pods += 1;
        let non_zero = pod.non_zero();
        self.non_zero.milli_cpu = self.non_zero.milli_cpu.saturating_add(non_zero.milli_cpu);
        self.non_zero.memory = self.non_zero.memory.saturating_add(non_zero.memory);
        for port in pod.ports() {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.push(pod);
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) {
        let Some(at) = self.pods.iter().position(|pod| **pod.uid() == *uid) else { return };
        let pod = self.pods.remove(at);
        self.requested.sub(pod.requests());
        self.requested.pods -= 1;
        self.requested.scalar.retain(|_, amount| *amount != 0);
        let non_zero = pod.non_zero();
        self.non_zero.milli_cpu = self.non_zero.milli_cpu.saturating_sub(non_zero.milli_cpu);
        self.non_zero.memory = self.non_zero.memory.saturating_sub(non_zero.memory);
        for port in pod.ports() {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}

/// Which pods went and which came between two states of a node.
pub(crate) fn changed_pods<'a>(
    before: &'a [Arc<PodInfo>],
    after: &'a [Arc<PodInfo>],
) -> (&'a [Arc<PodInfo>], &'a [Arc<PodInfo>]) {
    // Pods keep their order, so that what two states share are a beginning and an end.
    let same = |(a, b): &(&Arc<PodInfo>, &Arc<PodInfo>)| Arc::ptr_eq(a, b);
    let start = before.iter().zip(after).take_while(same).count();
    let (before, after) = (&before[start..], &after[start..]);
    let end = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
    (&before[..before.len() - end], &after[..after.len() - end])
}

/// An image's name as nodes report it: with a tag.
pub(crate) fn normalized_image(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
