//! What of a change of a Service or of a node concerns load balancers.

use k8s_openapi::api::core::v1::{Node, Service, ServicePort, ServiceSpec};

use super::FINALIZER;

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// What the cluster autoscaler taints nodes with that it is about to remove.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

fn spec(service: &Service) -> Option<&ServiceSpec> {
    service.spec.as_ref()
}

fn is_balanced(service: &Service) -> bool {
    spec(service).and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// Whether a Service is to have a load balancer of this class; `None` is the default one.
pub(super) fn wants(service: &Service, class: Option<&str>) -> bool {
    let wanted = spec(service).and_then(|spec| spec.load_balancer_class.as_deref());
    is_balanced(service) && wanted == class
}

pub(super) fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether a Service had a load balancer that is to go.
pub(super) fn needs_cleanup(service: &Service) -> bool {
    has_finalizer(service)
        && (service.metadata.deletion_timestamp.is_some() || !is_balanced(service))
}

/// Whether a Service changed in what a load balancer depends on.
pub(super) fn needs_update(old: &Service, new: &Service, class: Option<&str>) -> bool {
    match (wants(old, class), wants(new, class)) {
        (false, false) => false,
        (true, true) => {
            old.metadata.annotations != new.metadata.annotations
                || old.metadata.uid != new.metadata.uid
                || spec(old).map(concerned) != spec(new).map(concerned)
        }
        _ => true,
    }
}

/// The fields of a Service that a load balancer depends on.
fn concerned(spec: &ServiceSpec) -> impl PartialEq + use<'_> {
    let ports: Vec<&ServicePort> = spec.ports.iter().flatten().collect();
    (
        (&spec.load_balancer_source_ranges, ports, &spec.session_affinity),
        (&spec.session_affinity_config, &spec.load_balancer_ip, &spec.external_ips),
        (&spec.external_traffic_policy, spec.health_check_node_port),
        spec.ip_families.as_ref().map(Vec::len),
    )
}

/// Whether a node may take traffic of load balancers at all.
fn is_included(node: &Node) -> bool {
    let label = node.metadata.labels.as_ref().and_then(|labels| labels.get(EXCLUDED));
    // What is no boolean excludes too.
    label
        .is_none_or(|value| matches!(value.as_str(), "0" | "f" | "F" | "false" | "False" | "FALSE"))
}

/// Whether a node is among those that a load balancer is told of.
pub(super) fn is_target(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_none()
        && is_included(node)
        && taints.iter().all(|taint| taint.key != GOING)
}

fn provider_id(node: &Node) -> &str {
    node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default()
}

/// Whether a change of a node makes load balancers look at all nodes again.
pub(super) fn node_concerns(old: &Node, new: &Node) -> bool {
    is_included(old) != is_included(new) || provider_id(old) != provider_id(new)
}

/// A node as a load balancer tells it from others: its name and its provider's.
pub(super) fn identity(node: &Node) -> (String, String) {
    (node.metadata.name.clone().unwrap_or_default(), provider_id(node).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(value: Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_class_of_its_own_is_somebody_elses() {
        let check = |spec: Value, class: Option<&str>, expected: bool| {
            assert_eq!(wants(&service(json!({"spec": spec})), class), expected, "{spec}");
        };
        check(json!({"type": "LoadBalancer"}), None, true);
        check(json!({"type": "NodePort"}), None, false);
        let classed = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/a"});
        check(classed.clone(), None, false);
        check(classed.clone(), Some("example.com/a"), true);
        check(json!({"type": "LoadBalancer"}), Some("example.com/a"), false);
    }

    #[test]
    fn only_what_a_balancer_depends_on_is_an_update() {
        let of = |patch: Value| {
            let mut all = json!({
                "metadata": {"name": "a", "uid": "1"},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            });
            json_patch::merge(&mut all, &patch);
            service(all)
        };
        let check = |patch: Value, expected: bool| {
            assert_eq!(needs_update(&of(json!({})), &of(patch.clone()), None), expected, "{patch}");
        };
        check(json!({"metadata": {"labels": {"a": "b"}}}), false);
        check(json!({"spec": {"selector": {"a": "b"}}}), false);
        check(json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}), false);
        check(json!({"metadata": {"finalizers": [FINALIZER]}}), false);
        check(json!({"metadata": {"annotations": {"a": "b"}}}), true);
        check(json!({"spec": {"ports": [{"port": 81}]}}), true);
        check(json!({"spec": {"loadBalancerIP": "10.0.0.9"}}), true);
        check(json!({"spec": {"type": "ClusterIP"}}), true);
        check(json!({"spec": {"sessionAffinity": "ClientIP"}}), true);
    }

    #[test]
    fn nodes_may_be_left_out() {
        let check = |node: Value, expected: bool| {
            let parsed: Node = serde_json::from_value(node.clone()).unwrap();
            assert_eq!(is_target(&parsed), expected, "{node}");
        };
        let labelled = |value: &str| json!({"metadata": {"labels": {EXCLUDED: value}}});
        check(json!({"metadata": {}}), true);
        check(labelled(""), false);
        check(labelled("true"), false);
        check(labelled("false"), true);
        check(json!({"metadata": {}, "spec": {"taints": [{"key": GOING, "effect": "x"}]}}), false);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false);
    }
}
