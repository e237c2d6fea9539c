//! The network of a cluster: address ranges, service proxy, DNS, ingress.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ipnet::Ipv4Net;
use orch_core::informer::Informers;
use orch_net::{
    DnsOptions, DnsServer, IngressController, IngressOptions, NftablesOptions, NftablesProxy,
    ProxyController, ProxyOptions, ServiceProxy, UserspaceOptions, UserspaceProxy,
};
use orch_node::AgentOptions;

use super::{StartError, dns_service};

/// Which implementation makes service addresses work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// Sockets of this process; needs no root where the service range is a loopback one.
    Userspace,
    /// The kernel's packet filter; needs root.
    Nftables,
}

/// The network of a cluster.
#[derive(Clone, Debug)]
pub struct NetworkSetup {
    services: Ipv4Net,
    node_address: IpAddr,
    proxy: Option<Proxy>,
    dns: bool,
    ingress: Option<SocketAddr>,
}

impl Default for NetworkSetup {
    /// Services out of 10.96.0.0/16 that nothing proxies: for clusters whose pods are simulated.
    fn default() -> Self {
        Self::new(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16))
    }
}

impl NetworkSetup {
    /// Services with addresses out of `services`; no proxy, DNS or ingress.
    pub fn new(services: Ipv4Net) -> Self {
        Self {
            services,
            node_address: Ipv4Addr::LOCALHOST.into(),
            proxy: None,
            dns: false,
            ingress: None,
        }
    }

    /// The address of this machine that pods reach. Default: 127.0.0.1.
    #[must_use]
    pub fn node_address(mut self, address: IpAddr) -> Self {
        self.node_address = address;
        self
    }

    /// What makes service addresses work. Default: nothing.
    #[must_use]
    pub fn proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Whether this cluster answers for the names of its services. Default: no.
    #[must_use]
    pub fn dns(mut self, dns: bool) -> Self {
        self.dns = dns;
        self
    }

    /// Where ingresses are served. Default: nowhere.
    #[must_use]
    pub fn ingress(mut self, ingress: Option<SocketAddr>) -> Self {
        self.ingress = ingress;
        self
    }

    fn service(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.network()) + number)
    }

    /// The address of the `kubernetes` service: the first of the range.
    pub fn api_address(&self) -> Ipv4Addr {
        self.service(1)
    }

    /// The address of the `kube-dns` service: the tenth of the range.
    pub fn dns_address(&self) -> Ipv4Addr {
        self.service(10)
    }
}

/// What of the network runs as tasks of the cluster.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) proxy: Option<ProxyController>,
    pub(super) dns: Option<DnsServer>,
    pub(super) ingress: Option<IngressController>,
}

impl NetworkSetup {
    pub(super) fn services(&self) -> Ipv4Net {
        self.services
    }

    /// Listens where the setup says, and publishes the DNS server as a service.
    pub(super) async fn start(
        &self,
        node: &str,
        informers: &Informers,
    ) -> Result<Network, StartError> {
        let mut network =
            Network { proxy: self.start_proxy(node, informers), ..Network::default() };
        if self.dns {
            let address = SocketAddr::new(self.node_address, 0);
            let failed = |source| StartError::Network { what: "cluster DNS", address, source };
            let options = DnsOptions { upstreams: host_resolvers(), ..DnsOptions::default() };
            let dns = DnsServer::bind(address, informers, options).await.map_err(failed)?;
            let bound = dns.local_addr().map_err(failed)?;
            dns_service::publish(informers.client(), self.dns_address(), bound)
                .await
                .map_err(StartError::Bootstrap)?;
            network.dns = Some(dns);
        }
        if let Some(address) = self.ingress {
            let bound = IngressController::bind(address, informers, IngressOptions::default());
            let failed = |source| StartError::Network { what: "the ingress", address, source };
            network.ingress = Some(bound.await.map_err(failed)?);
        }
        Ok(network)
    }

    fn start_proxy(&self, node: &str, informers: &Informers) -> Option<ProxyController> {
        let proxy: Arc<dyn ServiceProxy> = match self.proxy? {
            Proxy::Userspace => Arc::new(UserspaceProxy::new(
                informers.environment().clone(),
                UserspaceOptions {
                    node_addresses: vec![self.node_address],
                    ..UserspaceOptions::default()
                },
            )),
            Proxy::Nftables => Arc::new(NftablesProxy::new(NftablesOptions::default())),
        };
        let options = ProxyOptions { node_name: node.to_owned(), ..ProxyOptions::default() };
        Some(ProxyController::new(informers, proxy, options))
    }

    /// What an agent must know of the network.
    pub(super) fn for_agent(&self, mut options: AgentOptions) -> AgentOptions {
        if self.dns && options.cluster_dns.is_empty() {
            options.cluster_dns.push(self.dns_address().into());
        }
        options
    }
}

/// The name servers of this machine: they answer for everything outside the cluster.
fn host_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|address| address.trim().parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}
