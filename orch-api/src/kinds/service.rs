//! Services.
//!
//! Source: `pkg/apis/core/v1/defaults.go`, `ValidateService`, `pkg/registry/core/service`.

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{
    field::{Errors, Field, child, children, default_to, spec_of},
    metadata,
    pod_spec::named,
};
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

mod update;

const AFFINITY_TIMEOUT_S: i64 = 10800;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// The strategy of `services`.
#[derive(Debug)]
pub(crate) struct Service;

/// Whether a Service of this type has node ports.
pub(crate) fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Whether a Service of this type has addresses in the cluster (or says that it has none).
pub(crate) fn has_cluster_ip(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

impl Strategy for Service {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            defaults(spec);
        }
        let balances = object["spec"]["type"] == "LoadBalancer";
        let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) else {
            return;
        };
        let Some(balancer) = child(status, "loadBalancer").filter(|_| balances) else { return };
        for ingress in children(balancer, "ingress") {
            if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
                default_to(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        update::drop_unused(object);
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "status");
        update::keep_allocated(new, old);
        update::drop_of_other_type(new, old);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1035_label(name)
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        by_type(&spec, &mut errors);
        ports(&spec, &mut errors);
        metadata::labels(&spec, "selector", &mut errors);
        let affinities = ["ClientIP", "None"];
        spec.one_of("sessionAffinity", &affinities, false, &mut errors);
        affinity_config(&spec, &mut errors);
        addresses(&spec, &mut errors);
        spec.one_of("type", &TYPES, false, &mut errors);
        policies(&spec, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = update::validate(new, old);
        errors.extend(self.validate(new));
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| old["spec"] == new["spec"]) {
            return Vec::new();
        }
        let spec = Field::root(new).get("spec");
        let mut warnings = Vec::new();
        if !spec.str("loadBalancerIP").is_empty() && spec.str("type") == "LoadBalancer" {
            warnings.push("spec.loadBalancerIP is deprecated; see Service documentation".into());
        }
        if spec.str("clusterIP") == "None" && !spec.str("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if spec.str("clusterIP") == "None" && spec.str("sessionAffinity") == "ClientIP" {
            warnings.push("spec.SessionAffinity is ignored for headless services".into());
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &printers::network::SERVICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::network::service(object, now)
    }
}

