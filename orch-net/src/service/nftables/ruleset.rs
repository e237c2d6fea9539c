//! The text of the rules, and what of it is in the kernel.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::NftablesOptions;
use crate::service::{Changes, PortName, PortRules, Protocol};

/// An address family, which has a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Self::Ipv4 => "127.0.0.0/8",
            Self::Ipv6 => "::1",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

/// What the kernel has for one port.
#[derive(Debug)]
struct Programmed {
    id: u64,
    /// Elements of maps: the map, the key and the verdict.
    elements: BTreeSet<(&'static str, String, String)>,
    /// Endpoints with a chain, and with a set of clients if there is affinity.
    endpoints: BTreeSet<SocketAddr>,
    affinity_s: Option<u64>,
}

/// The rules of one family, as the kernel has them.
#[derive(Debug)]
pub(super) struct Ruleset {
    family: Family,
    table: String,
    /// The networks whose traffic keeps its source, as a set's text.
    pods: Option<String>,
    next_id: u64,
    ports: HashMap<PortName, Programmed>,
}

/// Adds a line to a script; writing to a string cannot fail.
macro_rules! line {
    ($script:expr, $($text:tt)*) => {{
        let _ = writeln!($script, $($text)*);
    }};
}

impl Ruleset {
    /// Replaces whatever is in the table with the frame that all ports share.
    pub(super) fn new(family: Family, options: &NftablesOptions, script: &mut String) -> Self {
        let table = options.table.clone();
        let networks = options.pod_networks.iter().filter(|net| family.has(&net.addr()));
        let networks: Vec<String> = networks.map(ToString::to_string).collect();
        let pods = (!networks.is_empty()).then(|| networks.join(", "));
        frame(family, &table, options.masquerade_mark, script);
        Self { family, table, pods, next_id: 1, ports: HashMap::new() }
    }

    /// Appends what makes the kernel follow a change.
    pub(super) fn change(&mut self, changes: &Changes, script: &mut String) {
        // Removals first, because an address may move from one port to another.
        for (name, _) in changes.ports.iter().filter(|(_, rules)| rules.is_none()) {
            self.remove(name, script);
        }
        let changed: Vec<_> = changes
            .ports
            .iter()
            .filter_map(|(name, rules)| Some((name, self.compile(name, rules.as_ref()?))))
            .collect();
        for (name, new) in &changed {
            self.remove_elements(name, &new.elements, script);
        }
        for (name, new) in changed {
            let rules = changes.ports.get(name).and_then(Option::as_ref);
            if let Some(rules) = rules {
                self.program(name, rules, new, script);
            }
        }
    }

    fn compile(&mut self, name: &PortName, rules: &PortRules) -> Programmed {
        let id = self.ports.get(name).map_or(self.next_id, |port| port.id);
        self.next_id = self.next_id.max(id + 1);
        let all = rules.endpoints.iter().chain(rules.external_endpoints.iter());
        let endpoints = all.filter(|address| self.family.has(&address.ip())).copied().collect();
        let elements = self.elements(id, rules);
        let affinity_s = rules.affinity.map(|affinity| affinity.as_secs().max(1));
        Programmed { id, elements, endpoints, affinity_s }
    }

