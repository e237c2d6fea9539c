//! The network of a cluster: address ranges, service proxy, DNS, ingress.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use orch_core::informer::Informers;
use orch_net::{DnsServer, IngressController, ProxyController};
use orch_node::AgentOptions;

use super::StartError;

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
