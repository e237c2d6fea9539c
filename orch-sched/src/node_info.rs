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

mod pods;

pub(crate) use pods::Changed;
pub use pods::NodePods;

/// A node and the pods on it, with their requests added up. A snapshot: it never changes in a
/// cycle.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    name: Arc<str>,
    node: Option<Arc<Node>>,
    allocatable: Resources,
    requested: Resources,
    non_zero: NonZero,
    /// Most nodes have few pods with ports, and most changes are no matter of ports.
    ports: Arc<HashMap<HostPort, u32>>,
    pods: NodePods,
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
            ports: Arc::default(),
            pods: NodePods::default(),
            images: Arc::default(),
        }
    }

    /// A node with pods, for tests of plugins.
    pub fn new(node: Arc<Node>, pods: impl IntoIterator<Item = Arc<PodInfo>>) -> Self {
        let mut info = Self::unknown(node.metadata.name.clone().unwrap_or_default().into());
        info.set_node(node);
        for pod in pods {
            info.add_pod(pod);
        }
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
    pub fn pods(&self) -> &NodePods {
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

    /// Adds a pod. Gives the number by which [`NodeInfo::remove_numbered`] finds it.
    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) -> u64 {
        self.requested.add(pod.requests());
        self.requested.pods += 1;
        let non_zero = pod.non_zero();
        self.non_zero.milli_cpu = self.non_zero.milli_cpu.saturating_add(non_zero.milli_cpu);
        self.non_zero.memory = self.non_zero.memory.saturating_add(non_zero.memory);
        if !pod.ports().is_empty() {
            let ports = Arc::make_mut(&mut self.ports);
            for port in pod.ports() {
                *ports.entry(port.clone()).or_default() += 1;
            }
        }
        self.pods.push(pod)
    }

    /// Takes a pod out. Looks for it among all pods of the node.
    pub(crate) fn remove_pod(&mut self, uid: &str) {
        if let Some(number) = self.pods.number_of(uid) {
            self.remove_numbered(number);
        }
    }

    /// Takes out the pod that [`NodeInfo::add_pod`] gave this number.
    pub(crate) fn remove_numbered(&mut self, number: u64) {
        let Some(pod) = self.pods.remove(number) else { return };
        self.requested.sub(pod.requests());
        self.requested.pods -= 1;
        self.requested.scalar.retain(|_, amount| *amount != 0);
        let non_zero = pod.non_zero();
        self.non_zero.milli_cpu = self.non_zero.milli_cpu.saturating_sub(non_zero.milli_cpu);
        self.non_zero.memory = self.non_zero.memory.saturating_sub(non_zero.memory);
        if !pod.ports().is_empty() {
            let ports = Arc::make_mut(&mut self.ports);
            for port in pod.ports() {
                if let Some(count) = ports.get_mut(port) {
                    *count -= 1;
                    if *count == 0 {
                        ports.remove(port);
                    }
                }
            }
        }
    }
}

/// An image's name as nodes report it: with a tag.
pub(crate) fn normalized_image(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
