//! Events, in the core group and in `events.k8s.io`.
//!
//! Source: `pkg/apis/core/validation/events.go`, `pkg/registry/core/event/strategy.go`.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    field::{Errors, Field, child, default_to},
    select,
};
use crate::{
    printers,
    strategy::{Column, Strategy},
};

/// Fields by their names in the core group.
const CORE: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// And by their names in `events.k8s.io`, which has no `source`.
///
/// Source: `pkg/apis/events/v1/conversion.go`.
const EVENTS: [(&str, &str); 10] = [
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reportingController", "reportingComponent"),
    ("reason", "reason"),
    ("type", "type"),
];

/// All of them, once each.
const SELECTABLE: [&str; 19] = {
    let mut all = [""; 19];
    let mut at = 0;
    while at < CORE.len() {
        all[at] = CORE[at];
        at += 1;
    }
    while at < all.len() {
        all[at] = EVENTS[at - CORE.len()].0;
        at += 1;
    }
    all
};

/// The strategy of `events` of both groups.
#[derive(Debug)]
pub(crate) struct Event;

impl Strategy for Event {
    fn set_defaults(&self, object: &mut Value) {
        // What one version calls by one name the other calls by another; the core names are the
        // ones that v1 clients always find.
        let Some(fields) = object.as_object_mut() else { return };
        if !fields.contains_key("regarding") {
            default_to(fields, "reportingComponent", "");
            default_to(fields, "reportingInstance", "");
            child(fields, "source");
        }
    }

    fn prepare_for_create(&self, _object: &mut Value) {}

    fn prepare_for_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let event = Field::root(object);
        let about = if event.has("regarding") { "regarding" } else { "involvedObject" };
        let about = event.get(about);
        let (own, involved) = (event.get("metadata").str("namespace"), about.str("namespace"));
        // What is about a cluster-wide object stands in the default namespace, or the system's.
        let fits = match involved {
            "" => matches!(own, "" | "default" | "kube-system"),
            involved => own.is_empty() || own == involved,
        };
        if !fits {
            errors.push(FieldError::invalid(
                about.at("namespace"),
                involved,
                "does not match event.namespace",
            ));
        }
        errors
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        crate::names::dns_subdomain(name)
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let in_core = EVENTS.iter().find(|(name, _)| *name == field).map(|(_, core)| *core);
        match in_core.unwrap_or(field) {
            "source" => {
                let component = object.pointer("/source/component").and_then(Value::as_str);
                let reporter = object["reportingComponent"].as_str().unwrap_or_default();
                Some(Cow::Borrowed(component.filter(|c| !c.is_empty()).unwrap_or(reporter)))
            }
            name => select(object, name, &CORE),
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn selects_in(&self, group: &str, field: &str) -> bool {
        match group {
            "events.k8s.io" => EVENTS.iter().any(|(name, _)| *name == field),
            _ => CORE.contains(&field),
        }
    }

    fn columns(&self) -> &'static [Column] {
        &printers::cluster::EVENTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::cluster::event(object, now)
    }
}
