//! What one Service needs, and getting it.

use std::net::IpAddr;

use ipnet::IpNet;
use orch_core::{ApiError, status::FieldError};
use serde_json::{Value, json};

use super::ports::FreePorts;
use crate::kinds::{Field, has_cluster_ip, has_node_ports};

/// The addresses and ports that a Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
}

impl Held {
    pub(super) fn by(service: &Value) -> Self {
        let spec = Field::root(&service["spec"]);
        let mut held = Self::default();
        if has_cluster_ip(spec.str("type")) {
            let first = Some(spec.str("clusterIP"));
            let all = first.into_iter().chain(spec.strs("clusterIPs"));
            held.addresses = all.filter_map(|ip| ip.parse().ok()).collect();
            held.addresses.sort_unstable();
            held.addresses.dedup();
        }
        if has_node_ports(spec.str("type")) {
            let health = spec.int("healthCheckNodePort");
            let ports = spec.items("ports").map(|port| port.int("nodePort")).chain([health]);
            held.ports = ports
                .flatten()
                .filter_map(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .collect();
            held.ports.sort_unstable();
            held.ports.dedup();
        }
        held
    }

    /// Whether an address is held.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// What is held here and not there.
    pub(super) fn without(mut self, other: &Self) -> Self {
        self.addresses.retain(|ip| !other.addresses.contains(ip));
        self.ports.retain(|port| !other.ports.contains(port));
        self
    }
}

/// A refusal of a Service.
pub(super) fn invalid(service: &Value, error: FieldError) -> ApiError {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    ApiError::invalid("", "Service", name, &[error])
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Settles `ipFamilies` and `ipFamilyPolicy`.
pub(super) fn families(configured: &[IpNet], new: &mut Value) -> Result<(), ApiError> {
    let served: Vec<&str> = configured.iter().map(|range| family(range.addr())).collect();
    let view = new["spec"].clone();
    let spec = Field::new(&view, "spec");
    if !has_cluster_ip(spec.str("type")) {
        return Ok(());
    }
    let headless = spec.str("clusterIP") == "None";
    let mut wanted: Vec<String> = spec.strs("ipFamilies").map(str::to_owned).collect();
    let mut policy = spec.str("ipFamilyPolicy").to_owned();
    let selectorless = spec.raw("selector").as_object().is_none_or(serde_json::Map::is_empty);
    if headless && selectorless {
        // Its endpoints are made by hand: any family may turn up.
        if policy.is_empty() {
            policy = "RequireDualStack".into();
        }
        if wanted.is_empty() {
            wanted.extend(served.first().map(|f| (*f).to_owned()));
        }
        if wanted.len() == 1 && policy != "SingleStack" {
            wanted.push(if wanted[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
        }
    } else {
        let asked: Vec<IpAddr> = spec.strs("clusterIPs").filter_map(|ip| ip.parse().ok()).collect();
        if wanted.is_empty() {
            let first = spec.str("clusterIP").parse().ok();
            let asked: Vec<IpAddr> =
                if asked.is_empty() { first.into_iter().collect() } else { asked };
            wanted = asked.into_iter().map(|ip| family(ip).to_owned()).collect();
        }
        if wanted.is_empty() {
            wanted.extend(served.first().map(|f| (*f).to_owned()));
        }
        if let Some(strange) = wanted.iter().position(|family| !served.contains(&family.as_str())) {
            let path = format!("spec.ipFamilies[{strange}]");
            let why = "not configured on this cluster";
            return Err(invalid(new, FieldError::invalid(path, wanted[strange].as_str(), why)));
        }
        if policy.is_empty() {
            policy = if wanted.len() > 1 { "RequireDualStack" } else { "SingleStack" }.into();
        }
        if policy == "RequireDualStack" && served.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            let error = FieldError::invalid("spec.ipFamilyPolicy", policy.as_str(), why);
            return Err(invalid(new, error));
        }
        if policy != "SingleStack" && wanted.len() == 1 {
            wanted.extend(served.iter().find(|f| **f != wanted[0]).map(|f| (*f).to_owned()));
        }
    }
    new["spec"]["ipFamilies"] = json!(wanted);
    new["spec"]["ipFamilyPolicy"] = policy.into();
    Ok(())
}

/// The addresses that a Service wants.
#[derive(Debug)]
pub(super) struct AddressWish {
    /// Those that it names.
    pub(super) asked: Vec<String>,
    /// Any one of these families: whether each is version 4.
    pub(super) any: Vec<bool>,
}

/// What a Service wants of addresses; `None` if it has none. Families are settled already.
pub(super) fn addresses_wished(new: &mut Value) -> Option<AddressWish> {
    let spec = Field::root(&new["spec"]);
    if !has_cluster_ip(spec.str("type")) {
        return None;
    }
    let mut asked: Vec<String> = spec.strs("clusterIPs").map(str::to_owned).collect();
    if asked.is_empty() && !spec.str("clusterIP").is_empty() {
        asked.push(spec.str("clusterIP").to_owned());
    }
    let families: Vec<bool> = spec.strs("ipFamilies").map(|family| family == "IPv4").collect();
    if asked.first().is_some_and(|ip| ip == "None") {
        new["spec"]["clusterIP"] = "None".into();
        new["spec"]["clusterIPs"] = json!(["None"]);
        return None;
    }
    let any = families.into_iter().skip(asked.len()).collect();
    Some(AddressWish { asked, any })
}

/// Whether a Service wants ports that it does not have.
pub(super) fn wishes_ports(new: &Value, had: &Held) -> bool {
    let spec = Field::root(&new["spec"]);
    if !has_node_ports(spec.str("type")) {
        return false;
    }
    let health = spec.str("type") == "LoadBalancer"
        && spec.str("externalTrafficPolicy") == "Local"
        && spec.int("healthCheckNodePort").unwrap_or_default() == 0;
    let without = spec.items("ports").any(|port| port.int("nodePort").unwrap_or_default() == 0);
    health || without || Held::by(new).without(had).ports.iter().any(|_| true) || strange(&spec)
}

/// Whether a port is none at all, so that it must be refused.
fn strange(spec: &Field<'_>) -> bool {
    spec.items("ports").any(|port| u16::try_from(port.int("nodePort").unwrap_or_default()).is_err())
}

/// A port that is asked for must be in the range and free, unless the Service itself has it (for
/// another protocol, or from before).
fn take_port(free: &mut FreePorts<'_>, port: u16, had: &Held) -> Result<(), String> {
    if had.ports.contains(&port) || free.given().contains(&port) {
        return Ok(());
    }
    if !free.range().contains(port) {
        return Err(out_of_range(free));
    }
    if free.take(port) { Ok(()) } else { Err("provided port is already allocated".into()) }
}

fn out_of_range(free: &FreePorts<'_>) -> String {
    let range = free.range().text();
    format!("provided port is not in the valid range. The range of valid ports is {range}")
}

fn free_port(free: &mut FreePorts<'_>, asked: &[u16]) -> Result<u16, ApiError> {
    free.take_any(asked)
        .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
}

/// Gives a Service its node ports.
pub(super) fn node_ports(
    free: &mut FreePorts<'_>,
    new: &mut Value,
    had: &Held,
) -> Result<(), ApiError> {
    let view = new["spec"].clone();
    let spec = Field::new(&view, "spec");
    let kind = spec.str("type");
    let unwanted = kind == "LoadBalancer"
        && spec.raw("allocateLoadBalancerNodePorts").as_bool() == Some(false);
    if !has_node_ports(kind) {
        return Ok(());
    }
    let asked_of = |port: &Field<'_>| u16::try_from(port.int("nodePort").unwrap_or_default());
    let asked: Vec<u16> =
        spec.items("ports").filter_map(|port| asked_of(&port).ok()).filter(|p| *p != 0).collect();
    // One port number serves all protocols that a Service offers on one of its ports.
    let mut by_port: Vec<(i64, &str, u16)> = Vec::new();
    for (i, port) in spec.items("ports").enumerate() {
        let number = port.int("port").unwrap_or_default();
        let protocol = port.str("protocol");
        let shared = by_port.iter().find(|(n, p, _)| *n == number && *p != protocol);
        let node_port = match asked_of(&port) {
            Ok(0) if unwanted => continue,
            Ok(0) => match shared {
                Some((.., node_port)) => *node_port,
                None => free_port(free, &asked)?,
            },
            Ok(node_port) => {
                take_port(free, node_port, had).map_err(|why| {
                    let error = FieldError::invalid(port.at("nodePort"), node_port, why);
                    invalid(new, error)
                })?;
                node_port
            }
            Err(_) => {
                return Err(invalid(new, port.invalid("nodePort", out_of_range(free))));
            }
        };
        by_port.push((number, protocol, node_port));
        new["spec"]["ports"][i]["nodePort"] = node_port.into();
    }
    Ok(())
}

/// Gives a load balancer's Service the port that tells of its health.
pub(super) fn health_port(
    free: &mut FreePorts<'_>,
    new: &mut Value,
    had: &Held,
) -> Result<(), ApiError> {
    let view = new["spec"].clone();
    let spec = Field::new(&view, "spec");
    if spec.str("type") != "LoadBalancer" || spec.str("externalTrafficPolicy") != "Local" {
        return Ok(());
    }
    let name = "healthCheckNodePort";
    match u16::try_from(spec.int(name).unwrap_or_default()) {
        Ok(0) => {
            let port = free_port(free, &[])?;
            new["spec"][name] = port.into();
        }
        Ok(port) => take_port(free, port, had).map_err(|why| {
            let why = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
            ApiError::internal(why)
        })?,
        Err(_) => {}
    }
    Ok(())
}
