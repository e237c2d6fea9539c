//! Creates, reads, lists and watches in process, over a memory store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use orch_api::{
    ApiServer, Bootstrap,
    audit::{Audit, Event, Policy, Sink, SinkError},
    auth::UserInfo,
    flow::{FlowControl, FlowOptions},
    metrics::Metrics,
};
use orch_core::{
    Client, Environment, ResourceType, Target,
    client::{ListOptions, Read, WatchOptions, Write, WriteOptions},
    informer::Informers,
};
use orch_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt as _;

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}]},
    })
}

fn target() -> Target {
    Target::collection(ResourceType::of::<Pod>(), Some("default"))
}

fn create(name: &str) -> Write {
    Write::Create(target(), pod(name), WriteOptions::default())
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client: Arc<dyn Client> = runtime.block_on(async {
        let server = ApiServer::new(Arc::new(MemoryStore::default()));
        server.bootstrap(&Bootstrap::default()).await.unwrap();
        let client = server.client(UserInfo::master("bench"));
        for at in 0..1000 {
            client.write(create(&format!("pod-{at}"))).await.unwrap();
        }
        client
    });
    let next = AtomicU64::new(0);
    let fresh = || format!("new-{}", next.fetch_add(1, Ordering::Relaxed));
    let mut group = c.benchmark_group("in_process");
    group.throughput(Throughput::Elements(1));
    group.bench_function("start", |b| {
        b.iter(|| ApiServer::new(Arc::new(MemoryStore::default())));
    });
    group.bench_function("get", |b| {
        let one = Target::object(ResourceType::of::<Pod>(), Some("default"), "pod-7");
        b.to_async(&runtime).iter(|| client.read(Read::Get(one.clone())));
    });
    group.bench_function("list_1000", |b| {
        let options =
            ListOptions { label_selector: Some("app!=web".into()), ..ListOptions::default() };
        b.to_async(&runtime).iter(|| client.read(Read::List(target(), options.clone())));
    });
    group.bench_function("create", |b| {
        b.to_async(&runtime).iter(|| async { client.write(create(&fresh())).await.unwrap() });
    });
    group.bench_function("create_watched", |b| {
        let options =
            WatchOptions { label_selector: Some("app=web".into()), ..WatchOptions::default() };
        let events = runtime.block_on(client.watch(target(), options)).unwrap();
        let events = tokio::sync::Mutex::new(events);
        b.to_async(&runtime).iter(|| async {
            client.write(create(&fresh())).await.unwrap();
            events.lock().await.next().await
        });
    });
    group.finish();
}

/// Takes events and forgets them.
#[derive(Debug)]
struct Nowhere;

#[async_trait::async_trait]
impl Sink for Nowhere {
    async fn keep(&self, _events: Vec<Arc<Event>>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What it costs a GET over HTTP, in process, that somebody looks on.
fn observed(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(MemoryStore::default());
    runtime.block_on(async {
        let server = ApiServer::new(store.clone());
        server.bootstrap(&Bootstrap::default()).await.unwrap();
        server.client(UserInfo::master("bench")).write(create("pod-7")).await.unwrap();
    });
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
    let audit = || Audit::new(Policy::from_yaml(policy).unwrap(), vec![Arc::new(Nowhere) as _]);
    let flow = runtime.block_on(async {
        let client = ApiServer::new(store.clone()).client(UserInfo::master("bench"));
        let informers = Informers::new(client, Environment::system());
        let flow = FlowControl::new(&informers, FlowOptions::default());
        flow.synced().await;
        flow
    });
    let builder = || ApiServer::builder(store.clone());
    let mut group = c.benchmark_group("observed_get");
    group.throughput(Throughput::Elements(1));
    for (name, server) in [
        ("nobody", builder().build()),
        ("metrics", builder().metrics(Metrics::new()).build()),
        ("audit", builder().audit(audit()).build()),
        ("flow_control", builder().flow_control(flow).build()),
    ] {
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| async {
                let request = http::Request::get("/api/v1/namespaces/default/pods/pod-7");
                let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
                let response = server.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), 200);
            });
        });
    }
    group.finish();
}

criterion_group!(api, benches, observed);
criterion_main!(api);
