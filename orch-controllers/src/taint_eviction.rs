//! Pods leave nodes with taints that they do not tolerate, or not for long.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/tainteviction`.
//! Differs: the time that a pod tolerates a taint counts from when the taint was added, so that a
//! restart of the controller does not begin it anew; for a taint that does not say when that was,
//! from when the controller first saw the pod there.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    node_lifecycle::{BY_NODE, index_by_node},
    pods,
    reconciler::Reconciled,
};

/// The controller that deletes pods from nodes whose `NoExecute` taints they do not tolerate.
pub fn taint_eviction(informers: &Informers) -> Controller {
    let context = Context::new(informers, "taint-eviction-controller");
    let (nodes, pods) = (context.informer::<Node>(), context.informer::<Pod>());
    index_by_node(&pods);
    let on_node = pods.clone();
    context
        .builder()
        .watches::<Node>(move |change| {
            if let Change::Updated { old, new } = change
                && executing(old) == executing(new)
            {
                return Vec::new();
            }
            let node = change.object();
            if executing(node).is_empty() && matches!(change, Change::Added(_)) {
                return Vec::new();
            }
            let name = node.metadata.name.as_deref().unwrap_or_default();
            on_node.by_index(BY_NODE, name).iter().map(|pod| Key::of(&pod.metadata)).collect()
        })
        .watches::<Pod>(|change| match change {
            Change::Updated { old, new } if node_of(old) == node_of(new) => Vec::new(),
            _ => vec![Key::of(&change.object().metadata)],
        })
        .build(EvictionReconciler { context, nodes, pods, since: Mutex::default() })
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn executing(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

struct EvictionReconciler {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Since when a pod is on a tainted node: most taints do not say when they were added.
    since: Mutex<HashMap<Key, Since>>,
}

struct Since {
    /// Another pod of the same name begins anew.
    uid: Option<String>,
    at: Timestamp,
}

impl EvictionReconciler {
    fn since(&self, key: &Key, pod: &Pod, now: Timestamp) -> Timestamp {
        let uid = &pod.metadata.uid;
        let mut since = self.since.lock();
        let known = since.entry(key.clone()).or_insert_with(|| Since { uid: uid.clone(), at: now });
        if known.uid != *uid {
            *known = Since { uid: uid.clone(), at: now };
        }
        known.at
    }

    /// When the pod has to go: `None` if it may stay.
    fn due(&self, key: &Key, now: Timestamp) -> Option<(std::sync::Arc<Pod>, Timestamp)> {
        let pod = self.pods.get(key).filter(|pod| !pods::is_terminating(pod))?;
        let node = self.nodes.get(&Key::cluster(node_of(&pod)?))?;
        let taints = executing(&node);
        if taints.is_empty() {
            return None;
        }
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
        let since = self.since(key, &pod, now);
        let at = eviction_time(&taints, tolerations.unwrap_or_default(), since)?;
        Some((pod, at))
    }
}

#[async_trait]
impl Reconciler for EvictionReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let now = self.context.now();
        let Some((pod, at)) = self.due(&key, now) else {
            self.since.lock().remove(&key);
            return Ok(Action::Done);
        };
        if let Ok(left) = Duration::try_from(at.duration_since(now))
            && !left.is_zero()
        {
            return Ok(Action::RequeueAfter(left));
        }
        let message = format!("Marking for deletion Pod {key}");
        self.context.event(&*pod, EventType::Normal, "TaintManagerEviction", message);
        let why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        pods::disrupt(&self.context, &pod, why).await?;
        Ok(Action::Done)
    }
}

/// When a pod has to go that is there with these taints `since`: `None` if it tolerates all of
/// them for ever.
fn eviction_time(
    taints: &[Taint],
    tolerations: &[Toleration],
    since: Timestamp,
) -> Option<Timestamp> {
    let deadlines = taints.iter().filter_map(|taint| {
        let mut tolerating = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        let added = taint.time_added.as_ref().map_or(since, |time| time.0);
        if tolerating.peek().is_none() {
            return Some(since);
        }
        // Of several tolerations the shortest counts; one without a time tolerates for ever.
        let seconds = tolerating.filter_map(|t| t.toleration_seconds).min()?;
        added.checked_add(SignedDuration::from_secs(seconds.max(0))).ok()
    });
    deadlines.min()
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists
            || toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default())
}
