//! The tables of Services, endpoints and ingresses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, age_cell, labels, name, or_none, text, wide};
use crate::{kinds::Field, strategy::Column};

pub(crate) const SERVICES: [Column; 7] = [
    NAME,
    text("Type", "How it is reachable."),
    text("Cluster-IP", "Its address in the cluster."),
    text("External-IP", "Its addresses outside."),
    text("Port(s)", "Its ports, node ports behind a colon."),
    AGE,
    wide("Selector", "Which pods are behind it."),
];

pub(crate) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let ip = match spec.strs("clusterIPs").next() {
        Some(ip) => ip,
        None => spec.str("clusterIP"),
    };
    vec![
        name(object),
        spec.str("type").into(),
        or_none(ip),
        external_ip(object, &spec).into(),
        service_ports(&spec).into(),
        age_cell(object, now),
        labels(spec.raw("selector")).into(),
    ]
}

fn external_ip(object: &Value, spec: &Field<'_>) -> String {
    let own: Vec<&str> = spec.strs("externalIPs").collect();
    match spec.str("type") {
        "ClusterIP" | "NodePort" if own.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let balancer = Field::root(&object["status"]).get("loadBalancer");
            let given = load_balancer(&balancer);
            let mut all: Vec<&str> = own;
            if !given.is_empty() {
                all.insert(0, &given);
            }
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.str("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses that a load balancer gave, each once.
pub(super) fn load_balancer(status: &Field<'_>) -> String {
    let given: BTreeSet<&str> = status
        .items("ingress")
        .map(|one| if one.str("ip").is_empty() { one.str("hostname") } else { one.str("ip") })
        .filter(|address| !address.is_empty())
        .collect();
    given.into_iter().collect::<Vec<_>>().join(",")
}

fn service_ports(spec: &Field<'_>) -> String {
    let ports: Vec<String> = spec
        .items("ports")
        .map(|port| {
            let (number, protocol) = (port.int("port").unwrap_or_default(), port.str("protocol"));
            match port.int("nodePort").filter(|n| *n > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

/// How many items of a list a cell shows.
const SHOWN_MAX: usize = 3;

fn some_of(items: &[String], otherwise: &str) -> Value {
    let more = items.len().saturating_sub(SHOWN_MAX);
    let shown = items.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    Value::from(match (items.is_empty(), more) {
        (true, _) => otherwise.to_owned(),
        (_, 0) => shown,
        _ => format!("{shown} + {more} more..."),
    })
}

fn socket(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(crate) const ENDPOINTS: [Column; 3] =
    [NAME, text("Endpoints", "Addresses and ports that take traffic."), AGE];

pub(crate) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in Field::root(object).items("subsets") {
        if subset.len("ports") == 0 {
            all.extend(subset.items("addresses").map(|address| address.str("ip").to_owned()));
        }
        for port in subset.items("ports") {
            let number = port.int("port").unwrap_or_default();
            let sockets = subset.items("addresses").map(|a| socket(a.str("ip"), number));
            all.extend(sockets);
        }
    }
    vec![name(object), some_of(&all, NONE), age_cell(object, now)]
}

pub(crate) const ENDPOINT_SLICES: [Column; 5] = [
    NAME,
    text("AddressType", "What its addresses are."),
    text("Ports", "The ports of every endpoint."),
    text("Endpoints", "The addresses."),
    AGE,
];

pub(crate) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let slice = Field::root(object);
    let ports: Vec<String> = slice
        .items("ports")
        .map(|port| port.int("port").map_or("*".to_owned(), |number| number.to_string()))
        .collect();
    let addresses: Vec<String> = slice
        .items("endpoints")
        .flat_map(|endpoint| endpoint.strs("addresses").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    vec![
        name(object),
        slice.str("addressType").into(),
        some_of(&ports, super::UNSET),
        some_of(&addresses, super::UNSET),
        age_cell(object, now),
    ]
}

pub(crate) const INGRESSES: [Column; 6] = [
    NAME,
    text("Class", "Who serves it."),
    text("Hosts", "The hosts that it is for."),
    text("Address", "Where it is reachable."),
    text("Ports", "The ports that it is reachable on."),
    AGE,
];

pub(crate) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let hosts: Vec<String> = spec
        .items("rules")
        .map(|rule| rule.str("host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let balancer = Field::root(&object["status"]).get("loadBalancer");
    vec![
        name(object),
        or_none(spec.str("ingressClassName")),
        some_of(&hosts, "*"),
        load_balancer(&balancer).into(),
        if spec.len("tls") > 0 { "80, 443" } else { "80" }.into(),
        age_cell(object, now),
    ]
}

pub(crate) const INGRESS_CLASSES: [Column; 4] = [
    NAME,
    text("Controller", "Who serves ingresses of this class."),
    text("Parameters", "Where its configuration is."),
    AGE,
];

pub(crate) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let parameters = spec.opt("parameters").map_or(NONE.to_owned(), |to| {
        let kind = match to.str("apiGroup") {
            "" => to.str("kind").to_owned(),
            group => format!("{}.{group}", to.str("kind")),
        };
        format!("{kind}/{}", to.str("name"))
    });
    vec![name(object), spec.str("controller").into(), parameters.into(), age_cell(object, now)]
}

pub(crate) const NETWORK_POLICIES: [Column; 3] =
    [NAME, text("Pod-Selector", "Which pods it is for."), AGE];

pub(crate) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    let pods = super::selector(&object["spec"]["podSelector"]);
    vec![name(object), pods.into(), age_cell(object, now)]
}

pub(crate) const IP_ADDRESSES: [Column; 3] = [NAME, text("ParentRef", "What it belongs to."), AGE];

pub(crate) fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let parent = spec.opt("parentRef").map(|parent| {
        let mut shown = parent.str("resource").to_owned();
        for (sign, field) in [(".", "group"), ("/", "namespace")] {
            if !parent.str(field).is_empty() {
                shown.push_str(sign);
                shown.push_str(parent.str(field));
            }
        }
        format!("{}/{}", shown.to_lowercase(), parent.str("name"))
    });
    vec![name(object), parent.map_or_else(|| NONE.into(), Value::from), age_cell(object, now)]
}

pub(crate) const SERVICE_CIDRS: [Column; 3] = [NAME, text("CIDRs", "Its ranges."), AGE];

pub(crate) fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<&str> = Field::root(&object["spec"]).strs("cidrs").collect();
    vec![name(object), ranges.join(",").into(), age_cell(object, now)]
}
