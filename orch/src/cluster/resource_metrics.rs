//! What nodes and pods use, as an aggregated API of this process.

use std::sync::Arc;

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
    let body = ResourceMetrics::api_service(NAMESPACE, NAME);
    let write =
        Write::Create(Target::collection(API_SERVICES, None), body, WriteOptions::default());
    match informers.client().write(write).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(metrics),
    }
}
