//! Cluster DNS: the names of services, of their endpoints and of pods.

mod forward;
mod handler;
mod zone;

use std::{io, net::SocketAddr, time::Duration};

use hickory_proto::rr::Name;
use hickory_server::Server;
use orch_core::informer::Informers;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use self::{forward::Forwarder, handler::Handler, zone::Zone};

/// How long a TCP client may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// So many answers wait for a slow TCP client.
const TCP_RESPONSES: usize = 64;
/// Another port is tried so often if the one chosen is free for TCP only.
const BIND_TRIES: usize = 16;

/// How a [`DnsServer`] answers.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// The cluster's domain. Default: `cluster.local`.
    pub domain: String,
    /// How long answers may be kept, in seconds. Default: 5.
    pub ttl_s: u32,
    /// Resolvers for all other names, tried in order. Default: none, and such questions are
    /// refused.
    pub upstreams: Vec<SocketAddr>,
    /// How long to wait for each resolver. Default: 2 s.
    pub upstream_timeout: Duration,
    /// How many questions may be on their way to resolvers; further ones fail. Default: 1000.
    pub upstream_questions_max: usize,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            ttl_s: 5,
            upstreams: Vec::new(),
            upstream_timeout: Duration::from_secs(2),
            upstream_questions_max: 1000,
        }
    }
}

/// Answers over UDP and TCP from the informers' copies; nothing is compiled or cached, so that an
/// answer is never older than they are.
///
/// - `SERVICE.NS.svc.DOMAIN`: the cluster addresses; for a headless service those of its ready
///   endpoints; for an `ExternalName` a CNAME.
/// - `HOSTNAME.SERVICE.NS.svc.DOMAIN`: an endpoint of a headless service, by its hostname or its
///   address with dashes.
/// - `_PORT._PROTOCOL.SERVICE.NS.svc.DOMAIN`: SRV.
/// - `1-2-3-4.NS.pod.DOMAIN`, and PTR for the addresses of services and named endpoints.
///
/// Source: the specification `kubernetes/dns` 1.1.0, and CoreDNS's `kubernetes` plugin where that
/// is silent (pods are answered without a check that they exist).
#[derive(Debug)]
pub struct DnsServer {
    tcp: TcpListener,
    udp: UdpSocket,
    handler: Handler,
}

impl DnsServer {
    /// Listens on one address over UDP and TCP; port 0 chooses one.
    ///
    /// # Errors
    /// If the address is taken or not allowed, or the domain is not a name.
    pub async fn bind(
        address: SocketAddr,
        informers: &Informers,
        options: DnsOptions,
    ) -> io::Result<Self> {
        let domain = Name::from_utf8(&options.domain)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (tcp, udp) = listen(address).await?;
        let zone = Zone::new(informers, domain, options.ttl_s);
        let forwarder = Forwarder::new(&options, informers.environment().clone());
        Ok(Self { tcp, udp, handler: Handler::new(zone, forwarder) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until it is cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut server = Server::new(self.handler);
        server.register_socket(self.udp);
        server.register_listener(self.tcp, TCP_IDLE, TCP_RESPONSES);
        cancel.run_until_cancelled(server.block_until_done()).await;
        if let Err(error) = server.shutdown_gracefully().await {
            tracing::debug!(%error, "the DNS server did not end in order");
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = if address.port() == 0 { BIND_TRIES } else { 1 };
    loop {
        let tcp = TcpListener::bind(address).await?;
        tries -= 1;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}
