//! ReplicationControllers.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    counts,
    replica_set::{COUNTS, inherit_labels, replicas_field},
    template_warnings,
};
use crate::{
    kinds::{
        field::{Errors, Field, child, default_to, spec_of},
        pod_spec,
    },
    printers,
    strategy::{Column, ScaleFields, Strategy},
};

/// The strategy of `replicationcontrollers`.
#[derive(Debug)]
pub(crate) struct ReplicationController;

impl Strategy for ReplicationController {
    fn set_defaults(&self, object: &mut Value) {
        inherit_labels(object);
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(spec) = spec_of(object) {
            let empty = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
            if spec.get("selector").is_none_or(empty)
                && let Some(labels) = labels.filter(|l| !empty(l))
            {
                spec.insert("selector".into(), labels);
            }
            default_to(spec, "replicas", 1);
            if spec.get("template").is_some_and(Value::is_object) {
                pod_spec::template_defaults(spec);
            }
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
        spec.non_negative("minReadySeconds", &mut errors);
        let empty = |f: &Field<'_>| f.value.as_object().is_none_or(serde_json::Map::is_empty);
        let selector = spec.get("selector");
        if empty(&selector) {
            errors.push(FieldError::required(&selector.path, ""));
        }
        spec.non_negative("replicas", &mut errors);
        let template = spec.get("template");
        if !template.is_set() {
            errors.push(FieldError::required(&template.path, ""));
            return errors;
        }
        let labels = template.value.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
        if !selector.value.as_object().into_iter().flatten().all(|(k, v)| labels.get(k) == Some(v))
        {
            errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        pod_spec::template(&template, &mut errors);
        pod_spec::must_restart_always(&template, "ReplicationController", &mut errors);
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

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        replicas_field(object, field)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn scale(&self) -> Option<ScaleFields> {
        Some(super::SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::workloads::REPLICATION_CONTROLLERS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::workloads::replica_set(object, now)
    }
}
