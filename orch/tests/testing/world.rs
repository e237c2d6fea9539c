//! What is in the clusters of these tests.

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::Api;
use orch::testing::TestCluster;
use serde_json::{Value, json};

use crate::objects::{create, template, workload};

/// A Deployment with the name `web`, and where it is.
pub(crate) async fn deployment(cluster: &TestCluster, replicas: usize) -> Api<Deployment> {
    create::<Deployment>(cluster, workload("web", replicas)).await;
    Api::default_namespaced(cluster.client())
}

/// A Job whose pods do what these annotations say.
pub(crate) async fn job(cluster: &TestCluster, annotations: &Value) -> Api<Job> {
    let mut template = template("work");
    template["metadata"]["annotations"] = annotations.clone();
    template["spec"]["restartPolicy"] = "Never".into();
    let spec = json!({"template": template, "backoffLimit": 2});
    create::<Job>(cluster, json!({"metadata": {"name": "work"}, "spec": spec})).await;
    Api::default_namespaced(cluster.client())
}

pub(crate) async fn config_map(cluster: &TestCluster, name: &str, value: &str) -> Api<ConfigMap> {
    let map = json!({"metadata": {"name": name}, "data": {"key": value}});
    create::<ConfigMap>(cluster, map).await;
    Api::default_namespaced(cluster.client())
}

pub(crate) fn pods(cluster: &TestCluster) -> Api<Pod> {
    Api::default_namespaced(cluster.client())
}
