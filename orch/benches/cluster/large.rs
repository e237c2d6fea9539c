//! Large sets, daemons, jobs and idle Deployments: how long, and how many writes for each pod.
//!
//! The controller in question runs with what it needs, so that its own writes are what is counted.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Namespace, Node, Pod},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use orch::{
    Cluster, ClusterBuilder,
    core::{
        Environment,
        informer::{Change, Watchable},
    },
    store::{MemoryOptions, MemoryStore},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

use crate::{median, resident_mib, scheduling::create_nodes};

const ROUNDS: usize = 3;
const IN_FLIGHT: usize = 64;
/// How many pods of a job run at the same time.
const PARALLELISM: usize = 1000;

/// A cluster whose writes are counted by its store.
struct World {
    cluster: Cluster,
    store: Arc<MemoryStore>,
}

impl World {
    async fn start(controllers: &[&str], change: fn(ClusterBuilder) -> ClusterBuilder) -> Self {
        let store = Arc::new(MemoryStore::new(Environment::system(), MemoryOptions::default()));
        let builder = Cluster::builder().store(store.clone()).controllers(controllers.to_vec());
        let cluster = change(builder).start().await.expect("it starts");
        let team = parsed(json!({"metadata": {"name": "team"}}));
        let namespaces: Api<Namespace> = Api::all(cluster.client());
        namespaces.create(&PostParams::default(), &team).await.expect("a namespace");
        Self { cluster, store }
    }

    /// Gives a permit for every change that counts.
    fn count<K: Watchable>(
        &self,
        counts: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
    ) -> Arc<Semaphore> {
        let counted = Arc::new(Semaphore::new(0));
        let count = counted.clone();
        self.cluster.informers().of::<K>().on_change(move |change| {
            if counts(change) {
                count.add_permits(1);
            }
        });
        counted
    }

    async fn create<K>(&self, value: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Serialize,
    {
        let api: Api<K> = Api::namespaced(self.cluster.client(), "team");
        api.create(&PostParams::default(), &parsed(value)).await.expect("created");
    }

    /// Plays the nodes: what exists ends at once and has succeeded.
    fn finish_pods(&self) {
        let (told, new) = tokio::sync::mpsc::unbounded_channel();
        self.cluster.informers().of::<Pod>().on_change(move |change| {
            if let Change::Added(pod) = change {
                let name = pod.metadata.name.clone().unwrap_or_default();
                // Nobody listens any more once the round is over.
                told.send(name).ok();
            }
        });
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), "team");
        let new = stream_of(new);
        tokio::spawn(new.for_each_concurrent(IN_FLIGHT, move |name| {
            let pods = pods.clone();
            async move {
                let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
                pods.patch_status(&name, &PatchParams::default(), &done).await.expect("a pod");
            }
        }));
    }
}

fn stream_of(
    receiver: tokio::sync::mpsc::UnboundedReceiver<String>,
) -> impl futures::Stream<Item = String> {
    stream::unfold(receiver, async |mut receiver| {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
}

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn template(restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": restart,
            "containers": [{"name": "web", "image": "registry.example/web:v1"}]},
    })
}

fn added(change: &Change<Pod>) -> bool {
    matches!(change, Change::Added(_))
}

/// Seconds, and writes for each pod.
type Figures = (f64, f64);

async fn pods_of<K>(world: &World, value: Value, pods: usize) -> Figures
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let exist = world.count::<Pod>(added);
    let (before, start) = (world.store.revision(), Instant::now());
    world.create::<K>(value).await;
    let wanted = u32::try_from(pods).expect("a small number");
    let _all = exist.acquire_many(wanted).await.expect("it is never closed");
    let writes = world.store.revision() - before;
    (start.elapsed().as_secs_f64(), writes as f64 / pods as f64)
}

async fn stateful_set(replicas: usize) -> Figures {
    let names = ["statefulset-controller", "serviceaccount-controller"];
    let world = World::start(&names, ClusterBuilder::without_scheduler).await;
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "podManagementPolicy": "Parallel", "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}}, "template": template("Always")},
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
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template("Always")},
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
    let (before, start) = (world.store.revision(), Instant::now());
    world
        .create::<Job>(json!({
            "metadata": {"name": "work"},
            "spec": {"completions": completions, "parallelism": PARALLELISM,
                "completionMode": "Indexed", "template": template("Never")},
        }))
        .await;
    let jobs: Api<Job> = Api::namespaced(world.cluster.client(), "team");
    let complete = await_condition(jobs, "work", conditions::is_job_completed()).await;
    complete.expect("the watch works");
    let writes = world.store.revision() - before;
    let figures = (start.elapsed().as_secs_f64(), writes as f64 / completions as f64);
    world.cluster.shutdown().await;
    figures
}

async fn print(what: &str, round: impl AsyncFn() -> Figures) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    let of = |field: fn(&Figures) -> f64| median(rounds.iter().map(field).collect());
    println!("{what}: {:.2} s, {:.3} writes for each pod", of(|f| f.0), of(|f| f.1));
}

async fn json_bytes<K>(client: kube::Client) -> usize
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let all = Api::<K>::all(client).list(&ListParams::default()).await.expect("a list");
    all.items.iter().map(|object| serde_json::to_vec(object).expect("JSON").len()).sum()
}

/// What idle Deployments hold, in a cluster with every controller and its informers, and what the
/// process does for them.
async fn idle(deployments: usize) {
    let world = World::start(&["*"], ClusterBuilder::without_scheduler).await;
    let (empty, exist) = (resident_mib("self"), world.count::<Pod>(added));
    let create = |n: usize| {
        world.create::<Deployment>(json!({
            "metadata": {"name": format!("web-{n}")},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": format!("web-{n}")}},
                "template": {
                    "metadata": {"labels": {"app": format!("web-{n}")}},
                    "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]},
                }},
        }))
    };
    stream::iter(0..deployments).for_each_concurrent(IN_FLIGHT, create).await;
    let wanted = u32::try_from(deployments).expect("a small number");
    let _all = exist.acquire_many(wanted).await.expect("it is never closed");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let resident = resident_mib("self") - empty;
    let busy = processor_seconds();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let busy = (processor_seconds() - busy) / 20.0 * 100.0;
    let client = world.cluster.client();
    let json = json_bytes::<Deployment>(client.clone()).await
        + json_bytes::<ReplicaSet>(client.clone()).await
        + json_bytes::<Pod>(client.clone()).await
        + json_bytes::<k8s_openapi::api::core::v1::Event>(client).await;
    let json = json as f64 / 1024.0 / 1024.0;
    println!(
        "{deployments} Deployments of one pod: {resident:.0} MiB, {:.2} times their and their \
         ReplicaSets', Pods' and Events' JSON ({json:.0} MiB); idle: {busy:.1} % of a core",
        resident / json
    );
    world.cluster.shutdown().await;
}

/// The processor time that this process has used so far.
fn processor_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let usage = usage.expect("the system tells it");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

pub(crate) async fn run() {
    // First, while the process is small: what later parts free would hide what this one takes.
    idle(10_000).await;
    print("StatefulSet of 1,000 until all Pods exist", async || stateful_set(1000).await).await;
    print("DaemonSet on 15,000 nodes until all Pods exist", async || daemon_set(15_000).await)
        .await;
    for completions in [10_000, 100_000] {
        let what = format!("Indexed Job of {completions}, {PARALLELISM} at a time, until complete");
        print(&what, async || indexed_job(completions).await).await;
    }
}
