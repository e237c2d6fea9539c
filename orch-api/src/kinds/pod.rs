//! Pods.
//!
//! Source: `pkg/registry/core/pod/strategy.go`.

use std::borrow::Cow;

use orch_core::{Object, status::FieldError};
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, spec_of},
    pod_spec::{self, Within},
    select,
};
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

mod extended_claim;
mod quality;
mod update;
mod warnings;

pub(crate) use warnings::spec_warnings;

/// The strategy of `pods`.
#[derive(Debug)]
pub(crate) struct Pod;

const SELECTABLE: [&str; 9] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

impl Strategy for Pod {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            pod_spec::pod_defaults(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let mut status = json!({ "phase": "Pending", "qosClass": quality::class(object) });
        let gates = object.pointer("/spec/schedulingGates").and_then(Value::as_array);
        if gates.is_some_and(|gates| !gates.is_empty()) {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object["status"] = status;
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "status");
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
        if let (Some(new), Some(old)) = (new.get_mut("metadata"), old.get("metadata")) {
            for name in ["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                carry(new, old, name);
            }
        }
        let class =
            old.pointer("/status/qosClass").cloned().unwrap_or_else(|| quality::class(old).into());
        if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("qosClass".into(), class);
        }
    }

    fn prepare_for_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        update::prepare_subresource(subresource, new, old);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        pod_spec::validate(&spec, Within::Pod, &mut errors);
        if spec.len("ephemeralContainers") > 0 {
            errors.push(spec.forbidden("ephemeralContainers", "cannot be set on create"));
        }
        if !spec.str("nodeName").is_empty() && spec.len("schedulingGates") > 0 {
            let why = "cannot be set until all schedulingGates have been cleared";
            errors.push(spec.forbidden("nodeName", why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        update::validate(new, old)
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = Vec::new();
        let (status, before) = (Field::new(&new["status"], "status"), Field::root(&old["status"]));
        if !status.str("nominatedNodeName").is_empty() {
            pod_spec::named(&status, "nominatedNodeName", names::dns_subdomain, &mut errors);
        }
        for list in ["containerStatuses", "initContainerStatuses"] {
            update::no_way_back(&status, &before, list, new, &mut errors);
        }
        for (i, ip) in status.items("podIPs").enumerate() {
            let text = ip.str("ip");
            let wrong = names::ip_address(text);
            let path = format!("status.podIPs[{i}].ip");
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, text, why)));
        }
        extended_claim::validate(&status, &Field::root(&new["spec"]), &mut errors);
        errors
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value) -> Errors {
        update::validate_subresource(subresource, new, old)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        // Updates that leave the spec alone, as most do, warn of nothing.
        if old.is_some_and(|old| old.get("spec") == new.get("spec")) {
            return Vec::new();
        }
        spec_warnings(&Field::root(new), &Field::new(&new["spec"], "spec"))
    }

    fn grace_period_s(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        let pod = object.to_value();
        let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        let mut period = requested.or(own).unwrap_or(30);
        let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str);
        if bound.unwrap_or_default().is_empty() || matches!(phase, "Failed" | "Succeeded") {
            period = 0;
        }
        Some(if period < 0 { 1 } else { period })
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        match field {
            "spec.hostNetwork" => {
                let on = object.pointer("/spec/hostNetwork").and_then(Value::as_bool);
                Some(Cow::Borrowed(if on == Some(true) { "true" } else { "false" }))
            }
            "status.podIPs" => {
                let status = Field::root(object).get("status");
                let all: Vec<&str> = status.items("podIPs").map(|ip| ip.str("ip")).collect();
                Some(Cow::Owned(all.join(",")))
            }
            _ => select(object, field, &SELECTABLE),
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        &printers::pods::COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::pods::row(object, now)
    }
}
