//! Pods placed per second in process: the decisions alone, with the default profile and every
//! node considered, without an API server, a queue or bindings.

use std::{sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use orch_core::{Environment, informer::Informers, testing::MemoryClient};
use orch_sched::{Planner, PodInfo, Profile};
use serde_json::{Value, json};
use tokio::time::Instant;

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

fn pods(more: &Value) -> Vec<Arc<PodInfo>> {
    let requests = json!({"cpu": "100m", "memory": "500Mi"});
    let container = json!({"name": "c", "image": "pause", "resources": {"requests": requests}});
    let pod = |n: usize| {
        let mut pod = json!({
            "metadata": {"name": format!("pod-{n}"), "namespace": "default", "uid": n.to_string(),
                         "labels": {"app": "bench"}},
            "spec": {"containers": [container]},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let pod = serde_json::from_value(pod).expect("a pod");
        Arc::new(PodInfo::new(Arc::new(pod)))
    };
    (0..PODS).map(pod).collect()
}

fn spreading(when_unsatisfiable: &str) -> Value {
    json!({"topologySpreadConstraints": [{
        "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": when_unsatisfiable,
        "labelSelector": {"matchLabels": {"app": "bench"}},
    }]})
}

fn anti_affinity() -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "bench"}},
    }]}}})
}

/// Places the pods and takes them away again, so many times; gives the time of the placing.
fn place(planner: &mut Planner, pods: &[Arc<PodInfo>], rounds: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        for pod in pods {
            planner.place(pod.clone()).expect("there is room");
        }
        total += start.elapsed();
        pods.iter().for_each(|pod| planner.remove_pod(pod.uid()));
    }
    total
}

/// The process' resident memory in MiB, where the system tells it.
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? / 1024)
}

fn placing(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("place");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(200)).throughput(Throughput::Elements(PODS as u64));
    let cases = [
        ("plain", 1000, json!({})),
        ("plain", 5000, json!({})),
        ("plain", 10_000, json!({})),
        ("plain", 100_000, json!({})),
        ("preferred spreading", 5000, spreading("ScheduleAnyway")),
        ("required spreading", 5000, spreading("DoNotSchedule")),
        ("anti-affinity", 5000, anti_affinity()),
    ];
    for (name, nodes, spec) in cases {
        let environment = Environment::system();
        let client = Arc::new(MemoryClient::new(environment.clone()));
        let informers = Informers::new(client, environment);
        let mut planner = Planner::new(&informers, &Profile::default()).expect("the defaults");
        for n in 0..nodes {
            planner.set_node(Arc::new(serde_json::from_value(node(n)).expect("a node")));
        }
        let pods = pods(&spec);
        group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
            bencher.iter_custom(|rounds| place(&mut planner, &pods, rounds));
        });
        if let Some(mib) = resident_mib() {
            println!("resident memory with {nodes} nodes: {mib} MiB");
        }
    }
    group.finish();
}

criterion_group!(benches, placing);
criterion_main!(benches);
