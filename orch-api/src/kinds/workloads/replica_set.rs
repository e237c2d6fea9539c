//! ReplicaSets.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{SCALE, counts, selector, template, template_warnings};
use crate::{
    kinds::{
        field::{Errors, Field, child, default_to, spec_of},
        metadata, pod_spec,
    },
    printers,
    strategy::{Column, ScaleFields, Strategy},
};

/// The numbers that the status of a ReplicaSet and a ReplicationController reports.
pub(super) const COUNTS: [&str; 5] = [
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
];

/// The strategy of `replicasets`.
#[derive(Debug)]
pub(crate) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            default_to(spec, "replicas", 1);
            pod_spec::template_defaults(spec);
        }
        if let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) {
            default_to(status, "replicas", 0);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        spec.non_negative("replicas", &mut errors);
        spec.non_negative("minReadySeconds", &mut errors);
        selector(&spec, "replicaset", &mut errors);
        template(&spec, "ReplicaSet", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "selector", &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        counts(new, &COUNTS, &mut errors);
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(new, old)
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        replicas_field(object, field)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn scale(&self) -> Option<ScaleFields> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::workloads::REPLICA_SETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::workloads::replica_set(object, now)
    }
}

/// `status.replicas` as text.
pub(super) fn replicas_field<'a>(object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
    (field == "status.replicas").then(|| {
        let replicas = object.pointer("/status/replicas").and_then(Value::as_i64);
        Cow::Owned(replicas.unwrap_or_default().to_string())
    })
}

/// Gives a label-less object its template's labels.
pub(super) fn inherit_labels(object: &mut Value) {
    metadata::inherit_template_labels(object);
}
