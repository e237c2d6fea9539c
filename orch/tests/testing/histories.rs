//! One seed is one history, to the last byte, whoever else is busy: with nodes, controllers, the
//! scheduler, and a controller of the user that does many things at a time.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        controller::{Action, Controller},
        watcher,
    },
};
use orch::{
    core::testing::rounds,
    testing::{self, TestCluster, conditions},
};
use serde_json::json;

use crate::objects::{create, workload};

const MANAGER: &str = "copier";
/// How many things the user's controller does at a time.
const AT_A_TIME: usize = 6;

/// For each labelled ConfigMap a Secret, whose name the server makes up, and a Deployment.
async fn copy(source: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = source.namespace().unwrap_or_default();
    let (name, owner) = (source.name_any(), source.controller_owner_ref(&()));
    let secrets: Api<Secret> = Api::namespaced((*client).clone(), &namespace);
    let mine = ListParams::default().labels(&format!("copy-of={name}"));
    if secrets.list(&mine).await?.items.is_empty() {
        let secret = json!({"metadata": {
            "generateName": "copy-", "labels": {"copy-of": name}, "ownerReferences": [owner],
        }});
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets.create(&PostParams::default(), &secret).await?;
    }
    let mut deployment = workload(&name, 1);
    deployment["apiVersion"] = "apps/v1".into();
    deployment["kind"] = "Deployment".into();
    deployment["metadata"]["ownerReferences"] = json!([owner]);
    deployment["spec"]["template"]["metadata"]["annotations"] = json!(source.data);
    let deployments: Api<Deployment> = Api::namespaced((*client).clone(), &namespace);
    let apply = PatchParams::apply(MANAGER).force();
    deployments.patch(&name, &apply, &Patch::Apply(deployment)).await?;
    Ok(Action::requeue(Duration::from_secs(60)))
}

async fn copier(client: Client) {
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    let labelled = watcher::Config::default().labels("copied=yes");
    Controller::new(maps, labelled)
        .owns(deployments, watcher::Config::default())
        .run(copy, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client))
        .for_each(|_| async {})
        .await;
}

fn source(at: usize, text: &str) -> ConfigMap {
    let metadata = json!({"name": format!("source-{at}"), "labels": {"copied": "yes"}});
    serde_json::from_value(json!({"metadata": metadata, "data": {"text": text}})).expect("a map")
}

/// Workloads of the cluster's own controllers and of the user's come, change and go.
async fn play(cluster: &TestCluster) {
    create::<StatefulSet>(cluster, workload("db", 2)).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let post = PostParams::default();
    let sources: Vec<ConfigMap> = (0..AT_A_TIME).map(|at| source(at, "first")).collect();
    join_all(sources.iter().map(|source| maps.create(&post, source))).await;
    // It finds all of them at once.
    let copier = tokio::spawn(copier(cluster.ordered_client()));
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let are = |count: usize| {
        move |all: &[Deployment]| {
            all.len() == count && all.iter().all(|one| conditions::is_available(Some(one)))
        }
    };
    cluster.expect_all(&deployments).to("be available", are(AT_A_TIME)).await;
    let second = Patch::Merge(json!({"data": {"text": "second"}}));
    let patch = PatchParams::default();
    join_all((0..3).map(|at| {
        let (maps, patch, second) = (&maps, &patch, &second);
        async move { maps.patch(&format!("source-{at}"), patch, second).await.expect("patched") }
    }))
    .await;
    for at in [1, 5] {
        maps.delete(&format!("source-{at}"), &DeleteParams::default()).await.expect("deleted");
    }
    cluster.settle().await;
    cluster.expect_all(&deployments).to("be available again", are(AT_A_TIME - 2)).await;
    copier.abort();
}

/// What was written, a line each.
async fn told(cluster: &TestCluster) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let events = cluster.written().await.expect("it is remembered");
    let lines = events.iter().map(|event| {
        let (key, value) = (text(&event.entry.key), text(&event.entry.value));
        format!("{} {:?} {key} {value}", event.entry.mod_revision, event.kind)
    });
    lines.collect()
}

/// On a thread of its own, whose hash maps and generators nobody has used.
fn apart<T: Send + 'static>(play: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(play)
    };
    std::thread::spawn(run).join().expect("it ends well")
}

fn history(seed: u64) -> Vec<String> {
    apart(async move {
        let cluster = testing::cluster().seed(seed).nodes(2).await;
        play(&cluster).await;
        told(&cluster).await
    })
}

#[track_caller]
fn same(seed: u64, first: &[String], second: &[String]) {
    for (first, second) in first.iter().zip(second) {
        assert_eq!(first, second, "seed {seed}");
    }
    assert_eq!(first.len(), second.len(), "seed {seed}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..u64::from(rounds(4)) {
        same(seed, &history(seed), &history(seed));
    }
    assert_ne!(history(0), history(1), "another seed is another history");
}

#[test]
fn it_does_not_matter_how_busy_the_machine_is() {
    let busy = Arc::new(AtomicBool::new(true));
    let spin = |_| {
        let busy = busy.clone();
        std::thread::spawn(move || {
            while busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    let spinning: Vec<_> = (0..4).map(spin).collect();
    let seeds = 0..u64::from(rounds(2));
    for seed in seeds {
        let beside: Vec<_> = (0..3).map(|_| std::thread::spawn(move || history(seed))).collect();
        let histories = beside.into_iter().map(|one| one.join().expect("it ends well"));
        let histories: Vec<_> = histories.collect();
        same(seed, &histories[0], &histories[1]);
        same(seed, &histories[0], &histories[2]);
    }
    busy.store(false, Ordering::Relaxed);
    for one in spinning {
        one.join().expect("it ends");
    }
}

#[test]
fn clusters_on_one_thread_are_one_history_together() {
    let side_by_side = || {
        apart(async {
            let setups = (1..=2).map(|seed| testing::cluster().seed(seed).nodes(2).into_future());
            let clusters = join_all(setups).await;
            join_all(clusters.iter().map(play)).await;
            join_all(clusters.iter().map(told)).await
        })
    };
    for (seed, (first, second)) in (1..).zip(side_by_side().iter().zip(&side_by_side())) {
        same(seed, first, second);
    }
}
