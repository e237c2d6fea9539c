//! Service proxies: they make a service's addresses lead to its endpoints.

mod compile;
mod controller;
mod nftables;
mod userspace;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

pub use self::{
    controller::{ProxyController, ProxyOptions},
    nftables::{NftablesOptions, NftablesProxy},
    userspace::{UserspaceOptions, UserspaceProxy},
};

/// Names one port of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub service: String,
    /// The port's name; empty if it has none.
    pub port: String,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// A transport protocol. SCTP is not proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What one port of a service should lead to: all that a proxy needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRules {
    /// The protocol.
    pub protocol: Protocol,
    /// The addresses within the cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses from outside that are led here (`externalIPs` and those of a load balancer).
    pub external_ips: Vec<IpAddr>,
    /// The port on all of those addresses.
    pub port: u16,
    /// The port on the node's own addresses, if there is one.
    pub node_port: Option<u16>,
    /// How long a client's address stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Where traffic to the cluster's addresses goes. Sorted; empty means that it is refused.
    pub endpoints: Arc<[SocketAddr]>,
    /// Where traffic to the node's port and the external addresses goes. Sorted.
    pub external_endpoints: Arc<[SocketAddr]>,
    /// Whether the client's address must be kept on external traffic
    /// (`externalTrafficPolicy: Local`), where the proxy is able to.
    pub preserve_client_ip: bool,
}

/// A change of the desired state: for each port its whole rules, or `None` to remove it. Ports
/// that are not named stay as they are. Removals come first, so that an address can move from one
/// service to another within one change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The rules by name.
    pub ports: BTreeMap<PortName, Option<PortRules>>,
}

/// What could not be done for one port; the others are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFailure {
    /// The port.
    pub port: PortName,
    /// Why, for the user's eyes.
    pub reason: String,
}

/// Why a proxy could not apply a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy has been stopped.
    #[error("the proxy is stopped")]
    Stopped,
    /// A program or file that the proxy needs failed.
    #[error("{0}")]
    System(String, #[source] std::io::Error),
    /// The rules were refused. What was in force before still is.
    #[error("the rules were refused: {0}")]
    Refused(String),
}

/// Makes the addresses of services lead to their endpoints.
///
/// - **Order.** Changes are applied in the order of the calls; a caller does not call again before
///   the last call has returned.
/// - **Idempotence.** The same change twice is as once. Removing what is not there succeeds.
/// - **Connections.** New ones follow the rules once `apply` has returned; those that exist go on,
///   even when their endpoint leaves the rules.
/// - **Cost.** `apply` works in proportion to the change, not to the number of services.
/// - **Errors.** After an `Err` the caller applies the same change again later. A port that
///   cannot be served (its address is taken, say) is a [`PortFailure`], not an error, and is tried
///   again when it is applied again.
/// - **Cancellation.** A dropped call may have applied any part; applying again mends it.
///
/// Source: `pkg/proxy/types.go` (`Provider`).
#[async_trait]
pub trait ServiceProxy: Send + Sync + fmt::Debug + 'static {
    /// Puts a change into force.
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError>;

    /// Takes everything out of force that the proxy put in, and ends it. Idempotent.
    async fn stop(&self) -> Result<(), ProxyError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_object_safe() {
        fn check(_: Option<&dyn ServiceProxy>) {}
        check(None);
    }
}
