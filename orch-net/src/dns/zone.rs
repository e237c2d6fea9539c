//! What the cluster's names stand for.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};
use orch_core::{
    Environment, Key,
    informer::{Informer, Informers},
};

use crate::backends;

const BY_ADDRESS: &str = "orch-net/services-by-address";
const SLICES_BY_ADDRESS: &str = "orch-net/slices-by-address";
/// The version of the specification that the answers follow.
const SCHEMA: &str = "1.1.0";

/// What is known about a name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The records of the type that was asked for, or a CNAME.
    pub(super) answers: Vec<Record>,
    /// What the client will ask for next.
    pub(super) additionals: Vec<Record>,
}

/// What looking up a name comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Lookup {
    /// The name exists; without answers it has no record of that type.
    Found(Found),
    /// The name is ours to know, and does not exist.
    NoName,
    /// The name is somebody else's.
    NotOurs,
}

/// The cluster's domain.
#[derive(Debug)]
pub(super) struct Zone {
    domain: Name,
    /// In lower case, without the dot at the end.
    suffix: String,
    ttl_s: u32,
    environment: Environment,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
}

impl Zone {
    pub(super) fn new(informers: &Informers, mut domain: Name, ttl_s: u32) -> Self {
        domain.set_fqdn(true);
        let suffix = domain.to_string().trim_end_matches('.').to_ascii_lowercase();
        let services = informers.of::<Service>();
        services.add_index(BY_ADDRESS, |service| {
            backends::cluster_ips(service).iter().map(ToString::to_string).collect()
        });
        let slices = backends::slices(informers);
        slices.add_index(SLICES_BY_ADDRESS, |slice| {
            let endpoints = slice.endpoints.iter().flatten();
            endpoints.filter_map(|endpoint| endpoint.addresses.first().cloned()).collect()
        });
        let namespaces = informers.of::<Namespace>();
        let environment = informers.environment().clone();
        Self { domain, suffix, ttl_s, environment, services, slices, namespaces }
    }

