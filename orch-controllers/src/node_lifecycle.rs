//! Nodes that stop reporting: their conditions, taints and pods.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/nodelifecycle`.
//! Differs: zones in which many nodes fail at once are not treated apart, so evictions are not
//! slowed down then.

mod taints;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use orch_core::{
    ClientError, Key,
    client::PatchKind,
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    pods,
    reconciler::Reconciled,
};

/// Pods by the name of their node.
pub(crate) const BY_NODE: &str = "node";

const LEASES: &str = "kube-node-lease";

/// When a node counts as gone silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLifecycleOptions {
    /// After so long without a sign of life. Default 50 s.
    pub grace_period: Duration,
    /// The same for a node that has never reported. Default 60 s.
    pub startup_grace_period: Duration,
}

impl Default for NodeLifecycleOptions {
    fn default() -> Self {
        Self {
            grace_period: Duration::from_secs(50),
            startup_grace_period: Duration::from_secs(60),
        }
    }
}

/// The controller that notices when nodes go silent, taints them by their conditions, and says of
/// their pods that they are not ready.
pub fn node_lifecycle(informers: &Informers, options: NodeLifecycleOptions) -> Controller {
    let name = "node-lifecycle-controller";
    let context = Context::reporting(informers, name, "node-controller");
    let (nodes, pods, leases) =
        (context.informer::<Node>(), context.informer::<Pod>(), context.informer::<Lease>());
    index_by_node(&pods);
    let seen = Arc::new(Signs::default());
    let noted = seen.clone();
    context
        .builder()
        .watches_own::<Node>()
        .watches::<Lease>(move |change| match change {
            Change::Deleted(_) => Vec::new(),
            _ => noted.renewed(change.object()).into_iter().collect(),
        })
        .reads::<Pod>()
        .build(NodeReconciler { context, options, nodes, pods, leases, seen })
}

pub(crate) fn index_by_node(pods: &Informer<Pod>) {
    pods.add_index(BY_NODE, |pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        node.into_iter().filter(|name| !name.is_empty()).collect()
    });
}

struct NodeReconciler {
    context: Context,
    options: NodeLifecycleOptions,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    seen: Arc<Signs>,
}

/// The last sign of life of a node, and when it was noticed here: the clocks of nodes are not
/// trusted.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
    at: Instant,
    /// Whether somebody will look at the node again before it counts as silent.
    awaited: bool,
}

/// The signs of life of all nodes.
#[derive(Default)]
struct Signs(Mutex<HashMap<String, Seen>>);

impl Signs {
    /// Notes a renewed lease, which is all that it leads to as long as its node is looked at again
    /// anyway: leases are what is written most. Otherwise gives the node.
    fn renewed(&self, lease: &Lease) -> Option<Key> {
        let meta = &lease.metadata;
        let name = meta.name.as_deref()?;
        if meta.namespace.as_deref() != Some(LEASES) {
            return None;
        }
        let mut all = self.0.lock();
        let Some(seen) = all.get_mut(name) else { return Some(Key::cluster(name)) };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        if seen.renewed.as_ref() != renewed {
            seen.renewed = renewed.cloned();
            seen.at = Instant::now();
        }
        (!seen.awaited).then(|| Key::cluster(name))
    }
}

pub(crate) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

#[async_trait]
impl Reconciler for NodeReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(node) = self.nodes.get(&key) else {
            self.seen.0.lock().remove(&key.name);
            return Ok(Action::Done);
        };
        let left = self.until_silent(&key.name, &node);
        let mut node = node;
        if left.is_zero() {
            node = self.mark_silent(node).await?;
        }
        self.taint(&node).await?;
        let ready = condition(&node, "Ready");
        if ready.is_none_or(|ready| ready.status != "True") {
            self.mark_pods(&key.name, &node).await?;
        }
        Ok(if left.is_zero() { Action::Done } else { Action::RequeueAfter(left) })
    }
}

impl NodeReconciler {
    /// Notes signs of life. Gives how long the node may still be silent.
    fn until_silent(&self, name: &str, node: &Node) -> Duration {
        let lease = self.leases.get(&Key::new(LEASES, name));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let ready = condition(node, "Ready");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.clone());
        let grace = if ready.is_some() {
            self.options.grace_period
        } else {
            self.options.startup_grace_period
        };
        let mut all = self.seen.0.lock();
        let fresh = Seen { renewed, heartbeat, at: Instant::now(), awaited: true };
        let seen = all.entry(name.to_owned()).or_insert_with(|| fresh.clone());
        // What this controller wrote itself is no sign of life.
        let reports = ready.is_none_or(|ready| ready.status != "Unknown");
        let beats = reports && seen.heartbeat != fresh.heartbeat;
        if seen.renewed != fresh.renewed || beats {
            *seen = fresh;
        }
        let left = grace.saturating_sub(seen.at.elapsed());
        seen.awaited = !left.is_zero();
        left
    }

    async fn mark_silent(&self, node: Arc<Node>) -> Result<Arc<Node>, ClientError> {
        let mut updated = node.as_ref().clone();
        let status = updated.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        let was_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let now = self.context.time();
        let mut changed = false;
        for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            match conditions.iter_mut().find(|condition| condition.type_ == type_) {
                Some(known) if known.status == "Unknown" => {}
                Some(known) => {
                    known.status = "Unknown".to_owned();
                    known.reason = Some("NodeStatusUnknown".to_owned());
                    known.message = Some("Kubelet stopped posting node status.".to_owned());
                    known.last_transition_time = Some(now.clone());
                    changed = true;
                }
                None => {
                    conditions.push(NodeCondition {
                        type_: type_.to_owned(),
                        status: "Unknown".to_owned(),
                        reason: Some("NodeStatusNeverUpdated".to_owned()),
                        message: Some("Kubelet never posted node status.".to_owned()),
                        last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                        last_transition_time: Some(now.clone()),
                    });
                    changed = true;
                }
            }
        }
        if !changed {
            return Ok(node);
        }
        let written = self.context.resources::<Node>("").update_status(&updated).await?;
        if was_ready {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Node {name} status is now: NodeNotReady");
            self.context.event(&*node, EventType::Normal, "NodeNotReady", message);
        }
        Ok(written)
    }

    async fn taint(&self, node: &Node) -> Result<(), ClientError> {
        let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let wanted = taints::wanted(node, &current, &self.context.time());
        if current == wanted {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.context.resources::<Node>("").patch(name, PatchKind::Merge, patch).await.map(drop)
    }

    /// Services must not send anything to pods of which nobody knows anything.
    async fn mark_pods(&self, name: &str, node: &Node) -> Result<(), ClientError> {
        for pod in self.pods.by_index(BY_NODE, name) {
            let Some(ready) = pods::condition(&pod, "Ready").filter(|c| c.status == "True") else {
                continue;
            };
            let mut status = pod.status.clone().unwrap_or_default();
            let mut changed = ready.clone();
            changed.status = "False".to_owned();
            changed.last_transition_time = Some(self.context.time());
            for condition in status.conditions.iter_mut().flatten() {
                if condition.type_ == "Ready" {
                    *condition = changed.clone();
                }
            }
            let updated = Pod { status: Some(status), ..pod.as_ref().clone() };
            let key = Key::of(&pod.metadata);
            match self.context.resources::<Pod>(&key.namespace).update_status(&updated).await {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let node = node.metadata.name.as_deref().unwrap_or_default();
                    tracing::debug!(%key, node, "no longer ready");
                    self.context.event(
                        &*pod,
                        EventType::Warning,
                        "NodeNotReady",
                        "Node is not ready",
                    );
                }
            }
        }
        Ok(())
    }
}
