//! Requests per second over TLS, as a load generator on the same machine sees them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use serde_json::json;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{median, up::Up};

const CONNECTIONS: usize = 64;
const PERIOD: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

type Sender = SendRequest<Full<Bytes>>;

struct Target {
    address: String,
    tls: TlsConnector,
}

impl Target {
    async fn of(kubeconfig: &std::path::Path) -> Self {
        let config = kube::config::Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
        let config = config.expect("a cluster");
        let tls = Arc::new(config.rustls_client_config().expect("certificates"));
        let address = config.cluster_url.authority().expect("an address").to_string();
        Self { address, tls: TlsConnector::from(tls) }
    }

    async fn connect(&self) -> Sender {
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
    let method = if body.is_some() { "POST" } else { "GET" };
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .body(Full::new(body.unwrap_or_default()))
        .expect("a request")
}

async fn send(sender: &mut Sender, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
    sender.ready().await.expect("the connection is open");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body");
    (status, body.to_bytes())
}

/// A ConfigMap whose JSON is about 1 KiB.
fn config_map(name: usize) -> Bytes {
    let data = "x".repeat(930);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("bench-{name}")}, "data": {"text": data}});
    Bytes::from(object.to_string())
}

struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Sends what `make` gives over all connections for a while.
async fn load(
    target: &Target,
    expected: StatusCode,
    make: impl Fn() -> Request<Full<Bytes>> + Send + Sync + 'static,
) -> Figures {
    let make = Arc::new(make);
    let mut senders = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        senders.push(target.connect().await);
    }
    let start = Instant::now();
    let workers = senders.into_iter().map(|mut sender| {
        let make = make.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < PERIOD {
                let sent = Instant::now();
                let (status, body) = send(&mut sender, make()).await;
                assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
                latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            latencies
        })
    });
    let mut latencies: Vec<f64> = Vec::new();
    for worker in futures::future::join_all(workers).await {
        latencies.extend(worker.expect("the worker ends"));
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    Figures { per_second, p50_ms: percentile(50), p99_ms: percentile(99) }
}

fn print(what: &str, rounds: &[Figures]) {
    let of = |field: fn(&Figures) -> f64| median(rounds.iter().map(field).collect());
    println!(
        "{what}: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        of(|figures| figures.per_second),
        of(|figures| figures.p50_ms),
        of(|figures| figures.p99_ms),
    );
}

async fn list(target: &Target, store: &str) {
    let mut sender = target.connect().await;
    let mut rates = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let (status, body) = send(&mut sender, request(COLLECTION, None)).await;
        assert_eq!(status, StatusCode::OK);
        bytes = body.len();
        rates.push(bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    let megabytes = bytes as f64 / 1e6;
    println!("list {megabytes:.0} MB over TLS, {store}: {:.0} MB/s", median(rates));
}

pub(crate) async fn run() {
    for store in ["memory", "durable"] {
        let folder = tempfile::tempdir().expect("a folder");
        let up = Up::start(folder.path(), store, 1).await;
        let target = Target::of(&folder.path().join("kubeconfig")).await;
        let next = Arc::new(AtomicUsize::new(0));
        let mut creates = Vec::new();
        for _ in 0..ROUNDS {
            let next = next.clone();
            let make = move || {
                let name = next.fetch_add(1, Ordering::Relaxed);
                request(COLLECTION, Some(config_map(name)))
            };
            creates.push(load(&target, StatusCode::CREATED, make).await);
        }
        print(
            &format!("create 1 KiB ConfigMaps over TLS, {CONNECTIONS} connections, {store}"),
            &creates,
        );
        let path = format!("{COLLECTION}/bench-1");
        let mut gets = Vec::new();
        for _ in 0..ROUNDS {
            let path = path.clone();
            gets.push(load(&target, StatusCode::OK, move || request(&path, None)).await);
        }
        print(&format!("GET one ConfigMap over TLS, {CONNECTIONS} connections, {store}"), &gets);
        println!(
            "memory with {} ConfigMaps, {store}: {:.0} MiB",
            next.load(Ordering::Relaxed),
            up.resident_mib()
        );
        list(&target, store).await;
    }
}
