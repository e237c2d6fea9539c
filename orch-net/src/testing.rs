//! Fakes of the service proxy, and the conformance suite that every proxy runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orch_core::Environment;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::AbortHandle,
};

use crate::service::{
    Changes, PortFailure, PortName, PortRules, Protocol, ProxyError, ServiceProxy,
};

/// A proxy that only remembers what it was told.
#[derive(Debug, Default)]
pub struct RecordingProxy {
    rules: watch::Sender<BTreeMap<PortName, PortRules>>,
}

impl RecordingProxy {
    /// What is in force, to look at or to wait for.
    pub fn rules(&self) -> watch::Receiver<BTreeMap<PortName, PortRules>> {
        self.rules.subscribe()
    }
}

#[async_trait]
impl ServiceProxy for RecordingProxy {
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError> {
        self.rules.send_modify(|in_force| {
            for (name, rules) in changes.ports {
                match rules {
                    Some(rules) => drop(in_force.insert(name, rules)),
                    None => drop(in_force.remove(&name)),
                }
            }
        });
        Ok(Vec::new())
    }

    async fn stop(&self) -> Result<(), ProxyError> {
        self.rules.send_modify(BTreeMap::clear);
        Ok(())
    }
}

/// A proxy that fails now and then, repeatably: with a probability a change is refused, half of
/// the time after it was put into force.
#[derive(Debug)]
pub struct FaultyProxy<P> {
    proxy: P,
    environment: Environment,
    refused: f64,
}

impl<P> FaultyProxy<P> {
    /// Wraps a proxy; `refused` is the probability from 0 to 1.
    pub fn new(proxy: P, environment: Environment, refused: f64) -> Self {
        Self { proxy, environment, refused }
    }

    /// The proxy inside.
    pub fn inner(&self) -> &P {
        &self.proxy
    }
}

#[async_trait]
impl<P: ServiceProxy> ServiceProxy for FaultyProxy<P> {
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError> {
        if self.environment.random.unit() >= self.refused {
            return self.proxy.apply(changes).await;
        }
        if self.environment.random.below(2) == 0 {
            self.proxy.apply(changes).await?;
        }
        Err(ProxyError::Refused("injected".into()))
    }

    async fn stop(&self) -> Result<(), ProxyError> {
        self.proxy.stop().await
    }
}

/// Addresses that the conformance suite may use where it runs.
#[derive(Clone, Copy, Debug)]
pub struct ConformanceNetwork {
    /// An address for a service that the proxy can serve and nobody else does.
    pub service: IpAddr,
    /// An address that endpoints can listen on.
    pub endpoint: IpAddr,
    /// An address at which node ports are reached.
    pub node: IpAddr,
}

/// An endpoint that answers each connection, and each packet, with its own port.
struct Endpoint {
    address: SocketAddr,
    tasks: Vec<AbortHandle>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn endpoint(ip: IpAddr) -> Endpoint {
    let listener = TcpListener::bind((ip, 0)).await.expect("an endpoint can listen");
    let address = listener.local_addr().expect("a listener has an address");
    let packets = UdpSocket::bind(address).await.expect("an endpoint can receive");
    let name = address.port().to_string();
    let own_name = name.clone();
    let streams = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let name = own_name.clone();
            tokio::spawn(async move {
                let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let packets = tokio::spawn(async move {
        let mut packet = [0; 64];
        while let Ok((_, client)) = packets.recv_from(&mut packet).await {
            let _ = packets.send_to(name.as_bytes(), client).await;
        }
    });
    Endpoint { address, tasks: vec![streams.abort_handle(), packets.abort_handle()] }
}

async fn connect(address: SocketAddr) -> std::io::Result<(TcpStream, u16)> {
    let mut stream = TcpStream::connect(address).await?;
    let mut name = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => name.push(byte),
        }
    }
    let name = String::from_utf8_lossy(&name).parse();
    Ok((stream, name.expect("an endpoint answers with its port")))
}

async fn reached(address: SocketAddr, times: usize) -> BTreeSet<u16> {
    let mut reached = BTreeSet::new();
    for _ in 0..times {
        reached.insert(connect(address).await.expect("a service answers").1);
    }
    reached
}

/// Runs the suite against a proxy without rules, over real sockets; it is stopped at the end.
///
/// # Panics
/// If the proxy does not keep the contract.
pub async fn proxy_conformance(proxy: Arc<dyn ServiceProxy>, network: ConformanceNetwork) {
    Suite { proxy, network }.run().await;
}

struct Suite {
    proxy: Arc<dyn ServiceProxy>,
    network: ConformanceNetwork,
}

const PORT: u16 = 18_080;
const NODE_PORT: u16 = 31_080;

impl Suite {
    fn service(&self) -> SocketAddr {
        SocketAddr::new(self.network.service, PORT)
    }

    fn rules(&self, protocol: Protocol, endpoints: &[&Endpoint]) -> PortRules {
        let mut endpoints: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        endpoints.sort_unstable();
        let endpoints: Arc<[SocketAddr]> = endpoints.into();
        PortRules {
            protocol,
            cluster_ips: vec![self.network.service],
            external_ips: Vec::new(),
            port: PORT,
            node_port: Some(NODE_PORT),
            affinity: None,
            endpoints: endpoints.clone(),
            external_endpoints: endpoints,
            preserve_client_ip: false,
        }
    }