    fn elements(&self, id: u64, rules: &PortRules) -> BTreeSet<(&'static str, String, String)> {
        let PortRules { protocol, port, .. } = rules;
        let usable = |list: &[SocketAddr]| list.iter().any(|a| self.family.has(&a.ip()));
        let verdict = |external: bool| {
            let list = if external { &rules.external_endpoints } else { &rules.endpoints };
            let kind = if external { "external" } else { "service" };
            usable(list).then(|| format!("goto {kind}-{id}"))
        };
        // An address without endpoints answers that nobody is there, or with a policy of keeping
        // traffic local says nothing, so that a balancer looks elsewhere.
        let refusal = |external: bool| {
            let local = external && !rules.endpoints.is_empty();
            format!("goto {}", if local { "drop-all" } else { "reject-all" })
        };
        let mut elements = BTreeSet::new();
        let mut addresses = |ips: &[IpAddr], external| {
            for ip in ips.iter().filter(|ip| self.family.has(ip)) {
                let key = format!("{ip} . {protocol} . {port}");
                elements.insert(match verdict(external) {
                    Some(verdict) => ("services", key, verdict),
                    None => ("refused", key, refusal(external)),
                });
            }
        };
        addresses(&rules.cluster_ips, false);
        addresses(&rules.external_ips, true);
        if let Some(node_port) = rules.node_port {
            let key = format!("{protocol} . {node_port}");
            elements.insert(match verdict(true) {
                Some(verdict) => ("node-ports", key, verdict),
                None => ("refused-node-ports", key, refusal(true)),
            });
        }
        elements
    }

