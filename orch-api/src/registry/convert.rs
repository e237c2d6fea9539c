//! Between the version that is served and the one that is stored.
//!
//! Most versions of a kind have one shape, and only `apiVersion` changes. Two do not: events of
//! the core group and of `events.k8s.io`, and horizontal pod autoscalers.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/events/v1/conversion.go`, `pkg/apis/autoscaling/v1`.

use std::sync::Arc;

use orch_core::{ApiError, Object};
use serde_json::{Map, Value, json};

use crate::catalog::Resource;

/// The object as a client of this version sees it.
pub(crate) fn to_served_object(
    resource: &Resource,
    object: Arc<Object>,
) -> Result<Arc<Object>, ApiError> {
    if !resource.converts() || resource.converter().is_some() {
        return Ok(object);
    }
    let mut value = object.to_value();
    if let Some(version) = &resource.custom {
        let stored = value.clone();
        value["apiVersion"] = resource.api_version.clone().into();
        version.structural().set_defaults(&mut value);
        if value == stored {
            return Ok(object);
        }
    }
    to_served(resource, &mut value);
    Ok(Arc::new(Object::from_value(&value).map_err(ApiError::internal)?))
}

pub(super) fn to_served(resource: &Resource, value: &mut Value) {
    // What a webhook converts has been converted when it was read.
    if !resource.converts() || resource.converter().is_some() {
        return;
    }
    match (&*resource.of.plural, &*resource.of.group) {
        ("events", _) => rename(value, &CORE_TO_EVENTS),
        ("horizontalpodautoscalers", _) => autoscaler_to_v1(value),
        _ => {}
    }
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.of.kind.as_ref().into();
}

pub(super) fn to_stored(resource: &Resource, value: &mut Value) {
    if !resource.converts() || resource.converter().is_some() {
        return;
    }
    match (&*resource.of.plural, &*resource.of.group) {
        ("events", _) => {
            let back: Vec<(&str, &str)> = CORE_TO_EVENTS.iter().map(|(a, b)| (*b, *a)).collect();
            rename(value, &back);
        }
        ("horizontalpodautoscalers", _) => autoscaler_to_v2(value),
        _ => {}
    }
    value["apiVersion"] = resource.stored_api_version.clone().into();
    value["kind"] = resource.stored.kind.as_ref().into();
}

const CORE_TO_EVENTS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(value: &mut Value, fields: &[(&str, &str)]) {
    let Some(object) = value.as_object_mut() else { return };
    for (from, to) in fields {
        if let Some(field) = object.remove(*from) {
            object.insert((*to).to_owned(), field);
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]
            .get("current")
            .or(metric["resource"].get("target"))
            .is_some_and(|of| of.get("averageUtilization").is_some_and(|number| !number.is_null()))
}

/// What version 1 has no field for travels in annotations, so that nothing is lost.
fn autoscaler_to_v1(value: &mut Value) {
    let mut notes = Map::new();
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = spec.remove("metrics") {
            if let Some(at) = metrics.iter().position(is_cpu_utilization) {
                let cpu = metrics.remove(at);
                let target = cpu["resource"]["target"]["averageUtilization"].clone();
                spec.insert("targetCPUUtilizationPercentage".into(), target);
            }
            if !metrics.is_empty() {
                notes.insert(METRICS.into(), Value::Array(metrics).to_string().into());
            }
        }
        if let Some(behavior) = spec.remove("behavior") {
            notes.insert(BEHAVIOR.into(), behavior.to_string().into());
        }
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = status.remove("currentMetrics") {
            if let Some(at) = metrics.iter().position(is_cpu_utilization) {
                let cpu = metrics.remove(at);
                let current = cpu["resource"]["current"]["averageUtilization"].clone();
                status.insert("currentCPUUtilizationPercentage".into(), current);
            }
            if !metrics.is_empty() {
                notes.insert(CURRENT_METRICS.into(), Value::Array(metrics).to_string().into());
            }
        }
        if let Some(conditions) = status.remove("conditions") {
            notes.insert(CONDITIONS.into(), conditions.to_string().into());
        }
    }
    if !notes.is_empty() {
        match value["metadata"]["annotations"].as_object_mut() {
            Some(annotations) => annotations.extend(notes),
            None => value["metadata"]["annotations"] = Value::Object(notes),
        }
    }
}

fn cpu_metric(target: &Value, field: &str) -> Value {
    let mut of = json!({"averageUtilization": target});
    if field == "target" {
        of["type"] = "Utilization".into();
    }
    json!({"type": "Resource", "resource": {"name": "cpu", field: of}})
}

fn take_note(value: &mut Value, key: &str) -> Option<Value> {
    let text = value["metadata"]["annotations"].as_object_mut()?.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn autoscaler_to_v2(value: &mut Value) {
    let (metrics, behavior) = (take_note(value, METRICS), take_note(value, BEHAVIOR));
    let (current, conditions) = (take_note(value, CURRENT_METRICS), take_note(value, CONDITIONS));
    let list = |note: Option<Value>| match note {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list(metrics);
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.insert(0, cpu_metric(&target, "target"));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), Value::Array(metrics));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        let mut metrics = list(current);
        if let Some(current) = status.remove("currentCPUUtilizationPercentage") {
            metrics.insert(0, cpu_metric(&current, "current"));
        }
        if !metrics.is_empty() {
            status.insert("currentMetrics".into(), Value::Array(metrics));
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_survives_the_way_through_version_one() {
        let v2 = json!({
            "metadata": {"name": "a"},
            "spec": {
                "metrics": [
                    {"type": "Resource", "resource": {
                        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Resource", "resource": {
                        "name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            },
        });
        let mut value = v2.clone();
        autoscaler_to_v1(&mut value);
        assert_eq!(value["spec"], json!({"targetCPUUtilizationPercentage": 50}));
        autoscaler_to_v2(&mut value);
        value["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(value, v2);
    }
}
