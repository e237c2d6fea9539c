//! Creates, reads and lists over TLS, from 64 connections with one request in flight each.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use orch_api::serve::{Pki, PkiOptions};
use orch_core::Environment;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use crate::{COLLECTION, PERIOD, ROUNDS, config_map, median, percentile, server::Served};

const CONNECTIONS: usize = 64;

type Sender = SendRequest<Full<Bytes>>;

/// How a server is reached.
pub(crate) struct Connector {
    address: String,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn of(served: &Served) -> Self {
        let clock = Environment::system().clock;
        let folder = served.folder.path().join("pki");
        let pki = Pki::load_or_create(&folder, &PkiOptions::default(), clock).expect("its keys");
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes());
        roots.add(authority.expect("a certificate")).expect("an authority");
        let admin = pki.admin();
        let chain = CertificateDer::pem_slice_iter(admin.certificate_pem.as_bytes());
        let chain: Result<Vec<_>, _> = chain.collect();
        let key = PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes()).expect("a key");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("a chain"), key)
        .expect("a client");
        Self { address: served.address.clone(), tls: TlsConnector::from(Arc::new(config)) }
    }

    pub(crate) async fn connect(&self) -> Sender {
        let stream = TcpStream::connect(&self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a TCP option");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = self.tls.connect(name, stream).await.expect("TLS");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }
}

/// A request without a body reads, one with a body creates.
fn request(path: &str, body: Option<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .body(Full::new(body.unwrap_or_default()))
        .expect("a request")
}

async fn send(sender: &mut Sender, request: Request<Full<Bytes>>, expected: StatusCode) -> usize {
    sender.ready().await.expect("the connection is open");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), expected);
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
    }
    length
}

/// What makes the next request.
type Make = Arc<dyn Fn() -> Request<Full<Bytes>> + Send + Sync>;

/// Sends what `make` gives over all connections, until `done` says that it is enough.
async fn load(
    connector: &Connector,
    expected: StatusCode,
    make: Make,
    done: impl Fn(&Instant) -> bool + Clone + Send + 'static,
) -> (f64, Vec<f64>) {
    let mut senders = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        senders.push(connector.connect().await);
    }
    let start = Instant::now();
    let workers = senders.into_iter().map(|mut sender| {
        let (make, done) = (make.clone(), done.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while !done(&start) {
                let sent = Instant::now();
                send(&mut sender, make(), expected).await;
                latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            latencies
        })
    });
    let mut latencies: Vec<f64> = Vec::new();
    for worker in futures::future::join_all(workers).await {
        latencies.extend(worker.expect("the worker ends"));
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    (rate, latencies)
}

fn creating(next: Arc<AtomicUsize>) -> Make {
    Arc::new(move || {
        let name = format!("bench-{}", next.fetch_add(1, Ordering::Relaxed));
        request(COLLECTION, Some(config_map(&name).to_string().into()))
    })
}

/// Creates that many ConfigMaps.
pub(crate) async fn fill(connector: &Connector, count: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let made = next.clone();
    // Every worker stops after the request that it has begun: some more are made.
    load(connector, StatusCode::CREATED, creating(next), move |_| {
        made.load(Ordering::Relaxed) + CONNECTIONS > count
    })
    .await;
}

/// How long the list of all ConfigMaps is, in bytes.
pub(crate) async fn list_length(connector: &Connector) -> f64 {
    let mut sender = connector.connect().await;
    send(&mut sender, request(COLLECTION, None), StatusCode::OK).await as f64
}

fn report(what: &str, rounds: &[(f64, Vec<f64>)]) {
    let of = |percent| median(rounds.iter().map(|(_, all)| percentile(all, percent)).collect());
    let rate = median(rounds.iter().map(|(rate, _)| *rate).collect());
    println!("{what}: {rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms", of(50), of(99));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

pub(crate) fn creates() {
    for store in ["memory", "durable"] {
        let served = Served::start(store);
        let connector = Connector::of(&served);
        let next = Arc::new(AtomicUsize::new(0));
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let make = creating(next.clone());
                let loaded =
                    load(&connector, StatusCode::CREATED, make, |start| start.elapsed() > PERIOD);
                runtime().block_on(loaded)
            })
            .collect();
        report(&format!("create 1 KiB ConfigMaps over TLS, {store}"), &rounds);
    }
}

pub(crate) fn gets() {
    let served = Served::start("memory");
    let connector = Connector::of(&served);
    runtime().block_on(fill(&connector, 1000));
    let path = format!("{COLLECTION}/bench-1");
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let path = path.clone();
            let make: Make = Arc::new(move || request(&path, None));
            let loaded = load(&connector, StatusCode::OK, make, |start| start.elapsed() > PERIOD);
            runtime().block_on(loaded)
        })
        .collect();
    report("GET one ConfigMap over TLS", &rounds);
}

pub(crate) fn lists() {
    const OBJECTS: usize = 50_000;
    let served = Served::start("memory");
    let connector = Connector::of(&served);
    runtime().block_on(fill(&connector, OBJECTS));
    let (rates, lengths): (Vec<f64>, Vec<f64>) = (0..ROUNDS + 2)
        .map(|_| {
            runtime().block_on(async {
                let mut sender = connector.connect().await;
                let start = Instant::now();
                let length = send(&mut sender, request(COLLECTION, None), StatusCode::OK).await;
                (length as f64 / 1e6 / start.elapsed().as_secs_f64(), length as f64 / 1e6)
            })
        })
        .unzip();
    println!("LIST of {:.0} MB over TLS: {:.0} MB/s", median(lengths), median(rates));
}
