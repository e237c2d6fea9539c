//! What each metric of an autoscaler proposes.
//!
//! Source: `computeReplicasForMetric` of
//! `k8s.io/kubernetes/pkg/controller/podautoscaler/horizontal.go`.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec,
        MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
        ResourceMetricStatus,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::quantity::Amount;

use super::{
    metrics::{MetricName, Metrics, MetricsError},
    usage::{Proposal, Question, milli},
};

/// What an autoscaler looks at besides its pods.
pub(super) struct Subject<'a> {
    pub(super) metrics: &'a dyn Metrics,
    pub(super) namespace: &'a str,
    pub(super) selector: &'a str,
    pub(super) question: Question<'a>,
    /// The pods that the target counts.
    pub(super) counted: i32,
}

/// A proposal, how it came to be, and what to show of it.
pub(super) struct Evaluated {
    pub(super) replicas: i32,
    /// As reasons of a change name it.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric proposes nothing: the reason of a condition, and words for it.
pub(super) type Failed = (&'static str, String);

fn quantity(milli: i64) -> Quantity {
    Amount::from_milli(milli).to_quantity()
}

/// A wanted amount in thousandths, if one is given.
fn wanted(field: Option<&Quantity>) -> Option<i64> {
    field.and_then(milli).filter(|milli| *milli > 0)
}

fn identified(identifier: &MetricIdentifier) -> MetricName<'_> {
    MetricName { name: &identifier.name, selector: identifier.selector.as_ref() }
}

fn invalid(what: &str) -> MetricsError {
    MetricsError(format!("invalid {what} metric source: the metric target is missing"))
}

fn blank(type_: &str) -> MetricStatus {
    MetricStatus { type_: type_.to_owned(), ..MetricStatus::default() }
}

fn value_of(proposal: &Proposal) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(quantity(proposal.milli)),
        value: None,
    }
}