    async fn apply<const N: usize>(&self, ports: [(&str, Option<PortRules>); N]) {
        let name = |service: &str| PortName {
            namespace: "conformance".into(),
            service: service.into(),
            port: "p".into(),
        };
        let ports = ports.into_iter().map(|(service, rules)| (name(service), rules)).collect();
        let failures = self.proxy.apply(Changes { ports }).await.expect("a change");
        assert_eq!(failures, [], "the suite's addresses can be served");
    }

    async fn run(&self) {
        let (one, two) =
            (endpoint(self.network.endpoint).await, endpoint(self.network.endpoint).await);
        self.balances(&one, &two).await;
        self.keeps_clients(&one, &two).await;
        self.forwards_packets(&one, &two).await;
        self.removes(&one).await;
        self.apply([("web", Some(self.rules(Protocol::Tcp, &[&one])))]).await;
        self.proxy.stop().await.expect("a stop");
        self.proxy.stop().await.expect("a second stop");
        assert!(self.is_closed().await, "a stopped proxy serves nothing");
        let after = self.proxy.apply(Changes::default()).await;
        assert!(matches!(after, Err(ProxyError::Stopped)), "{after:?}");
    }

    async fn balances(&self, one: &Endpoint, two: &Endpoint) {
        let both = BTreeSet::from([one.address.port(), two.address.port()]);
        let rules = self.rules(Protocol::Tcp, &[one, two]);
        for _ in 0..2 {
            self.apply([("web", Some(rules.clone()))]).await;
            assert_eq!(reached(self.service(), 64).await, both, "both endpoints get connections");
        }
        let node = SocketAddr::new(self.network.node, NODE_PORT);
        assert_eq!(reached(node, 64).await, both, "and through the node's port");

        // A connection in flight goes on when its endpoint leaves the rules.
        let (mut stream, name) = connect(self.service()).await.expect("a service answers");
        let (leaving, staying) = if name == one.address.port() { (one, two) } else { (two, one) };
        self.apply([("web", Some(self.rules(Protocol::Tcp, &[staying])))]).await;
        let only = BTreeSet::from([staying.address.port()]);
        assert_eq!(reached(self.service(), 16).await, only, "{} has left", leaving.address);
        stream.write_all(b"still there").await.expect("a connection in flight");
        let mut echo = [0; 11];
        stream.read_exact(&mut echo).await.expect("a connection in flight");
        assert_eq!(&echo, b"still there");
    }

    async fn keeps_clients(&self, one: &Endpoint, two: &Endpoint) {
        let affinity = Some(Duration::from_secs(600));
        let rules = PortRules { affinity, ..self.rules(Protocol::Tcp, &[one, two]) };
        self.apply([("web", Some(rules))]).await;
        let mine = reached(self.service(), 16).await;
        assert_eq!(mine.len(), 1, "a client keeps its endpoint");
        let other = if mine.contains(&one.address.port()) { two } else { one };
        let rules = PortRules { affinity, ..self.rules(Protocol::Tcp, &[other]) };
        self.apply([("web", Some(rules))]).await;
        let only = BTreeSet::from([other.address.port()]);
        assert_eq!(reached(self.service(), 4).await, only, "unless it is gone");
    }

    async fn forwards_packets(&self, one: &Endpoint, two: &Endpoint) {
        self.apply([("dns", Some(self.rules(Protocol::Udp, &[one, two])))]).await;
        let client = UdpSocket::bind((self.network.endpoint, 0)).await.expect("a socket");
        client.connect(self.service()).await.expect("a socket");
        let names = [one, two].map(|endpoint| endpoint.address.port().to_string());
        let mut answers = BTreeSet::new();
        for _ in 0..3 {
            client.send(b"who?").await.expect("a packet");
            let mut answer = [0; 64];
            let length = client.recv(&mut answer).await.expect("an answer");
            answers.insert(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        assert_eq!(answers.len(), 1, "a client's packets go one way");
        assert!(names.contains(answers.first().expect("an answer")));
        // With a client in flight the address is free at once for somebody else.
        let moved = self.rules(Protocol::Udp, &[one]);
        self.apply([("dns", None), ("other-dns", Some(moved))]).await;
        self.apply([("other-dns", None)]).await;
    }

    async fn removes(&self, one: &Endpoint) {
        self.apply([("web", Some(self.rules(Protocol::Tcp, &[])))]).await;
        let refused = connect(self.service()).await;
        assert!(refused.is_err(), "a service without endpoints refuses");
        // The address moves to another service in one change.
        let moved = self.rules(Protocol::Tcp, &[one]);
        self.apply([("another", Some(moved)), ("web", None)]).await;
        assert_eq!(reached(self.service(), 2).await, BTreeSet::from([one.address.port()]));
        self.apply([("another", None), ("never", None)]).await;
        assert!(self.is_closed().await, "what was removed is not served");
    }

    /// Whether nobody answers at the service's address. Without rules an address may lead
    /// nowhere at all, so that silence counts too.
    async fn is_closed(&self) -> bool {
        let attempt = tokio::time::timeout(Duration::from_secs(1), connect(self.service()));
        !matches!(attempt.await, Ok(Ok(_)))
    }
}
