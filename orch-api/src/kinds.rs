//! The behaviour of every built-in kind, by group and plural.
//!
//! Each kind is a [`Strategy`] in a file of its own (or with its kin); what many share stands
//! beside them: `pod_spec` for everything that holds pods, `metadata` for labels, selectors,
//! ports and percentages. Defaults and checks work on JSON values, because typed structs would
//! lose what they do not know; a `Field` is a value that knows its path.

use std::borrow::Cow;

use serde_json::Value;

use crate::strategy::Strategy;

pub(crate) use field::{Field, child, child_opt, default_to, spec_of};
pub(crate) use service::{has_cluster_ip, has_node_ports};

mod access;
mod api_service;
mod autoscaler;
mod cluster;
mod config;
mod cron_job;
mod csi;
mod event;
mod field;
mod flow_control;
mod job;
pub(crate) mod metadata;
mod namespace;
mod network;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod plain;
mod pod;
mod pod_spec;
mod policies;
mod resource;
mod service;
mod service_network;
pub(crate) mod webhooks;
mod workloads;

pub use access::Requester;
pub use resource::TaintTimes;

/// What has no behaviour of its own gets one that fits any kind with `spec` and `status`.
static ANY: plain::Plain = plain::Plain::ANY;

/// The strategy of a resource. Kinds that this crate does not know get one that fits any kind
/// with `spec` and `status`. Events are expected in the shape of the core group, autoscalers in
/// that of version 2.
pub fn strategy(group: &str, plural: &str) -> &'static dyn Strategy {
    match group {
        "" => core(plural),
        "apps" => apps(plural),
        "admissionregistration.k8s.io" => admission(plural),
        "flowcontrol.apiserver.k8s.io" => flow_control(plural),
        "networking.k8s.io" => networking(plural),
        "rbac.authorization.k8s.io" => rbac(plural),
        "storage.k8s.io" => storage(plural),
        _ => other(group, plural),
    }
}

fn core(plural: &str) -> &'static dyn Strategy {
    match plural {
        "configmaps" => &config::ConfigMap,
        "endpoints" => &network::ENDPOINTS,
        "events" => &event::Event,
        "limitranges" => &cluster::LIMIT_RANGES,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "persistentvolumeclaims" => &persistent_volume_claim::PersistentVolumeClaim,
        "persistentvolumes" => &persistent_volume::PersistentVolume,
        "pods" => &pod::Pod,
        "podtemplates" => &cluster::POD_TEMPLATES,
        "replicationcontrollers" => &workloads::replication_controller::ReplicationController,
        "resourcequotas" => &cluster::RESOURCE_QUOTAS,
        "secrets" => &config::Secret,
        "serviceaccounts" => &access::SERVICE_ACCOUNTS,
        "services" => &service::Service,
        _ => &ANY,
    }
}

fn apps(plural: &str) -> &'static dyn Strategy {
    match plural {
        "controllerrevisions" => &cluster::CONTROLLER_REVISIONS,
        "daemonsets" => &workloads::daemon_set::DaemonSet,
        "deployments" => &workloads::deployment::Deployment,
        "replicasets" => &workloads::replica_set::ReplicaSet,
        "statefulsets" => &workloads::stateful_set::StatefulSet,
        _ => &ANY,
    }
}

fn admission(plural: &str) -> &'static dyn Strategy {
    match plural {
        "mutatingadmissionpolicies" => &policies::MUTATING_POLICIES,
        "mutatingadmissionpolicybindings" => &policies::MUTATING_BINDINGS,
        "validatingadmissionpolicies" => &policies::VALIDATING_POLICIES,
        "validatingadmissionpolicybindings" => &policies::VALIDATING_BINDINGS,
        "mutatingwebhookconfigurations" => &webhooks::MUTATING_WEBHOOKS,
        "validatingwebhookconfigurations" => &webhooks::VALIDATING_WEBHOOKS,
        _ => &ANY,
    }
}

fn flow_control(plural: &str) -> &'static dyn Strategy {
    match plural {
        "flowschemas" => &cluster::FLOW_SCHEMAS,
        "prioritylevelconfigurations" => &cluster::PRIORITY_LEVELS,
        _ => &ANY,
    }
}

fn networking(plural: &str) -> &'static dyn Strategy {
    match plural {
        "ingressclasses" => &network::INGRESS_CLASSES,
        "ingresses" => &network::INGRESSES,
        "networkpolicies" => &network::NETWORK_POLICIES,
        "ipaddresses" => &service_network::IP_ADDRESSES,
        "servicecidrs" => &service_network::SERVICE_CIDRS,
        _ => &ANY,
    }
}

fn rbac(plural: &str) -> &'static dyn Strategy {
    match plural {
        "clusterrolebindings" => &access::CLUSTER_ROLE_BINDINGS,
        "clusterroles" => &access::CLUSTER_ROLES,
        "rolebindings" => &access::ROLE_BINDINGS,
        "roles" => &access::ROLES,
        _ => &ANY,
    }
}

fn storage(plural: &str) -> &'static dyn Strategy {
    match plural {
        "csistoragecapacities" => &cluster::CSI_CAPACITIES,
        "csidrivers" => &cluster::CSI_DRIVERS,
        "csinodes" => &cluster::CSI_NODES,
        "storageclasses" => &cluster::STORAGE_CLASSES,
        "volumeattachments" => &cluster::VOLUME_ATTACHMENTS,
        _ => &ANY,
    }
}

fn other(group: &str, plural: &str) -> &'static dyn Strategy {
    match (group, plural) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            &crate::custom::kind::CustomResourceDefinition
        }
        ("apiregistration.k8s.io", "apiservices") => &api_service::ApiService,
        ("autoscaling", "horizontalpodautoscalers") => &cluster::AUTOSCALERS,
        ("batch", "cronjobs") => &cron_job::CronJob,
        ("batch", "jobs") => &job::Job,
        ("certificates.k8s.io", "certificatesigningrequests") => &access::CertificateSigningRequest,
        ("coordination.k8s.io", "leases") => &cluster::LEASES,
        ("discovery.k8s.io", "endpointslices") => &network::ENDPOINT_SLICES,
        ("events.k8s.io", "events") => &event::Event,
        ("node.k8s.io", "runtimeclasses") => &cluster::RUNTIME_CLASSES,
        ("policy", "poddisruptionbudgets") => &network::DISRUPTION_BUDGETS,
        ("resource.k8s.io", "deviceclasses") => &resource::DEVICE_CLASSES,
        ("resource.k8s.io", "resourceclaims") => &resource::CLAIMS,
        ("resource.k8s.io", "resourceclaimtemplates") => &resource::CLAIM_TEMPLATES,
        ("resource.k8s.io", "resourceslices") => &resource::SLICES,
        ("scheduling.k8s.io", "priorityclasses") => &cluster::PRIORITY_CLASSES,
        _ => &ANY,
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
