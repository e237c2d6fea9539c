//! A proxy that listens on the services' addresses and passes the traffic on. Needs no root.

mod target;
mod tcp;
mod udp;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orch_core::Environment;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Mutex, Semaphore},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use self::target::Target;
use super::{Changes, PortFailure, PortName, PortRules, Protocol, ProxyError, ServiceProxy};

/// How a [`UserspaceProxy`] behaves.
#[derive(Clone, Debug)]
pub struct UserspaceOptions {
    /// The addresses on which node ports are served. Default: all of the machine's IPv4 ones.
    pub node_addresses: Vec<IpAddr>,
    /// How many TCP connections may be open at a time; further ones wait in the kernel's queues.
    /// Default: 4096. Each takes two file descriptors.
    pub connections_max: usize,
    /// How long connecting to one endpoint may take before the next is tried. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long a client waits at most until some endpoint takes its connection. Default: 10 s.
    pub connect_deadline: Duration,
    /// How long a UDP client that is silent keeps its endpoint. Default: 60 s.
    pub udp_idle: Duration,
    /// How many UDP clients each address may have at a time; packets of further ones are dropped.
    /// Default: 1024.
    pub udp_clients_max: usize,
}

impl Default for UserspaceOptions {
    fn default() -> Self {
        Self {
            node_addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            connections_max: 4096,
            connect_timeout: Duration::from_secs(1),
            connect_deadline: Duration::from_secs(10),
            udp_idle: Duration::from_secs(60),
            udp_clients_max: 1024,
        }
    }
}

/// Listens on every service address that the machine has (all of `127.0.0.0/8`, on Linux, which
/// is why services of process pods live there) and on the node ports, and forwards TCP and UDP.
///
/// An endpoint that does not take a connection is passed over for the next, so that a client
/// notices nothing of one that has just gone. Connections in flight go on when the rules change.
///
/// Differs from kernel proxies: endpoints see the proxy's address instead of the client's, and a
/// program that listens on all addresses takes its port away from the services.
#[derive(Debug)]
pub struct UserspaceProxy {
    shared: Arc<Shared>,
    ports: Mutex<HashMap<PortName, HashMap<Address, Listener>>>,
}

/// What the listeners' tasks share.
#[derive(Debug)]
struct Shared {
    options: UserspaceOptions,
    environment: Environment,
    connections: Arc<Semaphore>,
    /// Ends everything, connections included.
    stopped: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address {
    protocol: Protocol,
    address: SocketAddr,
}

/// An address that is served; dropping it closes the address, but no connection.
#[derive(Debug)]
struct Listener {
    target: Arc<Target>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UserspaceProxy {
    /// A proxy without rules.
    pub fn new(environment: Environment, options: UserspaceOptions) -> Self {
        let connections = Arc::new(Semaphore::new(options.connections_max.max(1)));
        let stopped = CancellationToken::new();
        let shared = Shared { options, environment, connections, stopped };
        Self { shared: Arc::new(shared), ports: Mutex::default() }
    }

    /// Every address that the rules ask for, with where it leads.
    fn wanted(&self, rules: &PortRules) -> Vec<(Address, Arc<[SocketAddr]>, bool)> {
        let protocol = rules.protocol;
        let address = |ip: &IpAddr, port| Address { protocol, address: SocketAddr::new(*ip, port) };
        let external = || rules.external_endpoints.clone();
        let mut wanted: Vec<_> = Vec::new();
        for ip in &rules.cluster_ips {
            wanted.push((address(ip, rules.port), rules.endpoints.clone(), true));
        }
        if let Some(port) = rules.node_port {
            let nodes = self.shared.options.node_addresses.iter();
            wanted.extend(nodes.map(|ip| (address(ip, port), external(), true)));
        }
        // Those that are not this machine's are somebody else's to serve.
        wanted.extend(
            rules.external_ips.iter().map(|ip| (address(ip, rules.port), external(), false)),
        );
        wanted
    }

    async fn apply_port(
        &self,
        listeners: &mut HashMap<Address, Listener>,
        rules: &PortRules,
    ) -> Vec<String> {
        let wanted = self.wanted(rules);
        let mut failures = Vec::new();
        for (address, endpoints, required) in wanted {
            if let Some(listener) = listeners.get(&address) {
                listener.target.update(endpoints, rules.affinity);
                continue;
            }
            let target = Arc::new(Target::new(endpoints, rules.affinity));
            match listen(self.shared.clone(), address, target.clone()).await {
                Ok(task) => drop(listeners.insert(address, Listener { target, task })),
                Err(error) if !required && error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => failures.push(explain(address, &error)),
            }
        }
        failures
    }
}

async fn listen(
    shared: Arc<Shared>,
    address: Address,
    target: Arc<Target>,
) -> io::Result<AbortHandle> {
    Ok(match address.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(address.address).await?;
            tokio::spawn(tcp::serve(shared, listener, target)).abort_handle()
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address.address).await?;
            tokio::spawn(udp::serve(shared, socket, target)).abort_handle()
        }
    })
}

/// Why an address cannot be served, and what to do about it.
fn explain(Address { protocol, address }: Address, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            ": ports below 1024 need root, CAP_NET_BIND_SERVICE, or the sysctl \
             net.ipv4.ip_unprivileged_port_start"
        }
        io::ErrorKind::AddrInUse => {
            ": another program listens on it, or on that port of all addresses"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": it is not an address of this machine; the userspace proxy needs services in a \
             loopback range such as 127.96.0.0/16"
        }
        _ => "",
    };
    format!("cannot listen on {address}/{protocol}: {error}{hint}")
}

#[async_trait]
impl ServiceProxy for UserspaceProxy {
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError> {
        if self.shared.stopped.is_cancelled() {
            return Err(ProxyError::Stopped);
        }
        let mut ports = self.ports.lock().await;
        let mut closed = Vec::new();
        for (name, rules) in &changes.ports {
            let wanted = rules.as_ref().map_or_else(Vec::new, |rules| self.wanted(rules));
            let keep = |address: &Address| wanted.iter().any(|(wanted, ..)| wanted == address);
            let listeners = ports.get_mut(name).into_iter();
            closed.extend(listeners.flat_map(|all| all.extract_if(|address, _| !keep(address))));
            if rules.is_none() {
                ports.remove(name);
            }
        }
        // All of them first: an address may move from one port to another.
        close(closed.into_iter().map(|(_, listener)| listener).collect()).await;
        let mut failures = Vec::new();
        for (port, rules) in changes.ports {
            let Some(rules) = rules else { continue };
            let reasons = self.apply_port(ports.entry(port.clone()).or_default(), &rules).await;
            if !reasons.is_empty() {
                failures.push(PortFailure { port, reason: reasons.join("; ") });
            }
        }
        Ok(failures)
    }

    async fn stop(&self) -> Result<(), ProxyError> {
        self.shared.stopped.cancel();
        let ports = std::mem::take(&mut *self.ports.lock().await);
        close(ports.into_values().flat_map(HashMap::into_values).collect()).await;
        Ok(())
    }
}

/// Closes listeners and waits until their addresses are free: an aborted task gives up its socket
/// only when the runtime gets to it.
async fn close(listeners: Vec<Listener>) {
    for listener in listeners {
        listener.task.abort();
        while !listener.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for UserspaceProxy {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}
