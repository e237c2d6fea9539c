//! Deployments.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{SCALE, counts, rolling_defaults, selector, template, template_warnings};
use crate::{
    kinds::{
        field::{Errors, Field, child, default_to, spec_of},
        metadata, pod_spec,
    },
    printers,
    strategy::{Column, ScaleFields, Strategy},
};

/// The strategy of `deployments`.
#[derive(Debug)]
pub(crate) struct Deployment;

impl Strategy for Deployment {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        default_to(spec, "replicas", 1);
        pod_spec::template_defaults(spec);
        let numbers = [("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))];
        rolling_defaults(spec, "strategy", &numbers);
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
        if let Some(fields) = object.as_object_mut() {
            child(fields, "status");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        let annotations = |object: &Value| object.pointer("/metadata/annotations").cloned();
        new.get("spec") != old.get("spec") || annotations(new) != annotations(old)
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        spec.non_negative("replicas", &mut errors);
        selector(&spec, "deployment", &mut errors);
        template(&spec, "Deployment", &mut errors);
        strategy(&spec, &mut errors);
        spec.non_negative("minReadySeconds", &mut errors);
        spec.non_negative("revisionHistoryLimit", &mut errors);
        spec.non_negative("progressDeadlineSeconds", &mut errors);
        let ready = spec.int("minReadySeconds").unwrap_or_default();
        if spec.int("progressDeadlineSeconds").is_some_and(|deadline| deadline <= ready) {
            let why = "must be greater than minReadySeconds";
            errors.push(spec.invalid("progressDeadlineSeconds", why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "selector", &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = Vec::new();
        let names = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ];
        counts(new, &names, &mut errors);
        let status = Field::new(&new["status"], "status");
        let (ready, available) = (status.int("readyReplicas"), status.int("availableReplicas"));
        if available > ready.or(Some(0)) {
            errors
                .push(status.invalid("availableReplicas", "cannot be greater than readyReplicas"));
        }
        let count =
            |object: &Value| object.pointer("/status/collisionCount").and_then(Value::as_i64);
        if count(old).is_some_and(|before| count(new).is_none_or(|now| now < before)) {
            errors.push(status.invalid("collisionCount", "cannot be decremented"));
        }
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(new, old)
    }

    fn scale(&self) -> Option<ScaleFields> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::workloads::DEPLOYMENTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::workloads::deployment(object, now)
    }
}

fn strategy(spec: &Field<'_>, errors: &mut Errors) {
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.str("type") {
        "Recreate" if rolling.is_set() => errors.push(FieldError::forbidden(
            rolling.path,
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        "Recreate" => {}
        "RollingUpdate" => {
            metadata::int_or_percent(&rolling, "maxUnavailable", errors);
            metadata::int_or_percent(&rolling, "maxSurge", errors);
            let none = |name: &str| metadata::is_none_of_anything(rolling.raw(name));
            if none("maxUnavailable") && none("maxSurge") {
                errors.push(rolling.invalid("maxUnavailable", "may not be 0 when `maxSurge` is 0"));
            }
            metadata::not_more_than_100_percent(&rolling, "maxUnavailable", errors);
        }
        other => errors.push(FieldError::not_supported(
            strategy.at("type"),
            other,
            &["Recreate", "RollingUpdate"],
        )),
    }
}
