//! Pod sandboxes as data.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSecurityContext;

/// The runtime's own name for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose sandbox it is. Unique together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// Counts the sandboxes that the pod has had, from zero.
    pub attempt: u32,
}

/// How names are resolved inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

impl DnsConfig {
    /// How this machine resolves names; empty if it does not say.
    pub fn of_host() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// From the text of a `resolv.conf`. What is not understood is left out.
    pub fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next();
            let rest = words.map(ToOwned::to_owned);
            match first {
                Some("nameserver") => dns.servers.extend(rest.take(1)),
                // Of several, the last one counts.
                Some("search" | "domain") => dns.searches = rest.collect(),
                Some("options") => dns.options.extend(rest),
                _ => {}
            }
        }
        dns
    }

    /// The text of a `resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for (word, values) in [("search", &self.searches), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        text
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the pod that is to appear on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port inside.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Address on the host; empty is all of them.
    pub host_ip: String,
}

/// Namespaces that the pod shares with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNamespaces {
    /// `hostNetwork`.
    pub network: bool,
    /// `hostPID`.
    pub pid: bool,
    /// `hostIPC`.
    pub ipc: bool,
    /// `shareProcessNamespace`: the pod's containers share theirs among each other.
    pub share_process: bool,
}

/// What a sandbox is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxConfig {
    /// Whose it is.
    pub metadata: SandboxMetadata,
    /// Given back unchanged with its status: [`super::labels`], then the pod's own labels.
    pub labels: BTreeMap<String, String>,
    /// Given back unchanged with its status.
    pub annotations: BTreeMap<String, String>,
    /// The pod's host name.
    pub hostname: String,
    /// The folder that the containers' log paths are relative to.
    pub log_directory: PathBuf,
    /// How names are resolved inside.
    pub dns: DnsConfig,
    /// Ports on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Namespaces shared with the host.
    pub host_namespaces: HostNamespaces,
    /// The pod's address, of runtimes that do not assign one.
    pub address: Option<IpAddr>,
    /// Kernel parameters by name.
    pub sysctls: BTreeMap<String, String>,
    /// The pod's security context as written.
    pub security: PodSecurityContext,
    /// The runtime handler of the pod's RuntimeClass; empty is the default one.
    pub runtime_handler: String,
}

/// Whether containers can run in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SandboxState {
    /// They can.
    Ready,
    /// It was stopped, or broke.
    NotReady,
}

/// What a sandbox is.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatus {
    /// The runtime's name for it.
    pub id: SandboxId,
    /// Whose it is.
    pub metadata: SandboxMetadata,
    /// Whether containers can run in it.
    pub state: SandboxState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its addresses, the primary one first; empty with the host's network.
    pub ips: Vec<IpAddr>,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_one_line_per_kind() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["a.svc.cluster.local".into(), "cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "nameserver 10.96.0.10\nsearch a.svc.cluster.local cluster.local\n\
                        options ndots:5\n";
        assert_eq!(dns.resolv_conf(), expected);
        assert_eq!(DnsConfig::parse(&format!("# a comment\n{expected}")), dns);
    }
}
