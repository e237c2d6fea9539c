//! Endpoints, ingresses and network policies.
//!
//! Source: `pkg/apis/networking/validation`, `pkg/apis/discovery/validation`, `ValidateEndpoints`.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, child, children, default_to, spec_of},
    metadata,
    plain::Plain,
    pod_spec::named,
};
use crate::{names, printers};

pub(super) static ENDPOINTS: Plain = Plain {
    defaults: |object| {
        let Some(object) = object.as_object_mut() else { return };
        for subset in children(object, "subsets") {
            for port in children(subset, "ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    },
    validate: endpoints,
    columns: &printers::network::ENDPOINTS,
    row: printers::network::endpoints,
    create_on_update: true,
    ..Plain::DATA
};

fn endpoints(object: &Value) -> Errors {
    let mut errors = Vec::new();
    for subset in Field::root(object).items("subsets") {
        if subset.len("addresses") == 0 && subset.len("notReadyAddresses") == 0 {
            let why = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&subset.path, why));
        }
        for address in subset.items("addresses").chain(subset.items("notReadyAddresses")) {
            named(&address, "ip", names::ip_address, &mut errors);
            usable(&address, "ip", address.str("ip"), &mut errors);
        }
        let several = subset.len("ports") > 1;
        for port in subset.items("ports") {
            if several && port.str("name").is_empty() {
                errors.push(port.required("name", ""));
            } else if !port.str("name").is_empty() {
                named(&port, "name", names::dns_label, &mut errors);
            }
            metadata::port_number(&port, "port", &mut errors);
            port.one_of("protocol", &["SCTP", "TCP", "UDP"], false, &mut errors);
        }
    }
    errors
}

/// Traffic must not be led to link-local addresses.
///
/// Differs: upstream also refuses loopback addresses. Here pods that are processes of the host have
/// addresses out of 127.0.0.0/8, the only ones that need no set-up and no root.
fn usable(parent: &Field<'_>, name: &str, ip: &str, errors: &mut Errors) {
    let Ok(ip) = ip.parse::<std::net::IpAddr>() else { return };
    let link_local = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    for (wrong, why) in [
        (ip.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            ip.is_multicast(),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ] {
        if wrong {
            errors.push(parent.invalid(name, why));
        }
    }
}

pub(super) static ENDPOINT_SLICES: Plain = Plain {
    defaults: |object| {
        let Some(object) = object.as_object_mut() else { return };
        for port in children(object, "ports") {
            if port.get("name").is_none_or(Value::is_null) {
                port.insert("name".into(), "".into());
            }
            default_to(port, "protocol", "TCP");
        }
    },
    validate: endpoint_slice,
    update: |new, old| {
        let mut errors = Vec::new();
        Field::root(new).immutable(old, "addressType", &mut errors);
        errors
    },
    generation: true,
    columns: &printers::network::ENDPOINT_SLICES,
    row: printers::network::endpoint_slice,
    ..Plain::DATA
};

fn endpoint_slice(object: &Value) -> Errors {
    const ENDPOINTS_MAX: usize = 1000;
    const PORTS_MAX: usize = 20000;
    let mut errors = Vec::new();
    let slice = Field::root(object);
    slice.one_of("addressType", &["FQDN", "IPv4", "IPv6"], false, &mut errors);
    for (list, max) in [("endpoints", ENDPOINTS_MAX), ("ports", PORTS_MAX)] {
        if slice.len(list) > max {
            errors.push(FieldError::too_many(list, slice.len(list), max));
        }
    }
    for endpoint in slice.items("endpoints") {
        if endpoint.len("addresses") == 0 {
            let why = "must contain at least 1 address";
            errors.push(endpoint.required("addresses", why));
        }
        for (i, address) in endpoint.strs("addresses").enumerate() {
            let path = format!("{}[{i}]", endpoint.at("addresses"));
            let ip = address.parse::<std::net::IpAddr>().ok();
            let why = match slice.str("addressType") {
                "IPv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => "must be a valid IPv4 address",
                "IPv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => "must be a valid IPv6 address",
                _ => continue,
            };
            errors.push(FieldError::invalid(path, address, why));
        }
        if !endpoint.str("hostname").is_empty() {
            named(&endpoint, "hostname", names::dns_label, &mut errors);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for port in slice.items("ports") {
        let name = port.str("name");
        if !name.is_empty() {
            named(&port, "name", names::dns_label, &mut errors);
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(port.at("name"), name));
        }
        seen.insert(name);
        port.one_of("protocol", &["SCTP", "TCP", "UDP"], false, &mut errors);
    }
    errors
}

pub(super) static INGRESSES: Plain = Plain {
    defaults: |object| {
        if let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) {
            child(status, "loadBalancer");
        }
    },
    validate: ingress,
    status: Some(|| json!({"loadBalancer": {}})),
    columns: &printers::network::INGRESSES,
    row: printers::network::ingress,
    ..Plain::ANY
};

fn ingress(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    if spec.len("rules") == 0 && !spec.has("defaultBackend") {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", spec.value.clone(), why));
    }
    if let Some(default) = spec.opt("defaultBackend") {
        backend(&default, &mut errors);
    }
    for rule in spec.items("rules") {
        let host = rule.str("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(rule.invalid("host", "must be a DNS name, not an IP address"));
        } else if host.contains('*') {
            named(&rule, "host", names::wildcard_dns_subdomain, &mut errors);
        } else if !host.is_empty() {
            named(&rule, "host", names::dns_subdomain, &mut errors);
        }
        let Some(http) = rule.opt("http") else { continue };
        if http.len("paths") == 0 {
            errors.push(http.required("paths", ""));
        }
        for path in http.items("paths") {
            ingress_path(&path, &mut errors);
        }
    }
    for tls in spec.items("tls") {
        for (i, host) in tls.strs("hosts").enumerate() {
            let rule = if host.contains('*') {
                names::wildcard_dns_subdomain
            } else {
                names::dns_subdomain
            };
            let at = format!("{}[{i}]", tls.at("hosts"));
            errors.extend(rule(host).into_iter().map(|why| FieldError::invalid(&at, host, why)));
        }
    }
    if spec.has("ingressClassName") {
        named(&spec, "ingressClassName", names::dns_subdomain, &mut errors);
    }
    errors
}

fn ingress_path(path: &Field<'_>, errors: &mut Errors) {
    let text = path.str("path");
    match path.str("pathType") {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(path.invalid("path", "must be an absolute path"));
            }
            for wrong in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(wrong) {
                    errors.push(path.invalid("path", format!("must not contain '{wrong}'")));
                }
            }
            for wrong in ["/..", "/."] {
                if text.ends_with(wrong) {
                    errors.push(path.invalid("path", format!("cannot end with '{wrong}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(path.invalid("path", "must be an absolute path"));
            }
        }
        "" => errors.push(path.required("pathType", "pathType must be specified")),
        other => errors.push(FieldError::not_supported(
            path.at("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    backend(&path.get("backend"), errors);
}

fn backend(backend: &Field<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.opt("service"), backend.opt("resource"));
    match (service, resource) {
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            &backend.path,
            "",
            "cannot set both resource and service backends",
        )),
        (None, None) => errors
            .push(FieldError::required(&backend.path, "resource or service backend is required")),
        (None, Some(resource)) => {
            for name in ["kind", "name"] {
                resource.not_empty(name, errors);
            }
        }
        (Some(service), None) => {
            if service.str("name").is_empty() {
                errors.push(service.required("name", ""));
            } else {
                named(&service, "name", names::dns1035_label, errors);
            }
            let port = service.get("port");
            let (name, number) = (port.str("name"), port.int("number").unwrap_or_default());
            if !name.is_empty() && number != 0 {
                let why = "cannot set both port name & port number";
                errors.push(FieldError::invalid(&port.path, port.value.clone(), why));
            } else if !name.is_empty() {
                named(&port, "name", names::port_name, errors);
            } else if number != 0 {
                metadata::port_number(&port, "number", errors);
            } else {
                let why = "port name or number is required";
                errors.push(FieldError::required(&port.path, why));
            }
        }
    }
}

pub(super) static INGRESS_CLASSES: Plain = Plain {
    defaults: |object| {
        if let Some(parameters) =
            spec_of(object).and_then(|spec| super::field::child_opt(spec, "parameters"))
        {
            default_to(parameters, "scope", "Cluster");
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        spec.not_empty("controller", &mut errors);
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "controller", &mut errors);
        errors
    },
    generation: true,
    columns: &printers::network::INGRESS_CLASSES,
    row: printers::network::ingress_class,
    ..Plain::DATA
};

pub(super) static NETWORK_POLICIES: Plain = Plain {
    defaults: |object| {
        let Some(spec) = spec_of(object) else { return };
        child(spec, "podSelector");
        let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        let types = spec.get("policyTypes").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if types {
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            spec.insert("policyTypes".into(), types);
        }
        for direction in ["ingress", "egress"] {
            for rule in children(spec, direction) {
                for port in children(rule, "ports") {
                    default_to(port, "protocol", "TCP");
                }
            }
        }
    },
    validate: network_policy,
    generation: true,
    columns: &printers::network::NETWORK_POLICIES,
    row: printers::network::network_policy,
    ..Plain::DATA
};

fn network_policy(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    metadata::label_selector(&spec.get("podSelector"), &mut errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.items(direction) {
            for port in rule.items("ports") {
                port.one_of("protocol", &["SCTP", "TCP", "UDP"], true, &mut errors);
                policy_port(&port, &mut errors);
            }
            for peer in rule.items(peers) {
                policy_peer(&peer, &mut errors);
            }
        }
    }
    if spec.len("policyTypes") > 2 {
        errors.push(spec.invalid("policyTypes", "may not specify more than two policyTypes"));
        return errors;
    }
    for (i, kind) in spec.strs("policyTypes").enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            let path = format!("spec.policyTypes[{i}]");
            errors.push(FieldError::not_supported(path, kind, &["Egress", "Ingress"]));
        }
    }
    errors
}

fn policy_port(port: &Field<'_>, errors: &mut Errors) {
    if port.has("port") {
        metadata::port_number_or_name(port, "port", errors);
    }
    let Some(end) = port.int("endPort") else { return };
    let why = match port.raw("port") {
        Value::Null => "may not be specified when `port` is not specified",
        Value::String(_) => "may not be specified when `port` is non-numeric",
        _ if port.int("port").is_some_and(|first| end < first) => {
            "must be greater than or equal to `port`"
        }
        _ => return metadata::port_number(port, "endPort", errors),
    };
    errors.push(port.invalid("endPort", why));
}

fn policy_peer(peer: &Field<'_>, errors: &mut Errors) {
    let selectors = peer.has("podSelector") || peer.has("namespaceSelector");
    for name in ["podSelector", "namespaceSelector"] {
        metadata::label_selector(&peer.get(name), errors);
    }
    match peer.opt("ipBlock") {
        None if !selectors => {
            errors.push(FieldError::required(&peer.path, "must specify a peer"));
        }
        None => {}
        Some(block) => {
            if selectors {
                let why = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(&peer.path, why));
            }
            if block.str("cidr").is_empty() {
                errors.push(block.required("cidr", ""));
            } else {
                named(&block, "cidr", names::cidr, errors);
            }
            let whole = block.str("cidr").parse::<ipnet::IpNet>().ok();
            for (i, except) in block.strs("except").enumerate() {
                let path = format!("{}[{i}]", block.at("except"));
                match (whole, except.parse::<ipnet::IpNet>()) {
                    (_, Err(_)) => errors.extend(
                        names::cidr(except)
                            .into_iter()
                            .map(|w| FieldError::invalid(&path, except, w)),
                    ),
                    (Some(whole), Ok(part)) if !whole.contains(&part) || whole == part => {
                        let why = "must be a strict subset of `cidr`";
                        errors.push(FieldError::invalid(path, except, why));
                    }
                    _ => {}
                }
            }
        }
    }
}

pub(super) static DISRUPTION_BUDGETS: Plain = Plain {
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            let why = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid("spec", spec.value.clone(), why));
        }
        for name in ["minAvailable", "maxUnavailable"] {
            metadata::int_or_percent(&spec, name, &mut errors);
            metadata::not_more_than_100_percent(&spec, name, &mut errors);
        }
        metadata::label_selector(&spec.get("selector"), &mut errors);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        spec.one_of("unhealthyPodEvictionPolicy", &policies, true, &mut errors);
        errors
    },
    status: Some(
        || json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
    ),
    columns: &printers::policy::DISRUPTION_BUDGETS,
    row: printers::policy::disruption_budget,
    unconditional: false,
    ..Plain::ANY
};
