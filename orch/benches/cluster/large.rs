//! Large sets, daemons and jobs: how long, and how many writes for each pod.
//!
//! The controller in question runs with what it needs, so that its own writes are what is counted.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, Pod},
};
use kube::{
    Api,
    runtime::{conditions, wait::await_condition},
};
use orch::ClusterBuilder;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    median,
    scheduling::create_nodes,
    size,
    world::{Created, World, added, processor_seconds, template},
};

const ROUNDS: usize = 3;
/// How many pods of a job run at the same time.
const PARALLELISM: usize = 1000;

/// Seconds, seconds of processors, and writes for each pod.
type Figures = [f64; 3];

/// What has been used since a moment.
struct Since(Instant, f64, u64);

impl Since {
    fn now(world: &World) -> Self {
        Self(Instant::now(), processor_seconds(), world.store.revision())
    }

    fn figures(&self, world: &World, pods: usize) -> Figures {
        let writes = world.store.revision() - self.2;
        let seconds = self.0.elapsed().as_secs_f64();
        [seconds, processor_seconds() - self.1, writes as f64 / pods as f64]
    }
}

async fn pods_of<K: Created>(world: &World, value: Value, pods: usize) -> Figures {
    let exist = world.count::<Pod>(added);
    let since = Since::now(world);
    world.create::<K>(value).await;
    let wanted = u32::try_from(pods).expect("a small number");
    let _all = exist.acquire_many(wanted).await.expect("it is never closed");
    since.figures(world, pods)
}

async fn stateful_set(replicas: usize) -> Figures {
    let names = ["statefulset-controller", "serviceaccount-controller"];
    let world = World::start(&names, ClusterBuilder::without_scheduler).await;
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "podManagementPolicy": "Parallel", "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}}, "template": template("web", "Always")},
    });
    let figures = pods_of::<StatefulSet>(&world, set, replicas).await;
    world.cluster.shutdown().await;
    figures
}

async fn daemon_set(nodes: usize) -> Figures {
    let names = ["daemonset-controller", "serviceaccount-controller"];
    let world = World::start(&names, ClusterBuilder::without_scheduler).await;
    create_nodes(&world.cluster.client(), nodes).await;
    let informer = world.cluster.informers().of::<Node>();
    informer.synced().await;
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": template("web", "Always")},
    });
    let figures = pods_of::<DaemonSet>(&world, set, nodes).await;
    world.cluster.shutdown().await;
    figures
}

/// Until the Job is complete: each pod is created, ends, and loses its finalizer.
async fn indexed_job(completions: usize) -> Figures {
    let names = ["job-controller", "serviceaccount-controller"];
    let world = World::start(&names, ClusterBuilder::without_scheduler).await;
    world.finish_pods();
    let since = Since::now(&world);
    world
        .create::<Job>(json!({
            "metadata": {"name": "work"},
            "spec": {"completions": completions, "parallelism": PARALLELISM,
                "completionMode": "Indexed", "template": template("web", "Never")},
        }))
        .await;
    let jobs: Api<Job> = world.api();
    let complete = await_condition(jobs, "work", conditions::is_job_completed()).await;
    complete.expect("the watch works");
    let figures = since.figures(&world, completions);
    world.cluster.shutdown().await;
    figures
}

async fn print(what: &str, round: impl AsyncFn() -> Figures) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    let of = |at: usize| median(rounds.iter().map(|figures| figures[at]).collect());
    println!(
        "{what}: {:.2} s, {:.2} s of processors, {:.3} writes for each pod",
        of(0),
        of(1),
        of(2)
    );
}

pub(crate) async fn run() {
    let replicas = size("sets", 1000);
    let what = format!("StatefulSet of {replicas} until all Pods exist");
    print(&what, async || stateful_set(replicas).await).await;
}

pub(crate) async fn daemons() {
    let nodes = size("daemons", 15_000);
    let what = format!("DaemonSet on {nodes} nodes until all Pods exist");
    print(&what, async || daemon_set(nodes).await).await;
}

pub(crate) async fn jobs() {
    let most = size("jobs", 100_000);
    for completions in [most / 10, most] {
        let what = format!("Indexed Job of {completions}, {PARALLELISM} at a time, until complete");
        print(&what, async || indexed_job(completions).await).await;
    }
}
