//! Connections through the proxy, answers of the DNS:
//! `cargo bench -p orch-net`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use orch_core::{Environment, informer::Informers, testing::MemoryClient};
use orch_net::{
    DnsOptions, DnsServer, ServiceProxy, UserspaceOptions, UserspaceProxy,
    service::{Changes, PortName, PortRules, Protocol},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn proxied() -> (UserspaceProxy, SocketAddr) {
    let options = UserspaceOptions { node_addresses: Vec::new(), ..UserspaceOptions::default() };
    let proxy = UserspaceProxy::new(Environment::system(), options);
    let service = SocketAddr::from(([127, 96, 77, 7], 18_099));
    let endpoints: Arc<[SocketAddr]> = vec![echo().await].into();
    let rules = PortRules {
        protocol: Protocol::Tcp,
        cluster_ips: vec![service.ip()],
        external_ips: Vec::new(),
        port: service.port(),
        node_port: None,
        affinity: None,
        endpoints: endpoints.clone(),
        external_endpoints: endpoints,
        preserve_client_ip: false,
    };
    let name = PortName { namespace: "b".into(), service: "s".into(), port: String::new() };
    let changes = Changes { ports: BTreeMap::from([(name, Some(rules))]) };
    assert!(proxy.apply(changes).await.expect("a change").is_empty());
    (proxy, service)
}

fn bench_proxy(c: &mut Criterion) {
    let runtime = runtime();
    let (_proxy, service) = runtime.block_on(proxied());
    let mut group = c.benchmark_group("userspace_proxy");
    group.sample_size(10).throughput(Throughput::Elements(1));
    group.bench_function("connect_and_echo", |b| {
        b.to_async(&runtime).iter(|| async {
            let mut stream = TcpStream::connect(service).await.expect("a connection");
            stream.write_all(b"x").await.expect("a write");
            stream.read_u8().await.expect("an echo")
        });
    });
    let mut stream = runtime.block_on(TcpStream::connect(service)).expect("a connection");
    let mut block = vec![7; 1 << 20];
    group.throughput(Throughput::Bytes(2 << 20));
    group.bench_function("1MiB_each_way", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (mut read, mut write) = stream.split();
                let sent = block.clone();
                let (written, received) =
                    tokio::join!(write.write_all(&sent), read.read_exact(&mut block));
                written.and(received).expect("an echo")
            })
        });
    });
    group.finish();
}

/// A DNS server on a cluster of so many services.
async fn names(services: usize) -> SocketAddr {
    let client = Arc::new(MemoryClient::new(Environment::system()));
    let informers = Informers::new(client.clone(), Environment::system());
    for i in 0..services {
        let ip = format!("10.96.{}.{}", i / 250, i % 250);
        let service = json!({"metadata": {"name": format!("s{i}"), "namespace": "a"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip]}});
        let service: Service = serde_json::from_value(service).expect("a service");
        client.seed_typed(&service).expect("a service");
    }
    let any = ([127, 0, 0, 1], 0).into();
    let server = DnsServer::bind(any, &informers, DnsOptions::default()).await.expect("a server");
    informers.of::<Service>().synced().await;
    informers.of::<EndpointSlice>().synced().await;
    informers.of::<Namespace>().synced().await;
    let address = server.local_addr().expect("an address");
    tokio::spawn(server.run(CancellationToken::new()));
    address
}

fn bench_dns(c: &mut Criterion) {
    let runtime = runtime();
    let server = runtime.block_on(names(10_000));
    let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    let mut message = Message::query();
    let name = Name::from_utf8("s777.a.svc.cluster.local.").expect("a name");
    message.queries.push(Query::query(name, RecordType::A));
    let question = message.to_vec().expect("a question");
    let mut group = c.benchmark_group("dns");
    group.sample_size(10).throughput(Throughput::Elements(1));
    group.bench_function("one_of_10k_services", |b| {
        b.to_async(&runtime).iter(|| async {
            socket.send_to(&question, server).await.expect("a question");
            let mut answer = [0; 512];
            socket.recv(&mut answer).await.expect("an answer")
        });
    });
    group.finish();
}

criterion_group!(benches, bench_proxy, bench_dns);
criterion_main!(benches);
