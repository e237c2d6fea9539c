//! What the node agent tells users about pods and its node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolumeClaim, Pod};
use orch_core::{
    Client, Environment,
    event::{EventRecorder, EventType, Reporter, reference_to},
};

use super::spec;

/// The recorder of a node agent: events in the kubelet's name.
#[derive(Clone, Debug)]
pub(crate) struct NodeEvents {
    recorder: EventRecorder,
}

impl NodeEvents {
    pub(crate) fn start(client: Arc<dyn Client>, environment: Environment, host: &str) -> Self {
        let reporter = Reporter { host: host.to_owned(), ..Reporter::new("kubelet") };
        Self { recorder: EventRecorder::start(client, environment, reporter) }
    }

    pub(crate) fn of_pod<'a>(&'a self, pod: &'a Pod) -> PodEvents<'a> {
        PodEvents { recorder: &self.recorder, pod }
    }

    pub(crate) fn of_claim(
        &self,
        claim: &PersistentVolumeClaim,
        kind: EventType,
        reason: &str,
        message: &str,
    ) {
        self.recorder.record(&reference_to(claim), kind, reason, reason, message);
    }

    pub(crate) fn of_node(&self, node: &Node, reason: &str, message: &str) {
        let name = node.metadata.name.clone();
        // Source: the kubelet refers to its node by name in the uid too.
        let about = ObjectReference { uid: name, resource_version: None, ..reference_to(node) };
        self.recorder.normal(&about, reason, message);
    }
}

/// Events about one pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodEvents<'a> {
    recorder: &'a EventRecorder,
    pod: &'a Pod,
}

impl PodEvents<'_> {
    pub(crate) fn normal(&self, container: Option<&str>, reason: &str, message: &str) {
        self.record(container, EventType::Normal, reason, message);
    }

    pub(crate) fn warn(&self, container: Option<&str>, reason: &str, message: &str) {
        self.record(container, EventType::Warning, reason, message);
    }

    fn record(&self, container: Option<&str>, kind: EventType, reason: &str, message: &str) {
        let path = |name: &str| {
            let is_init = spec::init_containers(self.pod).iter().any(|c| c.name == name);
            let list = if is_init { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        };
        let about = ObjectReference { field_path: container.map(path), ..reference_to(self.pod) };
        self.recorder.record(&about, kind, reason, reason, message);
    }
}
