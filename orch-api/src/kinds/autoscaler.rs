//! What HorizontalPodAutoscalers may say.
//!
//! Source: `pkg/apis/autoscaling/validation`.

use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    field::{Errors, Field},
    pod_spec::resources,
};
use crate::names;

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const WINDOW_S_MAX: i64 = 3600;
const PERIOD_S_MAX: i64 = 1800;

/// Checks an autoscaler in the shape of version 2.
pub(super) fn autoscaler(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or_default());
    if min.is_some_and(|min| min < 1) {
        errors.push(spec.invalid("minReplicas", "must be greater than or equal to 1"));
    }
    if max < 1 {
        errors.push(FieldError::invalid(spec.at("maxReplicas"), max, "must be greater than 0"));
    }
    if min.is_some_and(|min| min > max) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(spec.at("maxReplicas"), max, why));
    }
    reference(&spec.get("scaleTargetRef"), &mut errors);
    for metric in spec.items("metrics") {
        self::metric(&metric, &mut errors);
    }
    if let Some(behavior) = spec.opt("behavior") {
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = behavior.opt(direction) {
                scaling(&rules, &mut errors);
            }
        }
    }
    errors
}

fn reference(target: &Field<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        if target.str(field).is_empty() {
            errors.push(target.required(field, ""));
        } else {
            let wrong = names::path_segment(target.str(field));
            errors.extend(wrong.into_iter().map(|why| target.invalid(field, why)));
        }
    }
}

/// A metric fills in the source that its type names, and no other.
fn metric(metric: &Field<'_>, errors: &mut Errors) {
    let kind = metric.str("type");
    if kind.is_empty() {
        errors.push(metric.required("type", "must specify a metric source type"));
    }
    let Some((_, own)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
        if !kind.is_empty() {
            let known = SOURCES.map(|(known, _)| known);
            errors.push(FieldError::not_supported(metric.at("type"), kind, &known));
        }
        return;
    };
    for (_, field) in SOURCES {
        if field != *own && metric.has(field) {
            errors.push(metric.forbidden(field, "must populate the given metric source only"));
        }
    }
    let Some(source) = metric.opt(own) else {
        errors.push(metric.required(own, "must populate information for the given metric source"));
        return;
    };
    if matches!(kind, "External" | "Object" | "Pods") {
        let identifier = source.get("metric");
        if identifier.str("name").is_empty() {
            errors.push(identifier.required("name", "must specify a metric name"));
        }
    }
    if kind == "Object" {
        reference(&source.get("describedObject"), errors);
    }
    if kind == "ContainerResource" && source.str("container").is_empty() {
        errors.push(source.required("container", "must specify a container"));
    }
    if kind.ends_with("Resource") && source.str("name").is_empty() {
        errors.push(source.required("name", "must specify a resource name"));
    }
    target(kind, &source.get("target"), errors);
}

fn target(source: &str, target: &Field<'_>, errors: &mut Errors) {
    match target.str("type") {
        "" => errors.push(target.required("type", "must specify a metric target type")),
        "AverageValue" | "Utilization" | "Value" => {}
        _ => {
            let why = "must be either Utilization, Value, or AverageValue";
            errors.push(target.invalid("type", why));
        }
    }
    let positive = |name: &str| {
        let amount = resources::amount(target.raw(name));
        amount.is_some_and(|amount| !amount.is_zero() && !amount.is_negative())
    };
    for name in ["value", "averageValue"] {
        if target.has(name) && !positive(name) {
            errors.push(target.invalid(name, "must be positive"));
        }
    }
    if target.int("averageUtilization").is_some_and(|share| share < 1) {
        errors.push(target.invalid("averageUtilization", "must be greater than 0"));
    }
    let (value, average) = (target.has("value"), target.has("averageValue"));
    match source {
        "Resource" | "ContainerResource" => match (target.has("averageUtilization"), average) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                errors.push(target.required("averageUtilization", why));
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                errors.push(target.forbidden("averageValue", why));
            }
            _ => {}
        },
        "Object" if !value && !average => {
            let why = "must set either a target value or averageValue";
            errors.push(target.required("averageValue", why));
        }
        "Pods" if !positive("averageValue") => {
            let why = "must specify a positive target averageValue";
            errors.push(target.required("averageValue", why));
        }
        "External" if value && average => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(target.forbidden("value", why));
        }
        "External" if !value && !average => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(target.required("averageValue", why));
        }
        _ => {}
    }
}

fn scaling(rules: &Field<'_>, errors: &mut Errors) {
    let window = "stabilizationWindowSeconds";
    match rules.int(window) {
        Some(seconds) if seconds < 0 => {
            errors.push(rules.invalid(window, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_S_MAX => {
            errors.push(rules.invalid(window, "must be less than or equal to 3600"));
        }
        _ => {}
    }
    rules.one_of("selectPolicy", &["Disabled", "Max", "Min"], true, errors);
    if rules.len("policies") == 0 {
        errors.push(rules.required("policies", "must specify at least one Policy"));
    }
    for policy in rules.items("policies") {
        if !matches!(policy.str("type"), "Pods" | "Percent") {
            let known = ["Percent", "Pods"];
            errors.push(FieldError::not_supported(policy.at("type"), policy.str("type"), &known));
        }
        for name in ["value", "periodSeconds"] {
            if policy.int(name).unwrap_or_default() <= 0 {
                errors.push(policy.invalid(name, "must be greater than zero"));
            }
        }
        if policy.int("periodSeconds").is_some_and(|seconds| seconds > PERIOD_S_MAX) {
            errors.push(policy.invalid("periodSeconds", "must be less than or equal to 1800"));
        }
    }
}