    /// Whether the first lists have been taken in.
    pub(super) fn has_synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }

    /// The zone's SOA record, which goes with every answer that says no.
    pub(super) fn soa(&self) -> Record {
        let server = self.below("ns.dns").unwrap_or_else(|| self.domain.clone());
        let owner = self.below("hostmaster").unwrap_or_else(|| self.domain.clone());
        // Nobody transfers this zone, so that any number that grows will do.
        let serial = (self.environment.clock.now().as_second() & i64::from(u32::MAX)) as u32;
        let soa = SOA::new(server, owner, serial, 7200, 1800, 86_400, self.ttl_s);
        self.record(self.domain.clone(), RData::SOA(soa))
    }

    fn below(&self, prefix: &str) -> Option<Name> {
        Name::from_utf8(format!("{prefix}.{}.", self.suffix)).ok()
    }

    fn record(&self, name: Name, data: RData) -> Record {
        Record::from_rdata(name, self.ttl_s, data)
    }

    fn address(&self, name: &Name, address: IpAddr) -> Record {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.record(name.clone(), data)
    }

    /// Looks a name up (in lower case, without the dot at the end).
    pub(super) fn lookup(&self, name: &str, kind: RecordType) -> Lookup {
        let Ok(owner) = Name::from_utf8(format!("{name}.")) else { return Lookup::NoName };
        if name.ends_with(".arpa") {
            return self.reverse(name, &owner, kind);
        }
        let labels: Vec<&str> = match name.strip_suffix(&self.suffix) {
            Some("") => Vec::new(),
            Some(rest) => match rest.strip_suffix('.') {
                Some(rest) => rest.rsplit('.').collect(),
                None => return Lookup::NotOurs,
            },
            None => return Lookup::NotOurs,
        };
        let found = match labels[..] {
            [] => Some(self.apex(kind)),
            ["dns-version"] => Some(self.version(owner, kind)),
            ["ns", ..] | ["dns"] | ["svc" | "pod"] => Some(Found::default()),
            ["svc" | "pod", namespace] => self.has_namespace(namespace).then(Found::default),
            ["pod", namespace, address] => self.pod(&owner, namespace, address, kind),
            ["svc", namespace, service, ref rest @ ..] => {
                let service = self.services.get(&Key::new(namespace, service));
                service.and_then(|service| self.service(&owner, &service, rest, kind))
            }
            _ => None,
        };
        found.map_or(Lookup::NoName, Lookup::Found)
    }

    fn apex(&self, kind: RecordType) -> Found {
        let answers = match kind {
            RecordType::SOA => vec![self.soa()],
            RecordType::NS => {
                let server = self.below("ns.dns");
                let server =
                    server.map(|name| self.record(self.domain.clone(), RData::NS(NS(name))));
                server.into_iter().collect()
            }
            _ => Vec::new(),
        };
        Found { answers, ..Found::default() }
    }

    fn version(&self, owner: Name, kind: RecordType) -> Found {
        let text = RData::TXT(TXT::new(vec![SCHEMA.to_owned()]));
        let answer = (kind == RecordType::TXT).then(|| self.record(owner, text));
        Found { answers: answer.into_iter().collect(), ..Found::default() }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(&Key::cluster(namespace)).is_some()
    }

    fn pod(&self, owner: &Name, namespace: &str, label: &str, kind: RecordType) -> Option<Found> {
        if !self.has_namespace(namespace) {
            return None;
        }
        let address = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        let address =
            address.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6));
        Some(self.addresses(owner, &[address.ok()?], kind))
    }

    fn addresses(&self, owner: &Name, addresses: &[IpAddr], kind: RecordType) -> Found {
        let wanted = addresses.iter().filter(|address| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        });
        let mut answers: Vec<_> = wanted.map(|address| self.address(owner, *address)).collect();
        if answers.len() > 1 {
            // Clients that take the first must not all take the same.
            let turn = self.environment.random.below(answers.len() as u64) as usize;
            answers.rotate_left(turn);
        }
        Found { answers, ..Found::default() }
    }

    /// A name within a service's: its own, an endpoint's, or a port's.
    fn service(
        &self,
        owner: &Name,
        service: &Service,
        rest: &[&str],
        kind: RecordType,
    ) -> Option<Found> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().filter(|_| rest.is_empty())?;
            let target = Name::from_utf8(format!("{}.", target.trim_end_matches('.'))).ok()?;
            let answer = self.record(owner.clone(), RData::CNAME(CNAME(target)));
            return Some(Found { answers: vec![answer], ..Found::default() });
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        match *rest {
            [] if kind == RecordType::SRV => Some(self.ports(owner, service, |_| true)),
            [] if headless => {
                let endpoints = self.endpoints(service);
                let all: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
                (!all.is_empty()).then(|| self.addresses(owner, &all, kind))
            }
            [] => Some(self.addresses(owner, &backends::cluster_ips(service), kind)),
            ["_tcp" | "_udp" | "_sctp"] => Some(Found::default()),
            [protocol, port] => {
                let (protocol, port) = (protocol.strip_prefix('_')?, port.strip_prefix('_')?);
                let wanted = |candidate: &ServicePort| {
                    candidate.name.as_deref() == Some(port)
                        && candidate
                            .protocol
                            .as_deref()
                            .unwrap_or("TCP")
                            .eq_ignore_ascii_case(protocol)
                };
                if !spec.ports.iter().flatten().any(wanted) {
                    return None;
                }
                let found = self.ports(owner, service, wanted);
                Some(if kind == RecordType::SRV { found } else { Found::default() })
            }
            [host] if headless => {
                let endpoints = self.endpoints(service);
                let mine = endpoints.iter().filter(|endpoint| endpoint.host == host);
                let mine: Vec<_> = mine.map(|endpoint| endpoint.address).collect();
                (!mine.is_empty()).then(|| self.addresses(owner, &mine, kind))
            }
            _ => None,
        }
    }

    /// SRV records of a service's ports, with the addresses of what they point to.
    fn ports(
        &self,
        owner: &Name,
        service: &Service,
        wanted: impl Fn(&ServicePort) -> bool,
    ) -> Found {
        let mut found = Found::default();
        let Some(own_name) = self.name_of(service) else { return found };
        let spec = service.spec.as_ref();
        let ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
        let mut targets: Vec<(u16, Name, Vec<IpAddr>)> = Vec::new();
        for port in ports.filter(|port| wanted(port)) {
            let addresses = backends::cluster_ips(service);
            if !addresses.is_empty() {
                let number = u16::try_from(port.port).unwrap_or(0);
                targets.push((number, own_name.clone(), addresses));
                continue;
            }
            let slices = self.slices_of(service);
            for backend in slices.iter().flat_map(|slice| backends::backends(slice, port)) {
                let (address, endpoint) = (backend.address, backend.endpoint);
                let name =
                    Name::from_utf8(format!("{}.{own_name}", host_of(endpoint, address.ip())));
                if let (true, Ok(name)) = (backends::is_ready(endpoint), name) {
                    targets.push((address.port(), name, vec![address.ip()]));
                }
            }
        }
        // Equal shares that fit the field, as CoreDNS gives them.
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        for (port, target, addresses) in targets {
            let extra = addresses.iter().map(|address| self.address(&target, *address));
            found.additionals.extend(extra);
            let srv = RData::SRV(SRV::new(0, weight, port, target));
            found.answers.push(self.record(owner.clone(), srv));
        }
        found
    }

    fn name_of(&self, service: &Service) -> Option<Name> {
        let Key { namespace, name } = Key::of(&service.metadata);
        self.below(&format!("{name}.{namespace}.svc"))
    }

    fn slices_of(&self, service: &Service) -> Vec<Arc<EndpointSlice>> {
        backends::slices_of(&self.slices, &Key::of(&service.metadata))
    }

    /// The ready endpoints of a headless service.
    fn endpoints(&self, service: &Service) -> Vec<NamedEndpoint> {
        let mut named = Vec::new();
        for slice in self.slices_of(service) {
            let ready = slice.endpoints.iter().flatten().filter(|e| backends::is_ready(e));
            for endpoint in ready {
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                named.extend(addresses.map(|address: IpAddr| NamedEndpoint {
                    host: host_of(endpoint, address),
                    address,
                }));
            }
        }
        named.sort_by_key(|endpoint| endpoint.address);
        named.dedup_by_key(|endpoint| endpoint.address);
        named
    }

    /// PTR: which service or named endpoint has an address.
    fn reverse(&self, name: &str, owner: &Name, kind: RecordType) -> Lookup {
        let Some(address) = reverse_address(name) else { return Lookup::NotOurs };
        let text = address.to_string();
        let services = self.services.by_index(BY_ADDRESS, &text);
        let mut names: Vec<Name> = services.iter().filter_map(|s| self.name_of(s)).collect();
        if names.is_empty() {
            for slice in self.slices.by_index(SLICES_BY_ADDRESS, &text) {
                names.extend(self.endpoint_names(&slice, &text));
            }
        }
        if names.is_empty() {
            return Lookup::NotOurs;
        }
        names.sort();
        names.dedup();
        let wanted = names.into_iter().filter(|_| kind == RecordType::PTR);
        let answers =
            wanted.map(|name| self.record(owner.clone(), RData::PTR(PTR(name)))).collect();
        Lookup::Found(Found { answers, ..Found::default() })
    }

    /// The names of a headless service's endpoints with an address, where they have a hostname.
    fn endpoint_names(&self, slice: &EndpointSlice, address: &str) -> Vec<Name> {
        let service = backends::service_of(slice).and_then(|key| self.services.get(&key));
        let headless = service.filter(|service| backends::cluster_ips(service).is_empty());
        let Some(own_name) = headless.and_then(|service| self.name_of(&service)) else {
            return Vec::new();
        };
        let endpoints = slice.endpoints.iter().flatten();
        let mine = endpoints.filter(|e| e.addresses.first().is_some_and(|a| a == address));
        let hosts = mine.filter_map(|endpoint| endpoint.hostname.as_deref());
        hosts.filter_map(|host| Name::from_utf8(format!("{host}.{own_name}")).ok()).collect()
    }
}

struct NamedEndpoint {
    host: String,
    address: IpAddr,
}

/// The label of an endpoint: its hostname, or its address with dashes.
fn host_of(endpoint: &Endpoint, address: IpAddr) -> String {
    match endpoint.hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
        _ => address.to_string().replace(['.', ':'], "-"),
    }
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let forward: Vec<&str> = labels.rsplit('.').collect();
        return forward.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let mut bits = 0u128;
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    for nibble in nibbles.iter().filter(|nibble| nibble.len() == 1) {
        bits = bits << 4 | u128::from_str_radix(nibble, 16).ok()?;
    }
    (nibbles.len() == 32).then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        let check = |name: &str, address: Option<&str>| {
            assert_eq!(reverse_address(name).map(|ip| ip.to_string()).as_deref(), address);
        };
        check("4.3.2.1.in-addr.arpa", Some("1.2.3.4"));
        check("3.2.1.in-addr.arpa", None);
        check(&format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)), Some("2001:db8::1"));
        check("example.arpa", None);
    }
}
