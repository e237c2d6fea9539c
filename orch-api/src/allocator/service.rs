//! What one Service needs, and getting it.

use std::net::IpAddr;

use orch_core::{ApiError, random::Random, status::FieldError};
use serde_json::{Value, json};

use super::Books;
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

    /// What is held here and not there.
    pub(super) fn without(mut self, other: &Self) -> Self {
        self.addresses.retain(|ip| !other.addresses.contains(ip));
        self.ports.retain(|port| !other.ports.contains(port));
        self
    }
}

fn invalid(service: &Value, error: FieldError) -> ApiError {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    ApiError::invalid("", "Service", name, &[error])
}

/// Gives a Service what it needs and does not have yet. Takes all or nothing; with `dry_run`
/// nothing is noted down.
pub(super) fn allocate(
    books: &mut Books,
    random: &dyn Random,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<(), ApiError> {
    let had = old.map(Held::by).unwrap_or_default();
    families(books, new)?;
    let mut taken = Held::default();
    let given = addresses(books, random, new, &had, &mut taken)
        .and_then(|()| node_ports(books, random, new, &had, &mut taken))
        .and_then(|()| health_port(books, random, new, &had, &mut taken));
    if given.is_err() || dry_run {
        books.release(&taken);
    }
    given
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Settles `ipFamilies` and `ipFamilyPolicy`.
fn families(books: &Books, new: &mut Value) -> Result<(), ApiError> {
    let served: Vec<&str> =
        books.addresses.iter().map(|range| family(range.range().addr())).collect();
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

fn addresses(
    books: &mut Books,
    random: &dyn Random,
    new: &mut Value,
    had: &Held,
    taken: &mut Held,
) -> Result<(), ApiError> {
    let view = new["spec"].clone();
    let spec = Field::root(&view);
    if !has_cluster_ip(spec.str("type")) {
        return Ok(());
    }
    let mut all: Vec<String> = spec.strs("clusterIPs").map(str::to_owned).collect();
    if all.is_empty() && !spec.str("clusterIP").is_empty() {
        all.push(spec.str("clusterIP").to_owned());
    }
    if all.first().is_some_and(|ip| ip == "None") {
        new["spec"]["clusterIP"] = "None".into();
        new["spec"]["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    for ip in &all {
        // What is no address at all is left to validation.
        let Ok(ip) = ip.parse::<IpAddr>() else { return Ok(()) };
        if had.addresses.contains(&ip) || taken.addresses.contains(&ip) {
            continue;
        }
        let range =
            books.addresses.iter().find(|range| range.range().addr().is_ipv4() == ip.is_ipv4());
        let why = match range {
            Some(range) if !range.contains(ip) => Some(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                range.range()
            )),
            Some(range) if range.is_taken(ip) => Some("provided IP is already allocated".into()),
            Some(_) => None,
            None => Some("not configured on this cluster".into()),
        };
        if let Some(why) = why {
            let why = format!("failed to allocate IP {ip}: {why}");
            let error = FieldError::invalid("spec.clusterIPs", json!(all), why);
            return Err(invalid(new, error));
        }
        books.take_address(ip);
        taken.addresses.push(ip);
    }
    let wanted: Vec<&str> = new["spec"]["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for wanted in wanted.into_iter().skip(all.len()) {
        let range = books.addresses.iter_mut().find(|range| family(range.range().addr()) == wanted);
        let Some(range) = range else { continue };
        let ip = range
            .free(random)
            .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?;
        range.take(ip);
        taken.addresses.push(ip);
        all.push(ip.to_string());
    }
    if let Some(first) = all.first() {
        new["spec"]["clusterIP"] = first.as_str().into();
        new["spec"]["clusterIPs"] = json!(all);
    }
    Ok(())
}

/// A port that is asked for must be in the range and free, unless the Service itself has it (for
/// another protocol, or from before).
fn take_port(books: &mut Books, port: u16, had: &Held, taken: &mut Held) -> Result<(), String> {
    if had.ports.contains(&port) || taken.ports.contains(&port) {
        return Ok(());
    }
    if !books.ports.contains(port) {
        let range = books.ports.text();
        return Err(format!(
            "provided port is not in the valid range. The range of valid ports is {range}"
        ));
    }
    if !books.ports.take(port) {
        return Err("provided port is already allocated".into());
    }
    taken.ports.push(port);
    Ok(())
}

fn free_port(
    books: &mut Books,
    random: &dyn Random,
    asked: &[u16],
    taken: &mut Held,
) -> Result<u16, ApiError> {
    let port = books
        .ports
        .free(random, asked)
        .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
    books.ports.take(port);
    taken.ports.push(port);
    Ok(port)
}

fn node_ports(
    books: &mut Books,
    random: &dyn Random,
    new: &mut Value,
    had: &Held,
    taken: &mut Held,
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
                None => free_port(books, random, &asked, taken)?,
            },
            Ok(node_port) => {
                take_port(books, node_port, had, taken).map_err(|why| {
                    let error = FieldError::invalid(port.at("nodePort"), node_port, why);
                    invalid(new, error)
                })?;
                node_port
            }
            Err(_) => {
                let range = books.ports.text();
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {range}"
                );
                return Err(invalid(new, port.invalid("nodePort", why)));
            }
        };
        by_port.push((number, protocol, node_port));
        new["spec"]["ports"][i]["nodePort"] = node_port.into();
    }
    Ok(())
}

