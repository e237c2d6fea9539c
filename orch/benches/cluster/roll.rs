//! Thousands of simulated nodes, and all their pods rolled to a new version once.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};
use kube::api::{Patch, PatchParams};
use orch::{core::informer::Informer, testing::conditions};
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use crate::{
    resident_mib, size,
    world::{World, deployment, processor_seconds},
};

/// How many pods each node has.
const PODS: usize = 10;
/// How many replicas each Deployment has.
const REPLICAS: usize = 1000;

/// Prints what a step took.
struct Step<'a> {
    world: &'a World,
    start: Instant,
    revision: u64,
    busy: f64,
}

impl<'a> Step<'a> {
    fn begin(world: &'a World) -> Self {
        let (revision, busy) = (world.store.revision(), processor_seconds());
        Self { world, start: Instant::now(), revision, busy }
    }

    fn end(&self, what: &str) {
        println!(
            "{what}: {:.1} s, {:.1} s of processors, {} writes (resident {:.0} MiB)",
            self.start.elapsed().as_secs_f64(),
            processor_seconds() - self.busy,
            self.world.store.revision() - self.revision,
            resident_mib("self")
        );
    }
}

async fn all_available(deployments: &Informer<Deployment>, count: usize, changed: &Notify) {
    let all = || {
        let all = deployments.list();
        all.len() == count && all.iter().all(|one| conditions::is_available(Some(&**one)))
    };
    while !all() {
        changed.notified().await;
    }
}

pub(crate) async fn run() {
    let nodes = size("roll", 5000);
    let count = (nodes * PODS).div_ceil(REPLICAS);
    let start = Instant::now();
    let world = World::start(&["*"], |builder| builder.simulated_nodes(nodes)).await;
    world.cluster.nodes_ready().await;
    println!(
        "{} simulated nodes until all are Ready: {:.1} s (resident {:.0} MiB)",
        world.cluster.informers().of::<Node>().len(),
        start.elapsed().as_secs_f64(),
        resident_mib("self")
    );
    let (deployments, changed) =
        (world.cluster.informers().of::<Deployment>(), Arc::new(Notify::new()));
    let wake = changed.clone();
    deployments.on_change(move |_| wake.notify_one());

    let step = Step::begin(&world);
    let replicas = (nodes * PODS) / count;
    for n in 0..count {
        world.create::<Deployment>(deployment(&format!("web-{n}"), replicas)).await;
    }
    all_available(&deployments, count, &changed).await;
    step.end(&format!("{} pods on them until all are available", count * replicas));

    let step = Step::begin(&world);
    let api = world.api::<Deployment>();
    let newer = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "registry.example/web:v2"}]}}}});
    for n in 0..count {
        let patch = Patch::Strategic(&newer);
        let rolled = api.patch(&format!("web-{n}"), &PatchParams::default(), &patch).await;
        rolled.expect("it is there");
    }
    // Until the informer has seen the patches, all look available still.
    let rolls = || {
        let all = deployments.list();
        all.iter().all(|one| one.metadata.generation.is_some_and(|generation| generation > 1))
    };
    while !rolls() {
        changed.notified().await;
    }
    all_available(&deployments, count, &changed).await;
    step.end("all of them rolled to a new version");
    world.cluster.shutdown().await;
}
