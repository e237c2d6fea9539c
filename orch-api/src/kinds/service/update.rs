//! What an update of a Service keeps, drops and may not change.
//!
//! Source: `pkg/registry/core/service/storage/storage.go` and `strategy.go`.

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{has_cluster_ip, has_node_ports};
use crate::kinds::field::{Errors, Field, children};

fn kind_of(object: &Value) -> &str {
    object.pointer("/spec/type").and_then(Value::as_str).unwrap_or_default()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object["spec"][name].as_str().unwrap_or_default()
}

fn spec_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("spec")?.as_object_mut()
}

/// An update that leaves out what was allocated keeps it.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    let (before, after) = (kind_of(old).to_owned(), kind_of(new).to_owned());
    let empty = text(new, "clusterIP").is_empty();
    let none_listed = new["spec"]["clusterIPs"].as_array().is_none_or(Vec::is_empty);
    let Some(spec) = spec_mut(new) else { return };
    if has_cluster_ip(&before) && has_cluster_ip(&after) {
        if empty && none_listed {
            for name in ["clusterIP", "clusterIPs"] {
                copy(spec, old, name);
            }
        } else if empty {
            let first = spec["clusterIPs"][0].clone();
            spec.insert("clusterIP".into(), first);
        } else if none_listed {
            // The list keeps what it had behind the first address, unless that one changed.
            let first = spec["clusterIP"].clone();
            let same = old["spec"]["clusterIP"] == first;
            let list = if same { old["spec"]["clusterIPs"].clone() } else { json!([first]) };
            spec.insert("clusterIPs".into(), list);
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(name).is_none_or(Value::is_null) {
                copy(spec, old, name);
            }
        }
    }
    if has_node_ports(&before) && has_node_ports(&after) {
        keep_node_ports(spec, old);
    }
    let local = |kind: &str, policy: Option<&Value>| {
        kind == "LoadBalancer" && policy.is_some_and(|p| p == "Local")
    };
    if local(&before, old["spec"].get("externalTrafficPolicy"))
        && local(&after, spec.get("externalTrafficPolicy"))
        && spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or_default() == 0
    {
        copy(spec, old, "healthCheckNodePort");
    }
}

fn copy(spec: &mut Map<String, Value>, old: &Value, name: &str) {
    if let Some(value) = old["spec"].get(name) {
        spec.insert(name.to_owned(), value.clone());
    }
}

/// Ports are matched by name: everything else about them may have changed.
fn keep_node_ports(spec: &mut Map<String, Value>, old: &Value) {
    let number = |port: &Map<String, Value>| {
        port.get("nodePort").and_then(Value::as_i64).unwrap_or_default()
    };
    let mut taken: Vec<i64> = children(spec, "ports").map(|port| number(port)).collect();
    let before = Field::root(&old["spec"]);
    for port in children(spec, "ports").filter(|port| number(port) == 0) {
        let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
        let kept = before.items("ports").find(|old| old.str("name") == name);
        let kept = kept.and_then(|old| old.int("nodePort")).filter(|n| !taken.contains(n));
        if let Some(kept) = kept.filter(|n| *n != 0) {
            taken.push(kept);
            port.insert("nodePort".into(), kept.into());
        }
    }
}

/// Takes out what a Service of the new type has no use for, unless the client just set it.
pub(super) fn drop_of_other_type(new: &mut Value, old: &Value) {
    let (before, after) = (kind_of(old).to_owned(), kind_of(new).to_owned());
    let node_ports = |object: &Value| -> Vec<i64> {
        let spec = Field::root(&object["spec"]);
        spec.items("ports").map(|port| port.int("nodePort").unwrap_or_default()).collect()
    };
    let same_ports = node_ports(new) == node_ports(old);
    let same = |new: &Value, name: &str| new["spec"].get(name) == old["spec"].get(name);
    let mut gone = Vec::new();
    if has_cluster_ip(&before)
        && !has_cluster_ip(&after)
        && same(new, "clusterIP")
        && same(new, "clusterIPs")
    {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    let mut dropped = |name: &'static str, had: bool, has: bool, unchanged: bool| {
        if had && !has && unchanged {
            gone.push(name);
        }
    };
    let balanced = |kind: &str| kind == "LoadBalancer";
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
        dropped(name, balanced(&before), balanced(&after), same(new, name));
    }
    let external = |object: &Value, kind: &str| {
        let ips = object["spec"]["externalIPs"].as_array().is_some_and(|l| !l.is_empty());
        has_node_ports(kind) || (kind == "ClusterIP" && ips)
    };
    let name = "externalTrafficPolicy";
    dropped(name, external(old, &before), external(new, &after), same(new, name));
    let name = "internalTrafficPolicy";
    dropped(name, has_cluster_ip(&before), has_cluster_ip(&after), same(new, name));
    let Some(spec) = spec_mut(new) else { return };
    for name in gone {
        spec.remove(name);
    }
    if has_node_ports(&before) && !has_node_ports(&after) && same_ports {
        for port in children(spec, "ports") {
            port.remove("nodePort");
        }
    }
}

/// Takes empty allocations out of a new Service, so that they read as not given.
pub(super) fn drop_unused(object: &mut Value) {
    let Some(spec) = spec_mut(object) else { return };
    if spec.get("clusterIP").is_some_and(|ip| ip == "") {
        spec.remove("clusterIP");
    }
    for port in children(spec, "ports") {
        if port.get("nodePort").is_some_and(|n| *n == json!(0)) {
            port.remove("nodePort");
        }
    }
}

/// Addresses stay while the Service has any.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (before, after) = (kind_of(old), kind_of(new));
    if !has_cluster_ip(before) || !has_cluster_ip(after) {
        return errors;
    }
    let ips = |object: &Value| object["spec"]["clusterIPs"].clone();
    let first = |ips: &Value| ips[0].as_str().unwrap_or_default().to_owned();
    let (old_ips, new_ips) = (ips(old), ips(new));
    if !first(&old_ips).is_empty() && first(&old_ips) != first(&new_ips) {
        let why = "may not change once set";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", new_ips, why));
    }
    errors
}
