//! Creates, reads, lists and watches in process, over a memory store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use orch_api::{ApiServer, Bootstrap, auth::UserInfo};
use orch_core::{
    Client, ResourceType, Target,
    client::{ListOptions, Read, WatchOptions, Write, WriteOptions},
};
use orch_store::MemoryStore;
use serde_json::{Value, json};

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

criterion_group!(api, benches);
criterion_main!(api);
