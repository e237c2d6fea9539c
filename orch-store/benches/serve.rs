//! Puts through a served store, and through etcd where it is installed, with the same client and
//! load: `cargo bench -p orch-store --bench serve`. Prints puts a second and the memory of this
//! process, client and server together.
//!
//! The client is `EtcdStore`, whose puts are transactions: the way of Kubernetes' API server.

use std::{
    net::TcpListener as StdListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::future;
use orch_store::{
    DurableOptions, DurableStore, EtcdOptions, EtcdStore, LeasedStore, MemoryStore, Store, Write,
    serve::{EtcdServer, ServeOptions},
};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};

const VALUE: usize = 1024;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// Connections, and writers on each that wait for their answers.
const LOADS: [(usize, usize); 3] = [(1, 1), (4, 16), (16, 64)];

fn main() {
    // `cargo test` runs benchmarks as well, to see that they do.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let durable = {
        let _guard = runtime.enter();
        let path = folder.path().join("durable");
        DurableStore::open(path, DurableOptions::default()).expect("a store")
    };
    let stores: [(&str, Arc<dyn LeasedStore>); 2] =
        [("memory", Arc::new(MemoryStore::default())), ("durable", Arc::new(durable))];
    for (name, store) in stores {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let server = EtcdServer::new(store, ServeOptions::default());
        let serving = runtime.spawn(server.serve(listener, future::pending()));
        measure(name, &format!("http://{address}"), is_test);
        serving.abort();
    }
    match etcd(folder.path()) {
        None => println!("etcd: skipped, it is not installed"),
        Some(etcd) => measure("etcd", &etcd.url, is_test),
    }
}

fn measure(name: &str, url: &str, is_test: bool) {
    // The client has threads of its own, as if it were elsewhere.
    let client = Runtime::new().expect("a runtime");
    for (connections, writers) in LOADS {
        let (warm_up, measured) =
            if is_test { (Duration::ZERO, Duration::from_millis(50)) } else { (WARM_UP, MEASURED) };
        client.block_on(puts(url, connections, writers, warm_up));
        let rate = client.block_on(puts(url, connections, writers, measured));
        println!(
            "{name}: {connections} connections of {writers} writers: {rate:.0} puts/s, {} MiB",
            resident_mib()
        );
    }
}

/// Puts a second.
async fn puts(url: &str, connections: usize, writers: usize, duration: Duration) -> f64 {
    let started = Instant::now();
    let tasks = (0..connections).map(|connection| {
        let url = url.to_owned();
        tokio::spawn(async move {
            let store = connect(url).await;
            let value = bytes::Bytes::from(vec![b'x'; VALUE]);
            let writer = async |writer: usize| {
                let mut count = 0u64;
                while started.elapsed() < duration {
                    let key = format!("/registry/pods/{connection}-{writer}/{}", count % 100);
                    store.write(Write::put(key, value.clone())).await.expect("a put");
                    count += 1;
                }
                count
            };
            future::join_all((0..writers).map(writer)).await.into_iter().sum::<u64>()
        })
    });
    let counts = future::join_all(tasks).await;
    let total: u64 = counts.into_iter().map(|count| count.expect("a writer")).sum();
    total as f64 / started.elapsed().as_secs_f64()
}

async fn connect(url: String) -> EtcdStore {
    let mut attempts = tokio::time::interval(Duration::from_millis(100));
    loop {
        attempts.tick().await;
        if let Ok(store) = EtcdStore::connect(EtcdOptions::new(&*url)).await {
            return store;
        }
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>();
    kib.unwrap_or(0) >> 10
}

/// An etcd of one member, ended with this value.
struct Etcd {
    child: Child,
    url: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn etcd(folder: &std::path::Path) -> Option<Etcd> {
    let free = || StdListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}", free().ok()?);
    let peer = format!("http://{}", free().ok()?);
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(Etcd { child: command.spawn().ok()?, url })
}
