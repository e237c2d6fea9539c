//! Nodes.
//!
//! Source: `pkg/registry/core/node/strategy.go`, `ValidateNode`, `ValidateNodeUpdate`.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, child, child_opt, spec_of},
    metadata,
    pod_spec::{resources, taint_effects},
};
use crate::{
    names, printers,
    strategy::{Column, Strategy},
};

/// The strategy of `nodes`.
#[derive(Debug)]
pub(crate) struct Node;

impl Strategy for Node {
    fn set_defaults(&self, object: &mut Value) {
        spec_of(object);
        let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) else {
            return;
        };
        for list in ["capacity", "allocatable"] {
            if let Some(list) = child_opt(status, list) {
                resources::canonicalize(list);
            }
        }
        // A node without allocatable can give out all it has.
        let none =
            status.get("allocatable").and_then(Value::as_object).is_none_or(|a| a.is_empty());
        if none && let Some(capacity) = status.get("capacity").cloned() {
            status.insert("allocatable".into(), capacity);
        }
    }

    // Unlike most kinds, a node may come with its status: the agent registers it so.
    fn prepare_for_create(&self, _object: &mut Value) {}

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        taints(&spec, &mut errors);
        for (i, range) in spec.strs("podCIDRs").enumerate() {
            let path = format!("spec.podCIDRs[{i}]");
            let wrong = names::cidr(range);
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, range, why)));
        }
        status(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        let (spec, before) = (Field::new(&new["spec"], "spec"), Field::root(&old["spec"]));
        if before.len("podCIDRs") > 0 && spec.raw("podCIDRs") != before.raw("podCIDRs") {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(spec.forbidden("podCIDRs", why));
        }
        let id = "providerID";
        if !before.str(id).is_empty() && spec.str(id) != before.str(id) {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.push(spec.forbidden(id, why));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        status(new, &mut errors);
        errors
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "spec.unschedulable").then(|| {
            let on = object.pointer("/spec/unschedulable") == Some(&json!(true));
            Cow::Borrowed(if on { "true" } else { "false" })
        })
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn columns(&self) -> &'static [Column] {
        &printers::cluster::NODES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::cluster::node(object, now)
    }
}

fn taints(spec: &Field<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for taint in spec.items("taints") {
        metadata::label_name(&taint.at("key"), taint.str("key"), errors);
        for why in names::label_value(taint.str("value")) {
            errors.push(taint.invalid("value", why));
        }
        taint_effects(&taint, false, errors);
        let pair = (taint.str("key"), taint.str("effect"));
        if seen.contains(&pair) {
            let mut error = FieldError::duplicate(&taint.path, taint.value.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.insert(pair);
    }
}

fn status(object: &Value, errors: &mut Errors) {
    let status = Field::new(&object["status"], "status");
    for list in ["capacity", "allocatable"] {
        for (name, value) in status.entries(list) {
            resources::quantity(&status.at_key(list, name), name, value, errors);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for address in status.items("addresses") {
        let pair = (address.str("type"), address.str("address"));
        if seen.contains(&pair) {
            errors.push(FieldError::duplicate(&address.path, address.value.clone()));
        }
        seen.insert(pair);
    }
}
