//! Pods scheduled per second, end to end against a cluster in memory: from created pods to stored
//! bindings, with the default profile.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use orch_core::{
    Environment, Resources, client::WatchOptions, informer::Informers, resource::ResourceType,
    testing::MemoryClient,
};
use orch_sched::Scheduler;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: usize = 500;

fn node(n: usize) -> Value {
    json!({
        "metadata": {"name": format!("node-{n}"), "labels": {
            "kubernetes.io/hostname": format!("node-{n}"),
            "topology.kubernetes.io/zone": format!("zone-{}", n % 10),
        }},
        "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}},
    })
}

fn pod(n: usize) -> Value {
    let requests = json!({"cpu": "100m", "memory": "500Mi"});
    json!({
        "metadata": {"name": format!("pod-{n}"), "namespace": "default", "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": requests}}]},
        "status": {"phase": "Pending"},
    })
}

/// Creates the pods and waits until each has its node; gives the time from the first creation on.
async fn schedule(nodes: usize, rounds: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let environment = Environment::system();
        let memory = Arc::new(MemoryClient::new(environment.clone()));
        for n in 0..nodes {
            memory.seed(&ResourceType::of::<Node>(), node(n)).expect("a node");
        }
        let informers = Informers::new(memory.clone(), environment);
        let scheduler = Scheduler::builder(&informers).build().expect("the default profile");
        let cancel = CancellationToken::new();
        let running = tokio::spawn(scheduler.run(cancel.clone()));
        informers.of::<Node>().synced().await;
        let pods: Resources<Pod> = Resources::all(memory.clone());
        let options = WatchOptions {
            field_selector: Some("spec.nodeName!=".into()),
            resource_version: Some(memory.revision().to_string()),
            ..WatchOptions::default()
        };
        let mut bound = pods.watch(options).await.expect("a watch");
        let start = tokio::time::Instant::now();
        for n in 0..PODS {
            memory.seed(&ResourceType::of::<Pod>(), pod(n)).expect("a pod");
        }
        for _ in 0..PODS {
            black_box(bound.next().await.expect("a binding").expect("the watch works"));
        }
        total += start.elapsed();
        cancel.cancel();
        running.await.expect("the scheduler stops");
    }
    total
}

/// The process' resident memory in MiB, where the system tells it.
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? / 1024)
}

fn throughput(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("schedule");
    group.sample_size(10).throughput(Throughput::Elements(PODS as u64));
    for nodes in [100, 1000, 5000] {
        group.bench_with_input(BenchmarkId::new("nodes", nodes), &nodes, |bencher, nodes| {
            bencher.to_async(&runtime).iter_custom(|rounds| schedule(*nodes, rounds));
        });
        if let Some(mib) = resident_mib() {
            println!("resident memory with {nodes} nodes and {PODS} pods: {mib} MiB");
        }
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
