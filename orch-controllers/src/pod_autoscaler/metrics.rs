//! Where an autoscaler's measurements come from.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/podautoscaler/metrics`, `k8s.io/metrics`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::autoscaling::v2::CrossVersionObjectReference,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use orch_core::{
    Client, ClientError, ResourceType, Scope, Target,
    client::{ListOptions, Read, ReadReply},
    quantity::Amount,
};
use serde_json::Value;

/// What a pod used, over a span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodMeasurement {
    /// When the span ended.
    pub at: Timestamp,
    /// How long it was.
    pub window: Duration,
    /// The amount, in thousandths.
    pub milli: i64,
}

/// Measurements by pod name.
pub type PodMeasurements = BTreeMap<String, PodMeasurement>;

/// No measurement was had. The text is what a user reads in the autoscaler's conditions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetricsError(pub String);

/// Which measurements of one name are meant.
#[derive(Clone, Copy, Debug)]
pub struct MetricName<'a> {
    /// The name.
    pub name: &'a str,
    /// Labels that a measurement must have, if any are asked for.
    pub selector: Option<&'a LabelSelector>,
}

/// Gives an autoscaler its measurements. All methods may be called at the same time, and each
/// every 15 s for every autoscaler. Object-safe.
///
/// Resources are measured by [`ResourceMetricsApi`] by default. The other kinds need an adapter of
/// some monitoring system: by default they answer as upstream does where none is registered.
#[async_trait]
pub trait Metrics: Send + Sync + 'static {
    /// What the pods of a selector use of a resource: in all, or one container of each.
    ///
    /// # Errors
    /// [`MetricsError`] if there are no measurements.
    async fn of_resource(
        &self,
        namespace: &str,
        resource: &str,
        selector: &str,
        container: Option<&str>,
    ) -> Result<PodMeasurements, MetricsError>;

    /// A metric of each of the pods of a selector.
    ///
    /// # Errors
    /// [`MetricsError`] if there are no measurements.
    async fn of_pods(
        &self,
        _namespace: &str,
        _metric: MetricName<'_>,
        _selector: &str,
    ) -> Result<PodMeasurements, MetricsError> {
        Err(MetricsError(NO_CUSTOM_METRICS.to_owned()))
    }

    /// A metric of one object, in thousandths.
    ///
    /// # Errors
    /// [`MetricsError`] if there is no measurement.
    async fn of_object(
        &self,
        _namespace: &str,
        _metric: MetricName<'_>,
        _object: &CrossVersionObjectReference,
    ) -> Result<i64, MetricsError> {
        Err(MetricsError(NO_CUSTOM_METRICS.to_owned()))
    }

    /// The values of a metric of something outside of the cluster, in thousandths.
    ///
    /// # Errors
    /// [`MetricsError`] if there are no measurements.
    async fn external(
        &self,
        _namespace: &str,
        _metric: MetricName<'_>,
    ) -> Result<Vec<i64>, MetricsError> {
        Err(MetricsError(NO_EXTERNAL_METRICS.to_owned()))
    }
}

impl fmt::Debug for dyn Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

const NO_CUSTOM_METRICS: &str = "unable to fetch metrics from custom metrics API: no custom \
                                 metrics API (custom.metrics.k8s.io) registered";
const NO_EXTERNAL_METRICS: &str = "unable to fetch metrics from external metrics API: the server \
                                   could not find the requested resource";

const POD_METRICS: ResourceType =
    ResourceType::new("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", Scope::Namespaced);

/// Measurements of `metrics.k8s.io`, as a metrics server gives them.
#[derive(Clone, Debug)]
pub struct ResourceMetricsApi(Arc<dyn Client>);

impl ResourceMetricsApi {
    /// Asks the cluster of this client.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self(client)
    }
}

fn failed(error: &ClientError) -> MetricsError {
    MetricsError(format!("unable to fetch metrics from resource metrics API: {error}"))
}

#[async_trait]
impl Metrics for ResourceMetricsApi {
    async fn of_resource(
        &self,
        namespace: &str,
        resource: &str,
        selector: &str,
        container: Option<&str>,
    ) -> Result<PodMeasurements, MetricsError> {
        let target = Target::collection(POD_METRICS, Some(namespace));
        let options =
            ListOptions { label_selector: Some(selector.to_owned()), ..ListOptions::default() };
        let reply = self.0.read(Read::List(target, options)).await.map_err(|e| failed(&e))?;
        let ReadReply::List(list) = reply else { return Ok(PodMeasurements::new()) };
        if list.items.is_empty() {
            return Err(MetricsError("no metrics returned from resource metrics API".to_owned()));
        }
        let mut measured = PodMeasurements::new();
        for item in list.items {
            let (key, value) = (item.key(), item.to_value());
            if let Some(measurement) = read(&value, resource, container)? {
                measured.insert(key.name, measurement);
            }
        }
        Ok(measured)
    }
}

/// A pod some of whose containers are not measured counts as not measured.
fn read(
    pod: &Value,
    resource: &str,
    container: Option<&str>,
) -> Result<Option<PodMeasurement>, MetricsError> {
    let containers = pod["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut milli: i64 = 0;
    let mut found = false;
    for measured in containers {
        if container.is_some_and(|wanted| measured["name"] != wanted) {
            continue;
        }
        let usage = measured["usage"][resource].as_str();
        let Some(amount) = usage.and_then(|usage| usage.parse::<Amount>().ok()) else {
            return Ok(None);
        };
        milli = milli.saturating_add(amount.milli_value());
        found = true;
    }
    if let Some(container) = container.filter(|_| !found) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!("container {container} not present in metrics for pod {name}");
        return Err(MetricsError(why));
    }
    let at = pod["timestamp"].as_str().and_then(|at| at.parse().ok());
    let window = pod["window"].as_str().and_then(|window| window.parse().ok());
    let window: jiff::SignedDuration = window.unwrap_or_default();
    Ok(found.then(|| PodMeasurement {
        at: at.unwrap_or(Timestamp::UNIX_EPOCH),
        window: Duration::try_from(window).unwrap_or_default(),
        milli,
    }))
}
