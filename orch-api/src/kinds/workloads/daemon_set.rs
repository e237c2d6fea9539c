//! DaemonSets.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{rolling_defaults, selector, template, template_warnings};
use crate::{
    kinds::{
        field::{Errors, Field, child, default_to, spec_of},
        metadata, pod_spec,
    },
    printers,
    strategy::{Column, Strategy},
};

const COUNTS: [&str; 8] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

/// The strategy of `daemonsets`.
#[derive(Debug)]
pub(crate) struct DaemonSet;

impl Strategy for DaemonSet {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            pod_spec::template_defaults(spec);
            let numbers = [("maxUnavailable", json!(1)), ("maxSurge", json!(0))];
            rolling_defaults(spec, "updateStrategy", &numbers);
            default_to(spec, "revisionHistoryLimit", 10);
        }
        if let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) {
            for name in &COUNTS[..4] {
                default_to(status, name, 0);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
        self.set_defaults(object);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        selector(&spec, "daemonset", &mut errors);
        template(&spec, "DaemonSet", &mut errors);
        spec.non_negative("minReadySeconds", &mut errors);
        spec.non_negative("revisionHistoryLimit", &mut errors);
        update_strategy(&spec, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "selector", &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        let status = Field::new(&new["status"], "status");
        metadata::non_negative_all(&status, &COUNTS, &mut errors);
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::workloads::DAEMON_SETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::workloads::daemon_set(object, now)
    }
}

fn update_strategy(spec: &Field<'_>, errors: &mut Errors) {
    let strategy = spec.get("updateStrategy");
    match strategy.str("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            if !rolling.is_set() {
                errors.push(FieldError::required(rolling.path, ""));
                return;
            }
            for name in ["maxUnavailable", "maxSurge"] {
                metadata::int_or_percent(&rolling, name, errors);
                metadata::not_more_than_100_percent(&rolling, name, errors);
            }
            let none = |name: &str| metadata::is_none_of_anything(rolling.raw(name));
            if none("maxUnavailable") && none("maxSurge") {
                errors.push(FieldError::required(
                    rolling.at("maxUnavailable"),
                    "cannot be 0 when maxSurge is 0",
                ));
            } else if !none("maxUnavailable") && !none("maxSurge") {
                errors.push(
                    rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero"),
                );
            }
        }
        other => {
            let path = strategy.at("type");
            errors.push(FieldError::not_supported(path, other, &["RollingUpdate", "OnDelete"]));
        }
    }
}