fn defaults(spec: &mut Map<String, Value>) {
    default_to(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "None" {
        spec.remove("sessionAffinityConfig");
    } else if spec["sessionAffinity"] == "ClientIP"
        && let Some(config) = child(spec, "sessionAffinityConfig")
        && let Some(client) = child(config, "clientIP")
    {
        default_to(client, "timeoutSeconds", AFFINITY_TIMEOUT_S);
    }
    default_to(spec, "type", "ClusterIP");
    for port in children(spec, "ports") {
        default_to(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        let unset = port.get("targetPort").is_none_or(|t| *t == json!(0) || *t == json!(""));
        if unset || port["targetPort"].is_null() {
            port.insert("targetPort".into(), number);
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external_ips =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if has_node_ports(&kind) || (kind == "ClusterIP" && external_ips) {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if has_cluster_ip(&kind) {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn by_type(spec: &Field<'_>, errors: &mut Errors) {
    let kind = spec.str("type");
    let headless = spec.str("clusterIP") == "None";
    if spec.len("ports") == 0 && !headless && kind != "ExternalName" {
        errors.push(spec.required("ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            "None",
            format!("may not be set to 'None' for {kind} services"),
        )),
        "ExternalName" => {
            if spec.len("clusterIPs") > 0 {
                let why = "may not be set for ExternalName services";
                errors.push(spec.forbidden("clusterIPs", why));
            }
            // The trailing dot of a fully qualified name is legal here.
            let name = spec.str("externalName");
            let bare = name.strip_suffix('.').unwrap_or(name);
            if bare.is_empty() {
                errors.push(spec.required("externalName", ""));
            } else {
                let wrong = names::dns_subdomain(&bare.to_lowercase());
                errors.extend(wrong.into_iter().map(|why| spec.invalid("externalName", why)));
            }
        }
        _ => {}
    }
}

fn ports(spec: &Field<'_>, errors: &mut Errors) {
    let kind = spec.str("type");
    let several = spec.len("ports") > 1;
    let (mut named_so_far, mut used, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
    for port in spec.items("ports") {
        let name = port.str("name");
        if several && name.is_empty() {
            errors.push(port.required("name", ""));
        } else if !name.is_empty() {
            named(&port, "name", names::dns_label, errors);
            if named_so_far.contains(&name) {
                errors.push(FieldError::duplicate(port.at("name"), name));
            }
            named_so_far.push(name);
        }
        metadata::port_number(&port, "port", errors);
        port.one_of("protocol", &["SCTP", "TCP", "UDP"], false, errors);
        metadata::port_number_or_name(&port, "targetPort", errors);
        if !port.str("appProtocol").is_empty() {
            named(&port, "appProtocol", names::qualified_name, errors);
        }
        let (protocol, number) = (port.str("protocol"), port.int("port").unwrap_or_default());
        if used.contains(&(protocol, number)) {
            let value = json!({"protocol": protocol, "port": number, "targetPort": 0});
            errors.push(FieldError::duplicate(&port.path, value));
        }
        used.push((protocol, number));
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port == 0 {
            continue;
        }
        if kind == "ClusterIP" || kind == "ExternalName" {
            let why = format!("may not be used when `type` is '{kind}'");
            errors.push(port.forbidden("nodePort", why));
        } else if node_ports.contains(&(protocol, node_port)) {
            errors.push(FieldError::duplicate(port.at("nodePort"), node_port));
        }
        node_ports.push((protocol, node_port));
    }
}

fn affinity_config(spec: &Field<'_>, errors: &mut Errors) {
    const TIMEOUT_S_MAX: i64 = 86400;
    let config = spec.get("sessionAffinityConfig");
    if spec.str("sessionAffinity") != "ClientIP" {
        if config.is_set() {
            let why = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden(config.path, why));
        }
        return;
    }
    let client = config.get("clientIP");
    match client.int("timeoutSeconds") {
        None => errors.push(client.required("timeoutSeconds", "")),
        Some(s) if s <= 0 || s > TIMEOUT_S_MAX => {
            let why = format!("must be greater than 0 and less than {TIMEOUT_S_MAX}");
            errors.push(client.invalid("timeoutSeconds", why));
        }
        Some(_) => {}
    }
}

fn addresses(spec: &Field<'_>, errors: &mut Errors) {
    let (first, all) = (spec.str("clusterIP"), spec.at("clusterIPs"));
    if !first.is_empty() && spec.strs("clusterIPs").next().is_some_and(|ip| ip != first) {
        errors.push(FieldError::invalid(
            format!("{all}[0]"),
            spec.raw("clusterIPs")[0].clone(),
            "first value must match `clusterIP`",
        ));
    }
    for (i, ip) in spec.strs("clusterIPs").enumerate() {
        if ip != "None" {
            let path = format!("{all}[{i}]");
            let wrong = names::ip_address(ip);
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, ip, why)));
        }
    }
    for (i, ip) in spec.strs("externalIPs").enumerate() {
        let path = format!("{}[{i}]", spec.at("externalIPs"));
        let wrong = names::ip_address(ip);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, ip, why)));
    }
    for (i, family) in spec.strs("ipFamilies").enumerate() {
        if !matches!(family, "IPv4" | "IPv6") {
            let path = format!("{}[{i}]", spec.at("ipFamilies"));
            errors.push(FieldError::not_supported(path, family, &["IPv4", "IPv6"]));
        }
    }
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    spec.one_of("ipFamilyPolicy", &policies, true, errors);
    if spec.len("loadBalancerSourceRanges") > 0 {
        if spec.str("type") != "LoadBalancer" {
            let why = "may only be used when `type` is 'LoadBalancer'";
            errors.push(spec.forbidden("loadBalancerSourceRanges", why));
        }
        for (i, range) in spec.strs("loadBalancerSourceRanges").enumerate() {
            let path = format!("{}[{i}]", spec.at("loadBalancerSourceRanges"));
            let wrong = names::cidr(range.trim());
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, range, why)));
        }
    }
}

fn policies(spec: &Field<'_>, errors: &mut Errors) {
    let kind = spec.str("type");
    for name in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        spec.one_of(name, &["Cluster", "Local"], true, errors);
    }
    let external = has_node_ports(kind) || (kind == "ClusterIP" && spec.len("externalIPs") > 0);
    if !external && !spec.str("externalTrafficPolicy").is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(spec.invalid("externalTrafficPolicy", why));
    }
    if external && spec.str("externalTrafficPolicy").is_empty() {
        errors.push(spec.required("externalTrafficPolicy", ""));
    }
    let health = spec.int("healthCheckNodePort").unwrap_or_default();
    let local = kind == "LoadBalancer" && spec.str("externalTrafficPolicy") == "Local";
    if health != 0 && !local {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(spec.invalid("healthCheckNodePort", why));
    }
    if !spec.str("loadBalancerClass").is_empty() && kind != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(spec.forbidden("loadBalancerClass", why));
    }
    if spec.has("allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(spec.forbidden("allocateLoadBalancerNodePorts", why));
    }
}
