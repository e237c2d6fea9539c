//! Clusters for tests, and waiting for what becomes of what is put into them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::PostParams, core::ClusterResourceScope};
use orch::{
    Cluster, ClusterBuilder,
    core::{Environment, informer::Watchable},
    testing::conditions,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use crate::objects::{create, template, workload};

/// What has not happened by then does not happen: only a broken cluster waits so long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A cluster in virtual time. Call it on a paused runtime of one thread.
pub(crate) fn seeded(seed: u64) -> ClusterBuilder {
    let epoch = Timestamp::from_second(1_700_000_000).expect("a date");
    Cluster::builder().environment(Environment::seeded(epoch, seed))
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

/// Whether a pod says of itself that it is Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    conditions::is_ready(Some(pod))
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
