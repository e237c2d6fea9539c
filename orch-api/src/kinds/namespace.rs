//! Namespaces.
//!
//! Source: `pkg/registry/core/namespace/strategy.go`.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, default_to},
    select,
};
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

/// The label that always says the namespace's own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";
const SELECTABLE: [&str; 2] = ["name", "status.phase"];

/// The strategy of `namespaces`.
#[derive(Debug)]
pub(crate) struct Namespace;

impl Strategy for Namespace {
    fn set_defaults(&self, object: &mut Value) {
        let name = object["metadata"]["name"].clone();
        if name.as_str().unwrap_or_default().is_empty() {
            return;
        }
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        default_to(meta, "labels", json!({}));
        if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
            labels.insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        if !object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let Some(spec) = object["spec"].as_object_mut() else { return };
        default_to(spec, "finalizers", json!([]));
        if let Some(finalizers) = spec.get_mut("finalizers").and_then(Value::as_array_mut)
            && !finalizers.iter().any(|f| f == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        for name in ["spec", "status"] {
            carry(new, old, name);
        }
    }

    fn prepare_for_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        carry(new, old, "status");
        if subresource != "finalize" {
            carry(new, old, "spec");
        }
    }

    fn validate(&self, object: &Value) -> Errors {
        finalizers(object)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let deleted = new["metadata"].get("deletionTimestamp").is_some_and(|t| !t.is_null());
        let phase = new.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        let why = match (deleted, phase) {
            (false, "Active") | (true, "Terminating") => return Vec::new(),
            (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
            (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        };
        vec![FieldError::invalid("status.Phase", phase, why)]
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> Errors {
        finalizers(new)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        if field == "name" {
            return object["metadata"]["name"].as_str().map(Cow::Borrowed);
        }
        select(object, field, &SELECTABLE)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        &printers::cluster::NAMESPACES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::cluster::namespace(object, now)
    }
}

fn finalizers(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    for (i, name) in spec.strs("finalizers").enumerate() {
        let path = format!("spec.finalizers[{i}]");
        let wrong = names::qualified_name(name);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, name, why)));
        if !name.contains('/') && name != FINALIZER {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, name, why));
        }
    }
    errors
}