impl Subject<'_> {
    pub(super) async fn evaluate(&self, spec: &MetricSpec) -> Result<Evaluated, Failed> {
        let (reason, result) = match spec.type_.as_str() {
            "Resource" => ("FailedGetResourceMetric", self.resource(spec).await),
            "ContainerResource" => {
                ("FailedGetContainerResourceMetric", self.container_resource(spec).await)
            }
            "Pods" => ("FailedGetPodsMetric", self.pods(spec).await),
            "Object" => ("FailedGetObjectMetric", self.object(spec).await),
            "External" => ("FailedGetExternalMetric", self.external(spec).await),
            other => {
                let why = format!("unknown metric source type {other:?}");
                ("InvalidMetricSourceType", Err(MetricsError(why)))
            }
        };
        result.map_err(|error| (reason, error.0))
    }

    async fn resource(&self, spec: &MetricSpec) -> Result<Evaluated, MetricsError> {
        let source = spec.resource.as_ref().ok_or_else(|| invalid("resource"))?;
        let (proposal, name) = self.of_resource(&source.name, None, &source.target).await?;
        let status =
            ResourceMetricStatus { name: source.name.clone(), current: value_of(&proposal) };
        let status = MetricStatus { resource: Some(status), ..blank("Resource") };
        Ok(Evaluated { replicas: proposal.replicas, name, status })
    }

    async fn container_resource(&self, spec: &MetricSpec) -> Result<Evaluated, MetricsError> {
        let source = spec.container_resource.as_ref().ok_or_else(|| invalid("container"))?;
        let container = Some(source.container.as_str());
        let (proposal, name) = self.of_resource(&source.name, container, &source.target).await?;
        let status = ContainerResourceMetricStatus {
            name: source.name.clone(),
            container: source.container.clone(),
            current: value_of(&proposal),
        };
        let status =
            MetricStatus { container_resource: Some(status), ..blank("ContainerResource") };
        Ok(Evaluated { replicas: proposal.replicas, name, status })
    }

    async fn of_resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(Proposal, String), MetricsError> {
        let measured =
            self.metrics.of_resource(self.namespace, resource, self.selector, container).await;
        let measured = measured.map_err(|error| {
            MetricsError(format!("unable to get metrics for resource {resource}: {error}"))
        })?;
        let question = Question { is_cpu: resource == "cpu", ..self.question };
        let what = match container {
            Some(_) => "container resource",
            None => "resource",
        };
        if let Some(wanted) = wanted(target.average_value.as_ref()) {
            let proposal = question.by_average(&measured, wanted)?;
            return Ok((proposal, format!("{resource} {what}")));
        }
        let percent = target.average_utilization.filter(|percent| *percent > 0);
        let percent = percent.ok_or_else(|| {
            let why = "neither a utilization target nor a value target was set";
            MetricsError(format!("invalid {what} metric source: {why}"))
        })?;
        let proposal = question.by_utilization(&measured, resource, container, percent)?;
        Ok((proposal, format!("{resource} {what} utilization (percentage of request)")))
    }

    async fn pods(&self, spec: &MetricSpec) -> Result<Evaluated, MetricsError> {
        let source = spec.pods.as_ref().ok_or_else(|| invalid("pods"))?;
        let name = &source.metric.name;
        let measured =
            self.metrics.of_pods(self.namespace, identified(&source.metric), self.selector).await;
        let measured = measured
            .map_err(|error| MetricsError(format!("unable to get metric {name}: {error}")))?;
        let target = &source.target;
        let wanted = wanted(target.average_value.as_ref()).ok_or_else(|| invalid("pods"))?;
        let proposal = self.question.by_average(&measured, wanted)?;
        let status =
            PodsMetricStatus { metric: source.metric.clone(), current: value_of(&proposal) };
        let status = MetricStatus { pods: Some(status), ..blank("Pods") };
        Ok(Evaluated { replicas: proposal.replicas, name: format!("pods metric {name}"), status })
    }

    async fn object(&self, spec: &MetricSpec) -> Result<Evaluated, MetricsError> {
        let source = spec.object.as_ref().ok_or_else(|| invalid("object"))?;
        let (name, object) = (&source.metric.name, &source.described_object);
        let value =
            self.metrics.of_object(self.namespace, identified(&source.metric), object).await;
        let value = value.map_err(|error| {
            let (kind, on) = (&object.kind, &object.name);
            MetricsError(format!(
                "unable to get metric {name}: {kind} on {} {on}: {error}",
                self.namespace
            ))
        })?;
        let (proposal, current) = self.by_target(value, &source.target, "object")?;
        let status = ObjectMetricStatus {
            metric: source.metric.clone(),
            described_object: object.clone(),
            current,
        };
        let status = MetricStatus { object: Some(status), ..blank("Object") };
        let name = format!("{} metric {name}", object.kind);
        Ok(Evaluated { replicas: proposal.replicas, name, status })
    }

    async fn external(&self, spec: &MetricSpec) -> Result<Evaluated, MetricsError> {
        let source = spec.external.as_ref().ok_or_else(|| invalid("external"))?;
        let name = &source.metric.name;
        let values = self.metrics.external(self.namespace, identified(&source.metric)).await;
        let values = values.map_err(|error| {
            MetricsError(format!(
                "unable to get external metric {}/{name}: {error}",
                self.namespace
            ))
        })?;
        let sum = values.into_iter().fold(0i64, i64::saturating_add);
        let (proposal, current) = self.by_target(sum, &source.target, "external")?;
        let status = ExternalMetricStatus { metric: source.metric.clone(), current };
        let status = MetricStatus { external: Some(status), ..blank("External") };
        let name = format!("external metric {name}");
        Ok(Evaluated { replicas: proposal.replicas, name, status })
    }

    /// A value that the pods cause together, or of which each bears its part.
    fn by_target(
        &self,
        value: i64,
        target: &MetricTarget,
        what: &str,
    ) -> Result<(Proposal, MetricValueStatus), MetricsError> {
        if let Some(wanted) = wanted(target.average_value.as_ref()) {
            let proposal = self.question.by_share(value, wanted, self.counted);
            let current = MetricValueStatus {
                average_value: Some(quantity(proposal.milli)),
                ..MetricValueStatus::default()
            };
            return Ok((proposal, current));
        }
        let wanted = wanted(target.value.as_ref()).ok_or_else(|| invalid(what))?;
        let proposal = self.question.by_value(value, wanted);
        let current =
            MetricValueStatus { value: Some(quantity(value)), ..MetricValueStatus::default() };
        Ok((proposal, current))
    }
}
