//! Removes pods that nobody else removes.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/podgc`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{
    ClientError, Key,
    client::{DeleteOptions, PatchKind},
    informer::{Informer, Informers},
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    manager::Runnable,
    node_lifecycle::{BY_NODE, index_by_node},
    pods,
};

/// Pods by what may make garbage of them: that they are over, or that they are to go and were never
/// assigned. A look at all pods would cost every period what the cluster is large.
const BY_GARBAGE: &str = "garbage";
const OVER: &str = "over";
const UNASSIGNED: &str = "unassigned";

fn index_by_garbage(pods: &Informer<Pod>) {
    pods.add_index(BY_GARBAGE, |pod| {
        let going = pods::is_terminating(pod);
        let over = (pods::is_terminal(pod) && !going).then(|| OVER.to_owned());
        let unassigned = (going && node(pod).is_none()).then(|| UNASSIGNED.to_owned());
        over.into_iter().chain(unassigned).collect()
    });
}

/// When pods are removed.
#[derive(Clone, Copy, Debug)]
pub struct PodGcOptions {
    /// How many pods that are over may stay, the oldest go first. Default 12500; `None` keeps all.
    pub terminated_max: Option<usize>,
    /// The time between two looks. Default 20 s.
    pub period: Duration,
    /// How long a node must be gone before its pods go. Default 40 s.
    pub quarantine: Duration,
}

impl Default for PodGcOptions {
    fn default() -> Self {
        Self {
            terminated_max: Some(12_500),
            period: Duration::from_secs(20),
            quarantine: Duration::from_secs(40),
        }
    }
}

/// The controller that removes pods which are over, too many; whose node is gone; or which were
/// deleted before they were assigned to one.
pub fn pod_garbage_collector(informers: &Informers, options: PodGcOptions) -> Runnable {
    let context = Context::new(informers, "pod-garbage-collector-controller");
    let pods: Informer<Pod> = context.informer();
    index_by_node(&pods);
    index_by_garbage(&pods);
    let collector = Collector {
        pods,
        nodes: context.informer(),
        gone_since: BTreeMap::new(),
        context,
        options,
    };
    Runnable::new("pod-garbage-collector-controller", move |stop| collector.run(stop))
}

struct Collector {
    context: Context,
    options: PodGcOptions,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Since when nodes that pods name are missed.
    gone_since: BTreeMap<String, Instant>,
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

impl Collector {
    async fn run(mut self, stop: CancellationToken) {
        let (pods, nodes) = (self.pods.clone(), self.nodes.clone());
        let synced = async { tokio::join!(pods.synced(), nodes.synced()) };
        if stop.run_until_cancelled(synced).await.is_none() {
            return;
        }
        loop {
            self.collect().await;
            let sleep = self.context.environment().clock.sleep(self.options.period);
            if stop.run_until_cancelled(sleep).await.is_none() {
                return;
            }
        }
    }

    async fn collect(&mut self) {
        for pod in self.excess() {
            self.remove(&pod, None).await;
        }
        for pod in self.orphaned() {
            self.remove(&pod, Some("PodGC: node no longer exists")).await;
        }
        for pod in self.pods.by_index(BY_GARBAGE, UNASSIGNED) {
            self.remove(&pod, None).await;
        }
    }

    /// The oldest of the pods that are over, as far as they are too many.
    fn excess(&self) -> Vec<Arc<Pod>> {
        let Some(max) = self.options.terminated_max else { return Vec::new() };
        let excess = self.pods.count_by_index(BY_GARBAGE, OVER).saturating_sub(max);
        if excess == 0 {
            return Vec::new();
        }
        let mut over = self.pods.by_index(BY_GARBAGE, OVER);
        over.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        over.truncate(excess);
        over
    }

    /// The pods of nodes that have been gone for long enough.
    fn orphaned(&mut self) -> Vec<Arc<Pod>> {
        let is_gone = |name: &String| !self.nodes.holds(&Key::cluster(name.as_str()));
        let named = self.pods.index_values(BY_NODE);
        let gone: BTreeSet<String> = named.into_iter().filter(is_gone).collect();
        self.gone_since.retain(|name, _| gone.contains(name));
        let now = Instant::now();
        for name in gone {
            self.gone_since.entry(name).or_insert(now);
        }
        let long_gone = |since: &Instant| now.duration_since(*since) >= self.options.quarantine;
        let names = self.gone_since.iter().filter(|(_, since)| long_gone(since));
        names.flat_map(|(name, _)| self.pods.by_index(BY_NODE, name)).collect()
    }

    /// Removes a pod for good: nobody is there who would stop it first.
    async fn remove(&self, pod: &Pod, disrupted: Option<&str>) {
        if let Err(error) = self.try_remove(pod, disrupted).await
            && !error.is_not_found()
            && !error.is_conflict()
        {
            let key = Key::of(&pod.metadata);
            tracing::warn!(%key, %error, "a pod could not be removed");
        }
    }

    async fn try_remove(&self, pod: &Pod, disrupted: Option<&str>) -> Result<(), ClientError> {
        let key = Key::of(&pod.metadata);
        let resources = self.context.resources::<Pod>(&key.namespace);
        if !pods::is_terminal(pod) {
            let patch = failed_patch(pod, disrupted, &self.context.time());
            resources.patch_status(&key.name, PatchKind::Strategic, patch).await?;
        }
        let options = DeleteOptions {
            grace_period_s: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        resources.delete(&key.name, options).await.map(drop)
    }
}

fn failed_patch(pod: &Pod, disrupted: Option<&str>, now: &Time) -> serde_json::Value {
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed"}});
    if let Some(message) = disrupted {
        patch["status"]["conditions"] = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": message, "lastTransitionTime": now,
        }]);
    }
    patch
}
