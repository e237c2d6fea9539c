//! Objects to put into clusters.

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{Api, api::PostParams};
use orch::testing::TestCluster;
use serde_json::{Value, json};

pub(crate) async fn create<K>(cluster: &TestCluster, object: Value) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object of the kind");
    let api: Api<K> = Api::default_namespaced(cluster.client());
    api.create(&PostParams::default(), &object).await.expect("it is created");
    api
}

fn template(annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": annotations},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

/// A Deployment, or another workload of the same shape.
pub(crate) fn workload(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "registry.example/app:v1"}]},
            },
        },
    })
}

pub(crate) async fn deployment(cluster: &TestCluster, replicas: i32) -> Api<Deployment> {
    let spec = json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(&json!({})),
    });
    create(cluster, json!({"metadata": {"name": "web"}, "spec": spec})).await
}

/// A Job whose pods do what these annotations say.
pub(crate) async fn job(cluster: &TestCluster, annotations: &Value) -> Api<Job> {
    let mut template = template(annotations);
    template["spec"]["restartPolicy"] = "Never".into();
    let spec = json!({"template": template, "backoffLimit": 2});
    create(cluster, json!({"metadata": {"name": "work"}, "spec": spec})).await
}

pub(crate) async fn config_map(cluster: &TestCluster, name: &str, value: &str) -> Api<ConfigMap> {
    create(cluster, json!({"metadata": {"name": name}, "data": {"key": value}})).await
}

pub(crate) fn pods(cluster: &TestCluster) -> Api<Pod> {
    Api::default_namespaced(cluster.client())
}
