//! How the cost of a decision grows with the cluster: as many pods as there are nodes are placed in
//! process with the default profile, every node considered, nothing shared between the objects.
//!
//! ```sh
//! cargo bench -p orch-sched --bench scale -- 1000 10000 100000 1000000
//! ```
//!
//! Prints for each size the time until the cluster is known, until the first pod is placed (which
//! looks at every node), the time per pod after it, pods per second, and what it takes of memory.
//! Nodes and pods are those of upstream's SchedulingBasic.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use orch_core::{Environment, informer::Informers, testing::MemoryClient};
use orch_sched::{Planner, PodInfo, Profile};
use serde_json::json;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn node_template() -> Node {
    let amounts = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    let node = json!({
        "metadata": {"name": "", "labels": {"kubernetes.io/hostname": ""}},
        "status": {"allocatable": amounts, "capacity": amounts,
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_value(node).expect("a node")
}

fn node(template: &Node, n: usize) -> Node {
    let (mut node, name) = (template.clone(), format!("node-{n:07}"));
    if let Some(labels) = &mut node.metadata.labels {
        labels.insert("kubernetes.io/hostname".into(), name.clone());
    }
    node.metadata.name = Some(name);
    node
}

fn pod_template() -> Pod {
    let amounts = json!({"cpu": "100m", "memory": "500Mi"});
    let container = json!({"name": "pause", "image": "registry.k8s.io/pause:3.10",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": amounts, "requests": amounts}});
    let pod = json!({
        "metadata": {"namespace": "namespace-1"},
        "spec": {"containers": [container]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn pod(template: &Pod, n: usize) -> Arc<PodInfo> {
    let mut pod = template.clone();
    pod.metadata.name = Some(format!("pod-{n:07}"));
    pod.metadata.uid = Some(format!("00000000-0000-4000-8000-{n:012}"));
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// A figure of the process in MiB, where the system tells it.
fn memory_mib(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap_or_default();
    let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    number.trim().parse::<u64>().unwrap_or(0) / 1024
}

fn run(size: usize) {
    let environment = Environment::system();
    let client = Arc::new(MemoryClient::new(environment.clone()));
    let informers = Informers::new(client, environment);
    let mut planner = Planner::new(&informers, &Profile::default()).expect("the defaults");
    let before = memory_mib("VmRSS");
    let start = Instant::now();
    let template = node_template();
    (0..size).for_each(|n| planner.set_node(Arc::new(node(&template, n))));
    let known = start.elapsed();
    let with_nodes = memory_mib("VmRSS");
    let template = pod_template();
    planner.place(pod(&template, size)).expect("there is room");
    let first = start.elapsed() - known;
    let with_first = memory_mib("VmRSS");
    let mut placing = Duration::ZERO;
    let mut left = size;
    while left > 0 {
        // Made beside the measured time, as a cluster would.
        let pods: Vec<_> = (left.saturating_sub(10_000)..left).map(|n| pod(&template, n)).collect();
        left -= pods.len();
        let start = Instant::now();
        for pod in pods {
            planner.place(pod).expect("there is room");
        }
        placing += start.elapsed();
    }
    let per_pod = placing / u32::try_from(size).unwrap_or(u32::MAX);
    let bytes = |mib: u64| mib * (1 << 20) / size as u64;
    println!(
        "{size:>9} nodes and pods: {:.2} s in all; known after {:.2} s, first pod {:.1} ms, then \
         {per_pod:?} per pod, {:.0} pods/s; {} bytes per node, {} for the first pod, {} per pod; \
         peak {} MiB",
        start.elapsed().as_secs_f64(),
        known.as_secs_f64(),
        first.as_secs_f64() * 1e3,
        1.0 / per_pod.as_secs_f64(),
        bytes(with_nodes.saturating_sub(before)),
        bytes(with_first.saturating_sub(with_nodes)),
        bytes(memory_mib("VmRSS").saturating_sub(with_first)),
        memory_mib("VmHWM"),
    );
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let named: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if named.is_empty() { SIZES.to_vec() } else { named };
    sizes.into_iter().for_each(run);
}