    /// Takes out the elements of a port that are not in `keep`.
    fn remove_elements(
        &mut self,
        name: &PortName,
        keep: &BTreeSet<(&'static str, String, String)>,
        script: &mut String,
    ) {
        let Some(port) = self.ports.get(name) else { return };
        let (family, table) = (self.family.name(), &self.table);
        for (map, key, verdict) in port.elements.difference(keep) {
            line!(script, "delete element {family} {table} {map} {{ {key} : {verdict} }}");
        }
    }

    fn remove(&mut self, name: &PortName, script: &mut String) {
        self.remove_elements(name, &BTreeSet::new(), script);
        let Some(port) = self.ports.remove(name) else { return };
        let (family, table, id) = (self.family.name(), &self.table, port.id);
        for kind in ["service", "external"] {
            line!(script, "flush chain {family} {table} {kind}-{id}");
            line!(script, "delete chain {family} {table} {kind}-{id}");
        }
        for endpoint in &port.endpoints {
            self.remove_endpoint(&port, *endpoint, script);
        }
    }

    fn remove_endpoint(&self, port: &Programmed, endpoint: SocketAddr, script: &mut String) {
        let (family, table) = (self.family.name(), &self.table);
        let chain = endpoint_chain(port.id, endpoint);
        line!(script, "flush chain {family} {table} {chain}");
        line!(script, "delete chain {family} {table} {chain}");
        if port.affinity_s.is_some() {
            line!(script, "delete set {family} {table} clients-{chain}");
        }
    }

    fn program(
        &mut self,
        name: &PortName,
        rules: &PortRules,
        new: Programmed,
        script: &mut String,
    ) {
        let old = self.ports.remove(name);
        let (family, table, id) = (self.family.name(), self.table.clone(), new.id);
        for kind in ["service", "external"] {
            let chain = format!("{kind}-{id}");
            line!(script, "add chain {family} {table} {chain} {{ comment \"{name}\" ; }}");
            line!(script, "flush chain {family} {table} {chain}");
        }
        // A set's timeout cannot change: with another affinity the chains and sets are new ones.
        let same_sets = old.as_ref().is_some_and(|old| old.affinity_s == new.affinity_s);
        let gone = old.iter().flat_map(|old| old.endpoints.iter().map(move |e| (old, *e)));
        for (old, endpoint) in gone.filter(|(_, e)| !same_sets || !new.endpoints.contains(e)) {
            self.remove_endpoint(old, endpoint, script);
        }
        let known = old.filter(|_| same_sets);
        let known = known.as_ref().map(|old| &old.endpoints);
        for endpoint in &new.endpoints {
            if known.is_none_or(|known| !known.contains(endpoint)) {
                self.add_endpoint(rules.protocol, &new, *endpoint, script);
            }
        }
        let service = format!("add rule {family} {table} service-{id}");
        if let Some(pods) = &self.pods {
            line!(script, "{service} {family} saddr != {{ {pods} }} jump mark-for-masquerade");
        }
        self.choose(&service, &new, &rules.endpoints, script);
        let external = format!("add rule {family} {table} external-{id}");
        if !rules.preserve_client_ip {
            line!(script, "{external} jump mark-for-masquerade");
        }
        self.choose(&external, &new, &rules.external_endpoints, script);
        // Those that stay are added again, which changes nothing.
        for (map, key, verdict) in &new.elements {
            line!(script, "add element {family} {table} {map} {{ {key} : {verdict} }}");
        }
        self.ports.insert(name.clone(), new);
    }

    /// The rules that lead to one of the endpoints: the client's own, or any.
    fn choose(&self, rule: &str, port: &Programmed, endpoints: &[SocketAddr], script: &mut String) {
        let family = self.family.name();
        let mine = endpoints.iter().filter(|endpoint| self.family.has(&endpoint.ip()));
        let chains: Vec<String> = mine.map(|e| endpoint_chain(port.id, *e)).collect();
        if port.affinity_s.is_some() {
            for chain in &chains {
                line!(script, "{rule} {family} saddr @clients-{chain} goto {chain}");
            }
        }
        let choices = chains.iter().enumerate();
        let choices: Vec<String> =
            choices.map(|(i, chain)| format!("{i} : goto {chain}")).collect();
        if !choices.is_empty() {
            let count = choices.len();
            line!(script, "{rule} numgen random mod {count} vmap {{ {} }}", choices.join(", "));
        }
    }

    fn add_endpoint(
        &self,
        protocol: Protocol,
        port: &Programmed,
        endpoint: SocketAddr,
        script: &mut String,
    ) {
        let (family, table) = (self.family.name(), &self.table);
        let chain = endpoint_chain(port.id, endpoint);
        let rule = format!("add rule {family} {table} {chain}");
        line!(script, "add chain {family} {table} {chain}");
        // An endpoint that meets itself would answer itself directly, to nobody's understanding.
        line!(script, "{rule} {family} saddr {} jump mark-for-masquerade", endpoint.ip());
        if let Some(seconds) = port.affinity_s {
            let kind = self.family.address_type();
            let set = format!("type {kind} ; flags dynamic,timeout ; timeout {seconds}s ;");
            line!(script, "add set {family} {table} clients-{chain} {{ {set} }}");
            line!(script, "{rule} update @clients-{chain} {{ {family} saddr }}");
        }
        line!(script, "{rule} meta l4proto {protocol} dnat to {endpoint}");
    }
}

/// A name from what letters nftables takes.
fn endpoint_chain(id: u64, endpoint: SocketAddr) -> String {
    format!("endpoint-{id}-{}-{}", endpoint.ip().to_string().replace(':', "_"), endpoint.port())
}

/// The table, made anew: maps, and the chains that look into them.
fn frame(family: Family, table: &str, mark: u32, script: &mut String) {
    let (ip, kind, loopback) = (family.name(), family.address_type(), family.loopback());
    let by_address = format!("{{ type {kind} . inet_proto . inet_service : verdict ; }}");
    let by_port = "{ type inet_proto . inet_service : verdict ; }";
    let statements = [
        format!("add table {ip} {table}"),
        format!("delete table {ip} {table}"),
        format!("add table {ip} {table}"),
        format!("add map {ip} {table} services {by_address}"),
        format!("add map {ip} {table} refused {by_address}"),
        format!("add map {ip} {table} node-ports {by_port}"),
        format!("add map {ip} {table} refused-node-ports {by_port}"),
    ];
    statements.iter().for_each(|statement| line!(script, "{statement}"));
    let hooks = [
        ("nat-prerouting", "type nat hook prerouting priority -100 ;"),
        ("nat-output", "type nat hook output priority -100 ;"),
        ("nat-postrouting", "type nat hook postrouting priority 100 ;"),
        ("filter-input", "type filter hook input priority -110 ;"),
        ("filter-forward", "type filter hook forward priority -110 ;"),
        ("filter-output", "type filter hook output priority -110 ;"),
    ];
    for (chain, hook) in hooks {
        line!(script, "add chain {ip} {table} {chain} {{ {hook} }}");
    }
    for chain in ["find-service", "find-refused", "mark-for-masquerade", "reject-all", "drop-all"] {
        line!(script, "add chain {ip} {table} {chain}");
    }
    let address = format!("{ip} daddr . meta l4proto . th dport");
    let node = format!("fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport");
    let rules = [
        ("nat-prerouting", "jump find-service".to_owned()),
        ("nat-output", "jump find-service".to_owned()),
        ("find-service", format!("{address} vmap @services")),
        ("find-service", format!("{node} vmap @node-ports")),
        ("filter-input", "ct state new jump find-refused".to_owned()),
        ("filter-forward", "ct state new jump find-refused".to_owned()),
        ("filter-output", "ct state new jump find-refused".to_owned()),
        ("find-refused", format!("{address} vmap @refused")),
        ("find-refused", format!("{node} vmap @refused-node-ports")),
        ("reject-all", "reject".to_owned()),
        ("drop-all", "drop".to_owned()),
        ("mark-for-masquerade", format!("meta mark set meta mark or {mark:#x}")),
        ("nat-postrouting", format!("meta mark and {mark:#x} == 0 return")),
        ("nat-postrouting", format!("meta mark set meta mark xor {mark:#x}")),
        ("nat-postrouting", "masquerade fully-random".to_owned()),
    ];
    for (chain, rule) in rules {
        line!(script, "add rule {ip} {table} {chain} {rule}");
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;

    fn rules(endpoints: &[&str]) -> PortRules {
        let endpoints: Arc<[SocketAddr]> = endpoints.iter().map(|e| e.parse().unwrap()).collect();
        PortRules {
            protocol: Protocol::Tcp,
            cluster_ips: vec![[10, 96, 0, 1].into()],
            external_ips: Vec::new(),
            port: 80,
            node_port: Some(30080),
            affinity: None,
            endpoints: endpoints.clone(),
            external_endpoints: endpoints,
            preserve_client_ip: false,
        }
    }

    fn name(service: &str) -> PortName {
        PortName { namespace: "a".into(), service: service.into(), port: "http".into() }
    }

    fn change(ruleset: &mut Ruleset, service: &str, rules: Option<PortRules>) -> String {
        let mut script = String::new();
        let changes = Changes { ports: BTreeMap::from([(name(service), rules)]) };
        ruleset.change(&changes, &mut script);
        script
    }

    #[test]
    fn a_change_is_as_large_as_what_changed() {
        let options = NftablesOptions::default();
        let mut ruleset = Ruleset::new(Family::Ipv4, &options, &mut String::new());
        for i in 0..1000 {
            change(&mut ruleset, &format!("other-{i}"), Some(rules(&["10.1.0.9:80"])));
        }
        let first = change(&mut ruleset, "web", Some(rules(&["10.1.0.1:80", "10.1.0.2:80"])));
        assert!(first.contains("vmap { 0 : goto endpoint-1001-10.1.0.1-80"), "{first}");
        let next = change(&mut ruleset, "web", Some(rules(&["10.1.0.2:80", "10.1.0.3:80"])));
        assert!(next.contains("delete chain ip orch-proxy endpoint-1001-10.1.0.1-80"), "{next}");
        assert!(!next.contains("add chain ip orch-proxy endpoint-1001-10.1.0.2"), "{next}");
        assert!(next.lines().count() < 20, "{next}");
        let none = change(&mut ruleset, "web", Some(rules(&[])));
        assert!(none.contains("refused { 10.96.0.1 . tcp . 80 : goto reject-all }"), "{none}");
        let gone = change(&mut ruleset, "web", None);
        assert!(gone.contains("delete chain ip orch-proxy service-1001"), "{gone}");
        assert_eq!(change(&mut ruleset, "web", None), "");
    }
}
