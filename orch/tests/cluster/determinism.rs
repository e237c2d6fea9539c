//! The same seed gives the same history.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Pod,
};
use kube::{Api, api::DeleteParams};
use orch::store::{
    KeyRange, MemoryOptions, MemoryStore, RangeRequest, Store, StoreReader, WatchItem, WatchRequest,
};

use crate::world::{create, environment, is_ready, seeded_in, until, workload};

/// Everything that was ever written: revision, key, value.
async fn written(store: &MemoryStore) -> Vec<String> {
    let range = KeyRange::prefix("/");
    let newest = store.range(RangeRequest::new(range.clone())).await.expect("a range").revision;
    let request = WatchRequest { range, from: Some(1) };
    let mut events = store.watch(request).await.expect("a watch");
    let mut history = Vec::new();
    loop {
        let item = events.next().await.expect("an item").expect("no gap");
        let WatchItem::Events(events) = item else { continue };
        for event in events.iter() {
            let entry = &event.entry;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (key, value) = (text(&entry.key), text(&entry.value));
            history.push(format!("{} {:?} {key} {value}", entry.mod_revision, event.kind));
        }
        if events.last().is_some_and(|event| event.entry.mod_revision >= newest) {
            return history;
        }
    }
}

fn history(seed: u64) -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let environment = environment(seed);
        let store = Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()));
        let shared: Arc<dyn Store> = store.clone();
        let cluster = seeded_in(environment).store(shared).simulated_nodes(3).start().await;
        let cluster = cluster.expect("it starts");
        create::<Deployment>(&cluster, workload("web", 10)).await;
        create::<StatefulSet>(&cluster, workload("db", 3)).await;
        let all_ready = |count: usize| {
            move |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_ready(pod)).count() == count
        };
        until::<Pod>(&cluster, all_ready(13)).await;
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
        deployments.delete("web", &DeleteParams::default()).await.expect("it is deleted");
        until::<Pod>(&cluster, |pods| pods.len() == 3).await;
        create::<Deployment>(&cluster, workload("again", 5)).await;
        until::<Pod>(&cluster, all_ready(8)).await;
        cluster.shutdown().await;
        written(&store).await
    })
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (first, second) = (history(42), history(42));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first, second);
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, history(43), "another seed gives another history");
}
