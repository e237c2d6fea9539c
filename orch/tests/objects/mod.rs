//! Objects to put into clusters, for every test of whole clusters.

use kube::{Api, api::PostParams, core::NamespaceResourceScope};
use orch::Cluster;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

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