fn health_port(
    books: &mut Books,
    random: &dyn Random,
    new: &mut Value,
    had: &Held,
    taken: &mut Held,
) -> Result<(), ApiError> {
    let view = new["spec"].clone();
    let spec = Field::new(&view, "spec");
    if spec.str("type") != "LoadBalancer" || spec.str("externalTrafficPolicy") != "Local" {
        return Ok(());
    }
    let name = "healthCheckNodePort";
    match u16::try_from(spec.int(name).unwrap_or_default()) {
        Ok(0) => {
            let port = free_port(books, random, &[], taken)?;
            new["spec"][name] = port.into();
        }
        Ok(port) => take_port(books, port, had, taken).map_err(|why| {
            let why = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
            ApiError::internal(why)
        })?,
        Err(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;
    use crate::allocator::{AddressRange, PortRange};

    fn books(ranges: &[&str]) -> Books {
        let addresses =
            ranges.iter().map(|range| AddressRange::new(range.parse().unwrap())).collect();
        Books { addresses, ports: PortRange::new(30000..=32767) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the specs are literals")]
    fn create(books: &mut Books, spec: Value) -> Result<Value, String> {
        let mut new = json!({"metadata": {"name": "s"}, "spec": spec});
        allocate(books, &SeededRandom::new(1), &mut new, None, false)
            .map(|()| new["spec"].clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_taken_or_out_of_range_is_refused() {
        let mut books = books(&["10.0.0.0/24"]);
        let mut check = |spec: Value, wanted: &str| {
            let told = create(&mut books, spec).err().unwrap_or_default();
            assert_eq!(told, wanted);
        };
        let ip = |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip});
        check(ip("10.0.0.5"), "");
        check(
            ip("10.0.0.5"),
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.5\"]: failed to allocate IP 10.0.0.5: provided IP is already allocated",
        );
        check(
            ip("10.1.0.5"),
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.1.0.5\"]: failed to allocate IP 10.1.0.5: the provided IP (10.1.0.5) is not in the valid range. The range of valid IPs is 10.0.0.0/24",
        );
        let port = |port: u32| json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]});
        check(port(30001), "");
        check(
            port(30001),
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
        );
        check(
            port(80),
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        );
        check(
            json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]}),
            "Service \"s\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        );
        check(
            json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"}),
            "Service \"s\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        );
        check(json!({"type": "ExternalName"}), "");
    }

    #[test]
    fn services_get_what_their_type_needs() {
        let mut one = books(&["10.0.0.0/24"]);
        let spec = create(
            &mut one,
            json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
        )
        .unwrap();
        assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
        assert_eq!(spec["clusterIP"], spec["clusterIPs"][0]);
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
        let headless = create(
            &mut one,
            json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}),
        );
        assert_eq!(headless.unwrap()["clusterIPs"], json!(["None"]));
        let by_hand = create(&mut one, json!({"type": "ClusterIP", "clusterIP": "None"})).unwrap();
        assert_eq!(by_hand["ipFamilies"], json!(["IPv4", "IPv6"]));
        let mut two = books(&["10.0.0.0/24", "fd00::/112"]);
        let dual =
            create(&mut two, json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}));
        assert_eq!(dual.unwrap()["clusterIPs"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_failure_takes_nothing() {
        let mut books = books(&["10.0.0.0/24"]);
        let spec = json!({"type": "NodePort", "clusterIP": "10.0.0.9",
            "ports": [{"port": 1, "protocol": "TCP", "nodePort": 1}]});
        assert!(create(&mut books, spec).is_err());
        assert!(!books.addresses[0].is_taken("10.0.0.9".parse().unwrap()));
    }
}
