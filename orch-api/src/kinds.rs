//! The behaviour of every built-in kind, by group and plural.
//!
//! Each kind is a [`Strategy`] in a file of its own (or with its kin); what many share stands
//! beside them: [`pod_spec`] for everything that holds pods, [`metadata`] for labels, selectors,
//! ports and percentages. Defaults and checks work on JSON values, because typed structs would
//! lose what they do not know; a [`field::Field`] is a value that knows its path.

use std::borrow::Cow;

use serde_json::Value;

use crate::strategy::Strategy;

pub(crate) use field::Field;
pub(crate) use service::{has_cluster_ip, has_node_ports};

mod config;
mod event;
mod field;
mod metadata;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod plain;
mod pod;
mod pod_spec;
mod service;
mod workloads;

/// The strategy of a resource. What has no behaviour of its own gets one that fits any kind with
/// `spec` and `status`; so do kinds that this crate does not know.
pub fn strategy(group: &str, plural: &str) -> &'static dyn Strategy {
    match group {
        "" => core(plural),
        "apps" => apps(plural),
        "events.k8s.io" if plural == "events" => &event::Event,
        _ => &plain::Plain,
    }
}

fn core(plural: &str) -> &'static dyn Strategy {
    match plural {
        "configmaps" => &config::ConfigMap,
        "events" => &event::Event,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "persistentvolumeclaims" => &persistent_volume_claim::PersistentVolumeClaim,
        "persistentvolumes" => &persistent_volume::PersistentVolume,
        "pods" => &pod::Pod,
        "replicationcontrollers" => &workloads::replication_controller::ReplicationController,
        "secrets" => &config::Secret,
        "services" => &service::Service,
        _ => &plain::Plain,
    }
}

fn apps(plural: &str) -> &'static dyn Strategy {
    match plural {
        "daemonsets" => &workloads::daemon_set::DaemonSet,
        "deployments" => &workloads::deployment::Deployment,
        "replicasets" => &workloads::replica_set::ReplicaSet,
        "statefulsets" => &workloads::stateful_set::StatefulSet,
        _ => &plain::Plain,
    }
}

/// The value of a selectable field that is the text at its own path; empty if it is not set.
fn select<'a>(object: &'a Value, field: &str, known: &[&str]) -> Option<Cow<'a, str>> {
    if !known.contains(&field) {
        return None;
    }
    let value = field.split('.').try_fold(object, |value, name| value.get(name));
    Some(match value {
        Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(other) => Cow::Owned(other.to_string()),
    })
}
