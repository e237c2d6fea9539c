//! The ranges that Services get their addresses from, and the addresses that they have.
//!
//! Source: `pkg/apis/networking/validation`, `ValidateIPAddress`, `ValidateServiceCIDR`;
//! `pkg/registry/networking/ipaddress`, `servicecidr`.

use std::net::IpAddr;

use ipnet::IpNet;
use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    field::{Errors, Field, IMMUTABLE},
    plain::{Plain, empty_status},
    pod_spec::named,
};
use crate::{names, printers};

pub(super) static IP_ADDRESSES: Plain = Plain {
    validate: ip_address,
    update: |new, old| {
        let mut errors = Vec::new();
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "parentRef", &mut errors);
        errors
    },
    name: address_name,
    columns: &printers::network::IP_ADDRESSES,
    row: printers::network::ip_address,
    ..Plain::DATA
};

/// An address is its own name, written as it is printed, so that no address has two.
fn address_name(name: &str) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(_) => vec!["must be a canonical format IP address".to_owned()],
        Err(_) => vec![format!("ParseAddr({name:?}): unable to parse IP")],
    }
}

fn ip_address(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    let Some(parent) = spec.opt("parentRef") else {
        errors.push(spec.required("parentRef", ""));
        return errors;
    };
    if !parent.str("group").is_empty() {
        named(&parent, "group", names::dns_subdomain, &mut errors);
    }
    for field in ["resource", "name"] {
        if parent.str(field).is_empty() {
            errors.push(parent.required(field, ""));
        } else {
            named(&parent, field, names::path_segment, &mut errors);
        }
    }
    if !parent.str("namespace").is_empty() {
        named(&parent, "namespace", names::path_segment, &mut errors);
    }
    errors
}

pub(super) static SERVICE_CIDRS: Plain = Plain {
    validate: service_cidr,
    update: cidrs_kept,
    status: Some(empty_status),
    generation: false,
    columns: &printers::network::SERVICE_CIDRS,
    row: printers::network::service_cidr,
    ..Plain::ANY
};

fn service_cidr(object: &Value) -> Errors {
    let spec = Field::root(object).get("spec");
    let all: Vec<&str> = spec.strs("cidrs").collect();
    let whole = |why: &str| FieldError::invalid("spec.cidrs", spec.value.clone(), why);
    match all.as_slice() {
        [] => return vec![spec.required("cidrs", "at least one CIDR required")],
        [_] => {}
        [first, second] => {
            let family = |text: &str| text.parse::<IpNet>().ok().map(|net| net.addr().is_ipv4());
            if !matches!((family(first), family(second)), (Some(a), Some(b)) if a != b) {
                return vec![whole(
                    "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                     2001:db8::/96",
                )];
            }
        }
        _ => return vec![whole("may only hold up to 2 values")],
    }
    let mut errors = Vec::new();
    for (at, text) in all.iter().enumerate() {
        let path = format!("spec.cidrs[{at}]");
        match text.parse::<IpNet>() {
            Err(_) => errors.extend(
                names::cidr(text).into_iter().map(|w| FieldError::invalid(&path, *text, w)),
            ),
            Ok(net) if net.trunc().to_string() != *text => {
                let why = if net.trunc() == net {
                    format!("must be in canonical form ({:?})", net.to_string())
                } else {
                    let len = net.prefix_len();
                    format!("must not have bits set beyond the prefix length (/{len})")
                };
                errors.push(FieldError::invalid(&path, *text, why));
            }
            Ok(_) => {}
        }
    }
    errors
}

/// Ranges stay what they are; a second family may come to the first.
fn cidrs_kept(new: &Value, old: &Value) -> Errors {
    let list = |object: &Value| object["spec"]["cidrs"].as_array().cloned().unwrap_or_default();
    let (new, old) = (list(new), list(old));
    let first = || new.first().cloned().unwrap_or_default();
    match (old.len(), new.len()) {
        (before, now) if before == now && new == old => Vec::new(),
        (1, 2) if new.first() == old.first() => Vec::new(),
        (before, now) if before == now || (before, now) == (1, 2) => {
            vec![FieldError::invalid("spec.cidrs[0]", first(), IMMUTABLE)]
        }
        _ => vec![FieldError::invalid("spec.cidrs", new, IMMUTABLE)],
    }
}
