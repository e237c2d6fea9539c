//! Clusters for tests, objects to put into them, and waiting for what becomes of these.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::PostParams,
    core::{ClusterResourceScope, NamespaceResourceScope},
};
use orch::{
    Cluster, ClusterBuilder,
    core::{Environment, informer::Watchable},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What has not happened by then does not happen: only a broken cluster waits so long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Virtual time and a seed. Call it on a paused runtime of one thread.
pub(crate) fn environment(seed: u64) -> Environment {
    Environment::seeded(Timestamp::from_second(1_700_000_000).expect("a date"), seed)
}

/// A cluster in virtual time. Call it on a paused runtime of one thread.
pub(crate) fn seeded(seed: u64) -> ClusterBuilder {
    seeded_in(environment(seed))
}

/// A cluster in an environment that something else shares.
pub(crate) fn seeded_in(environment: Environment) -> ClusterBuilder {
    Cluster::builder().environment(environment)
}

/// Waits until the objects of a kind, in all namespaces, are as `check` wants them.
pub(crate) async fn until<K: Watchable>(cluster: &Cluster, check: impl Fn(&[Arc<K>]) -> bool) {
    let informer = cluster.informers().of::<K>();
    informer.synced().await;
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    informer.on_change(move |_| wake.notify_one());
    let settle = async {
        while !check(&informer.list()) {
            changed.notified().await;
        }
    };
    if tokio::time::timeout(PATIENCE, settle).await.is_err() {
        panic!("never came to be; last seen: {:#?}", informer.list());
    }
}

/// Creates an object in the namespace `default`.
pub(crate) async fn create<K>(cluster: &Cluster, object: Value) -> K
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object of the kind");
    let api: Api<K> = Api::default_namespaced(cluster.client());
    api.create(&PostParams::default(), &object).await.expect("it is created")
}

/// Creates an object without a namespace.
pub(crate) async fn create_global<K>(cluster: &Cluster, object: Value) -> K
where
    K: kube::Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object of the kind");
    let api: Api<K> = Api::all(cluster.client());
    api.create(&PostParams::default(), &object).await.expect("it is created")
}

/// A pod template whose pods run until they are stopped.
pub(crate) fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:v1"}]},
    })
}

/// A Deployment, or another workload of the same shape.
pub(crate) fn workload(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name),
        },
    })
}

/// Whether a pod says of itself that it is Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The node that a pod is bound to; empty if none.
pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The keys of a node's taints.
pub(crate) fn taints(node: &Node) -> Vec<&str> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints.unwrap_or_default().iter().map(|taint| taint.key.as_str()).collect()
}
