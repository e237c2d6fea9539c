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
