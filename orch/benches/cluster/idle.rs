//! What idle Deployments hold in memory, and what the process does for them.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod},
};
use kube::{Api, api::ListParams};
use orch::{ClusterBuilder, store::Store};

use crate::{
    resident_mib, size,
    world::{Created, IN_FLIGHT, World, added, deployment, processor_seconds},
};

const WATCHED: Duration = Duration::from_secs(20);

/// Until nobody holds a typed form of what he does not use: twice the time between bookmarks, which
/// watches are given at different times.
const QUIET: Duration = Duration::from_secs(140);

async fn json_bytes<K: Created>(client: kube::Client) -> usize {
    let all = Api::<K>::all(client).list(&ListParams::default()).await.expect("a list");
    all.items.iter().map(|object| serde_json::to_vec(object).expect("JSON").len()).sum()
}

/// In a cluster with every controller and its informers.
pub(crate) async fn run() {
    let deployments = size("idle", 10_000);
    let world = World::start(&["*"], ClusterBuilder::without_scheduler).await;
    let (empty, exist) = (resident_mib("self"), world.count::<Pod>(added));
    let create = |n: usize| world.create::<Deployment>(deployment(&format!("web-{n}"), 1));
    stream::iter(0..deployments).for_each_concurrent(IN_FLIGHT, create).await;
    let wanted = u32::try_from(deployments).expect("a small number");
    let _all = exist.acquire_many(wanted).await.expect("it is never closed");
    tokio::time::sleep(QUIET).await;
    let remembered = resident_mib("self") - empty;
    // What a cluster does every five minutes.
    world.store.compact(world.store.revision()).await.expect("it is compacted");
    let busy = processor_seconds();
    tokio::time::sleep(WATCHED).await;
    let busy = (processor_seconds() - busy) / WATCHED.as_secs_f64() * 100.0;
    let resident = resident_mib("self") - empty;
    let client = world.cluster.client();
    let json = json_bytes::<Deployment>(client.clone()).await
        + json_bytes::<ReplicaSet>(client.clone()).await
        + json_bytes::<Pod>(client.clone()).await
        + json_bytes::<Event>(client).await;
    let json = json as f64 / 1024.0 / 1024.0;
    println!(
        "{deployments} Deployments of one pod: {resident:.0} MiB, {:.2} times their and their \
         ReplicaSets', Pods' and Events' JSON ({json:.0} MiB; {remembered:.0} MiB before the \
         history was compacted); idle: {busy:.1} % of a core",
        resident / json
    );
    world.cluster.shutdown().await;
}
