//! Whoever follows the server ends up with what the server holds, whatever happens in between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use orch_api::{ApiServer, auth::UserInfo};
use orch_core::{
    Environment, Resources,
    client::{DeleteOptions, ListOptions, PatchKind},
    informer::{Informer, Selection},
};
use orch_store::{Faults, FaultyStore, MemoryOptions, MemoryStore, Store as _};
use serde_json::json;

type Maps = Resources<ConfigMap>;

/// Names and the revisions that they are held at.
fn held<'a>(maps: impl IntoIterator<Item = &'a Arc<ConfigMap>>) -> BTreeMap<String, String> {
    let entry = |map: &Arc<ConfigMap>| {
        let meta = &map.metadata;
        (meta.name.clone().unwrap(), meta.resource_version.clone().unwrap())
    };
    maps.into_iter().map(entry).collect()
}

fn config(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

async fn namespaced(server: &ApiServer) -> Maps {
    let client = server.client(UserInfo::master("test"));
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    while Resources::all(client.clone())
        .create(&namespace)
        .await
        .is_err_and(|e| !e.is_already_exists())
    {}
    Resources::namespaced(client, "default")
}

fn informer(server: &ApiServer, environment: &Environment) -> Informer<ConfigMap> {
    let client = server.client(UserInfo::master("test"));
    Informer::start(client, environment.clone(), Selection::default())
}

/// One of ten objects is made, changed or removed. That this may fail is part of the test.
async fn write(maps: &Maps, environment: &Environment, step: u64) {
    let name = format!("m{}", environment.random.below(10));
    let _may_fail = match environment.random.below(3) {
        0 => maps.create(&config(&name)).await.is_ok(),
        1 => maps.delete(&name, DeleteOptions::default()).await.is_ok(),
        _ => {
            let change = json!({"data": {"step": step.to_string()}});
            maps.patch(&name, PatchKind::Merge, change).await.is_ok()
        }
    };
}

#[tokio::test(start_paused = true)]
async fn copies_converge_over_a_store_that_misbehaves() {
    for seed in 0..8 {
        let environment = Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), seed);
        let memory = MemoryStore::new(environment.clone(), MemoryOptions::default());
        let faults = Faults {
            unavailable: 0.02,
            watch_drop: 0.3,
            delay_max: Duration::from_millis(300),
            ..Faults::default()
        };
        let store = FaultyStore::new(Arc::new(memory.clone()), environment.clone(), faults);
        let server = ApiServer::builder(Arc::new(store)).environment(environment.clone()).build();
        let maps = namespaced(&server).await;
        let mut copies = vec![informer(&server, &environment)];
        for step in 0..300 {
            write(&maps, &environment, step).await;
            if step % 40 == 0 {
                copies.push(informer(&server, &environment));
            }
            if step % 3 == 0 {
                let _nothing_new = memory.compact(memory.revision()).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        // The truth is read where nothing is cached and nothing fails.
        let truth = namespaced(&ApiServer::new(Arc::new(memory))).await;
        let truth = held(&truth.list(ListOptions::default()).await.unwrap());
        for copy in &copies {
            assert_eq!(held(&copy.list()), truth, "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_misses_what_many_write_at_once() {
    let environment = Environment::system();
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    let maps = namespaced(&server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (maps, environment) = (maps.clone(), environment.clone());
        tasks.spawn(async move {
            for step in 0..100 {
                write(&maps, &environment, writer * 1000 + step).await;
            }
        });
    }
    let copies: Vec<_> = (0..6).map(|_| informer(&server, &environment)).collect();
    tasks.join_all().await;
    maps.create(&config("last")).await.unwrap();
    let truth = held(&maps.list(ListOptions::default()).await.unwrap());
    for copy in copies {
        // A first list is taken in one by one, and the last object comes first in it.
        copy.synced().await;
        let (seen, mut last) = tokio::sync::mpsc::unbounded_channel();
        copy.on_change(move |change| {
            if change.object().metadata.name.as_deref() == Some("last") {
                let _nobody_waits_any_more = seen.send(());
            }
        });
        let arrived = tokio::time::timeout(Duration::from_secs(60), last.recv()).await;
        assert!(arrived.is_ok(), "the last change is told to everybody");
        assert_eq!(held(&copy.list()), truth);
    }
}
