//! Events about pods and the node.
//!
//! Source: `k8s.io/client-go/tools/record`: equal events are counted in one object; queued, and
//! dropped when the queue is full.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use orch_core::{Client, Environment, Resources, client::PatchKind, clock::to_seconds};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use super::spec;

/// So many events wait to be written; further ones are dropped.
const QUEUE: usize = 1000;
/// So many different events are remembered for counting.
const REMEMBERED: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fact {
    kind: &'static str,
    uid: String,
    field_path: Option<String>,
    warning: bool,
    reason: String,
    message: String,
}

#[derive(Clone, Debug)]
struct Seen {
    name: String,
    count: i32,
}

enum Item {
    Create(Box<Event>),
    Count { namespace: String, name: String, count: i32, last: Timestamp },
}

/// Takes events and writes them one after the other in a task of its own, which ends when the
/// recorder is dropped.
#[derive(Debug)]
pub(crate) struct EventRecorder {
    environment: Environment,
    host: String,
    seen: Mutex<HashMap<Fact, Seen>>,
    queue: mpsc::Sender<Item>,
}

async fn write_all(client: Arc<dyn Client>, mut queue: mpsc::Receiver<Item>) {
    while let Some(item) = queue.recv().await {
        let result = match item {
            Item::Create(event) => {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let events = Resources::<Event>::namespaced(client.clone(), &namespace);
                events.create(&event).await.map(|_| ())
            }
            Item::Count { namespace, name, count, last } => {
                let patch = json!({ "count": count, "lastTimestamp": Time(to_seconds(last)) });
                let events = Resources::<Event>::namespaced(client.clone(), &namespace);
                events.patch(&name, PatchKind::Merge, patch).await.map(|_| ())
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an event could not be written");
        }
    }
}

impl EventRecorder {
    pub(crate) fn start(client: Arc<dyn Client>, environment: Environment, host: &str) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, items));
        Self { environment, host: host.into(), seen: Mutex::default(), queue }
    }

    pub(crate) fn of_pod<'a>(&'a self, pod: &'a Pod) -> PodEvents<'a> {
        PodEvents { recorder: self, pod }
    }

    pub(crate) fn of_node(&self, node: &Node, warning: bool, reason: &str, message: &str) {
        let name = node.metadata.name.clone();
        let about = ObjectReference {
            kind: Some("Node".into()),
            api_version: Some("v1".into()),
            // Source: the kubelet refers to its node by name in the uid too.
            uid: name.clone(),
            name,
            ..ObjectReference::default()
        };
        self.record(about, "Node", warning, reason, message);
    }

    fn record(
        &self,
        about: ObjectReference,
        kind: &'static str,
        warning: bool,
        reason: &str,
        message: &str,
    ) {
        let fact = Fact {
            kind,
            uid: about.uid.clone().unwrap_or_default(),
            field_path: about.field_path.clone(),
            warning,
            reason: reason.into(),
            message: message.into(),
        };
        let now = self.environment.clock.now();
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
        let item = {
            let mut seen = self.seen.lock();
            if let Some(known) = seen.get_mut(&fact) {
                known.count += 1;
                let (name, count) = (known.name.clone(), known.count);
                Item::Count { namespace, name, count, last: now }
            } else {
                if seen.len() >= REMEMBERED {
                    seen.clear();
                }
                let suffix = self.environment.random.next_u64();
                let object = about.name.as_deref().unwrap_or_default();
                let name = format!("{object}.{suffix:016x}");
                seen.insert(fact, Seen { name: name.clone(), count: 1 });
                Item::Create(Box::new(self.event(about, name, namespace, warning, reason, message)))
            }
        };
        if self.queue.try_send(item).is_err() {
            tracing::debug!(reason, "an event was dropped: too many are waiting");
        }
    }

    fn event(
        &self,
        about: ObjectReference,
        name: String,
        namespace: String,
        warning: bool,
        reason: &str,
        message: &str,
    ) -> Event {
        let now = Time(to_seconds(self.environment.clock.now()));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            reason: Some(reason.into()),
            message: Some(message.into()),
            type_: Some(if warning { "Warning" } else { "Normal" }.into()),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.host.clone()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        }
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
        self.record(container, false, reason, message);
    }

    pub(crate) fn warn(&self, container: Option<&str>, reason: &str, message: &str) {
        self.record(container, true, reason, message);
    }

    fn record(&self, container: Option<&str>, warning: bool, reason: &str, message: &str) {
        let path = |name: &str| {
            let is_init = spec::init_containers(self.pod).iter().any(|c| c.name == name);
            let list = if is_init { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        };
        let about = ObjectReference {
            kind: Some("Pod".into()),
            api_version: Some("v1".into()),
            namespace: self.pod.metadata.namespace.clone(),
            name: self.pod.metadata.name.clone(),
            uid: self.pod.metadata.uid.clone(),
            resource_version: self.pod.metadata.resource_version.clone(),
            field_path: container.map(path),
        };
        self.recorder.record(about, "Pod", warning, reason, message);
    }
}
