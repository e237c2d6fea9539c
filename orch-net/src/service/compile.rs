//! From a service and its slices to the rules of its ports.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use orch_core::Key;

use super::{PortName, PortRules, Protocol};
use crate::backends::{self, Backend};

/// Three hours, as upstream defaults it.
const AFFINITY_S: i32 = 10_800;

/// The rules of every port of a service. Headless and `ExternalName` services have none, and so
/// have SCTP ports.
///
/// Source: `pkg/proxy/serviceport.go`, `pkg/proxy/topology.go`.
pub(super) fn rules(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    node: &str,
) -> BTreeMap<PortName, PortRules> {
    let mut rules = BTreeMap::new();
    let Some(spec) = &service.spec else { return rules };
    let cluster_ips = backends::cluster_ips(service);
    if cluster_ips.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
        return rules;
    }
    let Key { namespace, name } = Key::of(&service.metadata);
    for port in spec.ports.iter().flatten() {
        let name = PortName {
            namespace: namespace.clone(),
            service: name.clone(),
            port: port.name.clone().unwrap_or_default(),
        };
        if let Some(port_rules) = port_rules(service, spec, port, slices, &cluster_ips, node) {
            rules.insert(name, port_rules);
        }
    }
    rules
}

fn port_rules(
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    cluster_ips: &[IpAddr],
    node: &str,
) -> Option<PortRules> {
    let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    let all: Vec<Backend<'_>> =
        slices.iter().flat_map(|slice| backends::backends(slice, port)).collect();
    let choose = |policy: Option<&str>| -> Arc<[SocketAddr]> {
        let local = policy == Some("Local");
        let here =
            |backend: &&Backend<'_>| !local || backend.endpoint.node_name.as_deref() == Some(node);
        backends::usable(&all.iter().filter(here).collect::<Vec<_>>()).into()
    };
    let external_policy = spec.external_traffic_policy.as_deref();
    let positive = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
    Some(PortRules {
        protocol,
        cluster_ips: cluster_ips.to_vec(),
        external_ips: external_ips(service, spec),
        port: positive(port.port)?,
        node_port: port.node_port.and_then(positive),
        affinity: affinity(spec),
        endpoints: choose(spec.internal_traffic_policy.as_deref()),
        external_endpoints: choose(external_policy),
        preserve_client_ip: external_policy == Some("Local"),
    })
}

fn external_ips(service: &Service, spec: &ServiceSpec) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let balancer = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let balancer = balancer.into_iter().flatten().filter_map(|ingress| {
        // A balancer in proxy mode delivers to the node itself.
        ingress.ip.as_ref().filter(|_| ingress.ip_mode.as_deref() != Some("Proxy"))
    });
    let all = spec.external_ips.iter().flatten().chain(balancer);
    let mut all: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let client_ip = config.and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(AFFINITY_S);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(endpoints: &Value) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "a"},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn service(change: &Value) -> Service {
        let mut service = json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "NodePort",
                "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
                    {"name": "sctp", "port": 81, "protocol": "SCTP"},
                ],
            },
        });
        for (key, value) in change.as_object().into_iter().flatten() {
            service["spec"][key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn check(change: &Value, endpoints: &Value, internal: &[&str], external: &[&str]) {
        let rules = rules(&service(change), &[slice(endpoints)], "here");
        let port = rules.into_values().next().unwrap();
        let texts = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&port.endpoints), internal, "{change} {endpoints}");
        assert_eq!(texts(&port.external_endpoints), external, "{change} {endpoints}");
    }

    #[test]
    fn endpoints_are_chosen_as_upstream_does() {
        let ready =
            json!({"addresses": ["10.1.0.1"], "conditions": {"ready": true}, "nodeName": "here"});
        let away = json!({"addresses": ["10.1.0.2"], "nodeName": "there"});
        let starting =
            json!({"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": false}});
        let ending = json!({"addresses": ["10.1.0.4"], "nodeName": "there",
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let (one, two, four) = ("10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.4:8080");
        let all = json!([away, ready, starting, ending]);
        check(&json!({}), &all, &[one, two], &[one, two]);
        check(&json!({"internalTrafficPolicy": "Local"}), &all, &[one], &[one, two]);
        check(&json!({"externalTrafficPolicy": "Local"}), &all, &[one, two], &[one]);
        let local = json!({"internalTrafficPolicy": "Local"});
        check(&local, &json!([away, ending]), &[], &[two]);
        check(&json!({}), &json!([starting, ending]), &[four], &[four]);
    }

    #[test]
    fn some_services_have_no_rules() {
        let none = |change: &Value| rules(&service(change), &[], "here").is_empty();
        assert!(none(&json!({"clusterIP": "None", "clusterIPs": ["None"]})));
        assert!(none(&json!({"type": "ExternalName"})));
        assert!(!none(&json!({})));
        let sticky = service(&json!({"sessionAffinity": "ClientIP"}));
        let affinity = rules(&sticky, &[], "here").into_values().next().unwrap().affinity;
        assert_eq!(affinity, Some(Duration::from_secs(10_800)));
    }
}
