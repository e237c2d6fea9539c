//! A cluster whose writes are counted, and what the parts do with it.

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use orch::{
    Cluster, ClusterBuilder,
    core::{
        Environment,
        informer::{Change, Watchable},
    },
    store::{MemoryOptions, MemoryStore},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// How many calls are under way at the same time.
pub(crate) const IN_FLIGHT: usize = 64;
/// The namespace that everything is in.
const NAMESPACE: &str = "team";

/// What the parts create and read.
pub(crate) trait Created:
    kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
{
}

impl<K> Created for K where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize
{
}

/// A cluster whose writes are counted by its store.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) store: Arc<MemoryStore>,
}

impl World {
    pub(crate) async fn start(
        controllers: &[&str],
        change: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
    ) -> Self {
        let store = Arc::new(MemoryStore::new(Environment::system(), MemoryOptions::default()));
        let builder = Cluster::builder().store(store.clone()).controllers(controllers.to_vec());
        let cluster = change(builder).start().await.expect("it starts");
        let team = parsed(json!({"metadata": {"name": NAMESPACE}}));
        let namespaces: Api<Namespace> = Api::all(cluster.client());
        namespaces.create(&PostParams::default(), &team).await.expect("a namespace");
        Self { cluster, store }
    }

    pub(crate) fn api<K: Created>(&self) -> Api<K> {
        Api::namespaced(self.cluster.client(), NAMESPACE)
    }

    /// Gives a permit for every change that counts.
    pub(crate) fn count<K: Watchable>(
        &self,
        counts: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
    ) -> Arc<Semaphore> {
        let counted = Arc::new(Semaphore::new(0));
        let count = counted.clone();
        self.cluster.informers().of::<K>().on_change(move |change| {
            if counts(change) {
                count.add_permits(1);
            }
        });
        counted
    }

    pub(crate) async fn create<K: Created>(&self, value: Value) {
        let api: Api<K> = self.api();
        api.create(&PostParams::default(), &parsed(value)).await.expect("created");
    }

    /// Plays the nodes: what exists ends at once and has succeeded.
    pub(crate) fn finish_pods(&self) {
        let (told, new) = tokio::sync::mpsc::unbounded_channel();
        self.cluster.informers().of::<Pod>().on_change(move |change| {
            if let Change::Added(pod) = change {
                let name = pod.metadata.name.clone().unwrap_or_default();
                // Nobody listens any more once the round is over.
                told.send(name).ok();
            }
        });
        let pods: Api<Pod> = self.api();
        tokio::spawn(stream_of(new).for_each_concurrent(IN_FLIGHT, move |name| {
            let pods = pods.clone();
            async move {
                let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
                pods.patch_status(&name, &PatchParams::default(), &done).await.expect("a pod");
            }
        }));
    }
}

fn stream_of(
    receiver: tokio::sync::mpsc::UnboundedReceiver<String>,
) -> impl futures::Stream<Item = String> {
    stream::unfold(receiver, async |mut receiver| {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
}

pub(crate) fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

/// What pods are made from.
pub(crate) fn template(app: &str, restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": restart,
            "containers": [{"name": "web", "image": "registry.example/web:v1"}]},
    })
}

/// A Deployment of so many replicas.
pub(crate) fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": template(name, "Always")},
    })
}

pub(crate) fn added(change: &Change<Pod>) -> bool {
    matches!(change, Change::Added(_))
}

/// The processor time that this process has used so far.
pub(crate) fn processor_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let usage = usage.expect("the system tells it");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
