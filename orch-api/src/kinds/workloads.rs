//! What keeps a number of pods running: Deployment, ReplicaSet, ReplicationController.
//!
//! Source: `pkg/apis/apps/validation`, `pkg/apis/apps/v1/defaults.go`.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{
    field::{Errors, Field, child, default_to},
    metadata,
    pod::spec_warnings,
    pod_spec,
};
use crate::strategy::ScaleFields;

pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod replica_set;
pub(crate) mod replication_controller;
pub(crate) mod stateful_set;

/// Where all of `apps/v1` keep their replicas.
pub(crate) const SCALE: ScaleFields = ScaleFields {
    spec_replicas: Cow::Borrowed("/spec/replicas"),
    status_replicas: Cow::Borrowed("/status/replicas"),
    selector: Cow::Borrowed("/spec/selector"),
};

/// Sets the type of a strategy and, for rolling updates, its numbers.
fn rolling_defaults(spec: &mut Map<String, Value>, name: &str, numbers: &[(&str, Value)]) {
    let Some(strategy) = child(spec, name) else { return };
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] != "RollingUpdate" {
        return;
    }
    if let Some(rolling) = child(strategy, "rollingUpdate") {
        for (name, value) in numbers {
            default_to(rolling, name, value.clone());
        }
    }
}

/// Checks that there is a selector, that it is legal, and that it says something.
fn selector(spec: &Field<'_>, kind: &str, errors: &mut Errors) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        errors.push(FieldError::required(selector.path, ""));
        return;
    }
    metadata::label_selector(&selector, errors);
    if metadata::selector_is_empty(selector.value) {
        let why = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(selector.path, selector.value.clone(), why));
    }
}

/// Checks that the template's labels match the selector.
fn template_matches(spec: &Field<'_>, errors: &mut Errors) {
    let labels = spec.value.pointer("/template/metadata/labels").cloned().unwrap_or(json!({}));
    let selector = spec.raw("selector");
    if !selector.is_null()
        && !metadata::selector_is_empty(selector)
        && !metadata::selector_matches(selector, &labels)
    {
        errors.push(FieldError::invalid(
            spec.at("template.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        ));
    }
}

/// Checks a template of pods that are kept running.
fn template(spec: &Field<'_>, kind: &str, errors: &mut Errors) {
    template_matches(spec, errors);
    let template = spec.get("template");
    pod_spec::template(&template, errors);
    pod_spec::must_restart_always(&template, kind, errors);
}

/// Warnings about the template, unless it is what it was.
pub(crate) fn template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let at = |object: &Value| object.pointer("/spec/template").cloned();
    let Some(template) = at(new) else { return Vec::new() };
    if old.is_some_and(|old| at(old).as_ref() == Some(&template)) {
        return Vec::new();
    }
    let template = Field::new(&template, "spec.template");
    spec_warnings(&template, &template.get("spec"))
}

/// Checks the numbers that a controller reports.
fn counts(object: &Value, names: &[&str], errors: &mut Errors) {
    let status = Field::new(&object["status"], "status");
    metadata::non_negative_all(&status, names, errors);
    let replicas = status.int("replicas").unwrap_or_default();
    for name in names.iter().filter(|n| **n != "replicas" && **n != "observedGeneration") {
        let exempt =
            matches!(*name, "unavailableReplicas" | "collisionCount" | "terminatingReplicas");
        if !exempt && status.int(name).unwrap_or_default() > replicas {
            errors.push(status.invalid(name, "cannot be greater than status.replicas"));
        }
    }
}
