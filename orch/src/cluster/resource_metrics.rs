//! What nodes and pods use, as an aggregated API of this process.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;
use orch_api::outbound::InProcess;
use orch_core::{
    ClientError, ResourceType, Scope, Target,
    client::{Write, WriteOptions},
    informer::Informers,
};
use orch_node::{
    resource_metrics::{MetricsOptions, ResourceMetrics},
    usage::UsageSource,
};
use serde_json::{Value, json};

const API_SERVICES: ResourceType =
    ResourceType::new("apiregistration.k8s.io", "v1", "apiservices", "APIService", Scope::Cluster);
const NAMESPACE: &str = "kube-system";
/// Not `metrics-server`: who installs that one replaces this one by its APIService.
const NAME: &str = "resource-metrics";

/// Serves the metrics of these nodes, and registers them unless somebody else has.
pub(super) async fn serve(
    informers: &Informers,
    sources: Vec<Arc<dyn UsageSource>>,
    options: MetricsOptions,
    in_process: &InProcess,
) -> Result<ResourceMetrics, ClientError> {
    let metrics = ResourceMetrics::new(informers, sources, options);
    in_process.serve(NAMESPACE, NAME, metrics.clone());
    let service = ResourceMetrics::api_service(NAMESPACE, NAME);
    create(informers, API_SERVICES, service).await?;
    create(informers, ResourceType::of::<ClusterRole>(), reader()).await?;
    Ok(metrics)
}

/// Makes an object, unless somebody else has.
async fn create(
    informers: &Informers,
    resource: ResourceType,
    body: Value,
) -> Result<(), ClientError> {
    let write = Write::Create(Target::collection(resource, None), body, WriteOptions::default());
    match informers.client().write(write).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Whoever may see what is in a namespace may see what it uses.
///
/// Source: the manifests of `sigs.k8s.io/metrics-server`.
fn reader() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-view": "true",
            },
        },
        "rules": [{
            "apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"],
            "verbs": ["get", "list", "watch"],
        }],
    })
}
