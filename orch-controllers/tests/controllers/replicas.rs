//! ReplicaSets and ReplicationControllers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, ReplicationController},
    policy::v1::PodDisruptionBudget,
};
use orch_controllers::{
    disruption::disruption,
    replicas::{replica_set, replication_controller},
};
use orch_core::{
    Environment,
    informer::Informers,
    testing::{FaultRates, rounds},
};
use serde_json::{Value, json};

use crate::world::{World, template};

fn set(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": template("web", "v1")},
    })
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

async fn settle(world: &World, replicas: i32) {
    world
        .eventually("the set is available", async |world| {
            let set = world.get::<ReplicaSet>("web").await?;
            let status = set.status.as_ref()?;
            let settled = available(&set) == replicas
                && status.replicas == replicas
                && status.observed_generation == set.metadata.generation;
            (settled && world.list::<Pod>().await.len() == replicas as usize).then_some(())
        })
        .await;
}

/// What was carried out and reported as failed is found out about: it is not done again. However
/// long the local copy lags behind, it is known that it does, and there is never a pod too many.
#[tokio::test(start_paused = true)]
async fn lost_answers_make_no_pod_too_many() {
    for seed in 0..u64::from(rounds(10)) {
        // The local copy must lag behind: with one that does not, nothing is made twice anyway.
        let rates = FaultRates {
            transport_permille: 300,
            watch_drop_permille: 300,
            ..FaultRates::default()
        };
        let world = World::with_faults(seed, rates, |informers| vec![replica_set(informers)]);
        let cluster = Informers::new(Arc::new(world.cluster.clone()), Environment::system());
        let pods = cluster.of::<Pod>();
        let (copy, most) = (pods.clone(), Arc::new(AtomicUsize::new(0)));
        let peak = most.clone();
        pods.on_change(move |_| {
            let going = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
            peak.fetch_max(copy.list().iter().filter(going).count(), Ordering::Relaxed);
        });
        world.create::<ReplicaSet>(set(20)).await;
        settle(&world, 20).await;
        world.patch::<ReplicaSet>("web", json!({"spec": {"replicas": 5}})).await;
        settle(&world, 5).await;
        world.patch::<ReplicaSet>("web", json!({"spec": {"replicas": 20}})).await;
        settle(&world, 20).await;
        assert_eq!(most.load(Ordering::Relaxed), 20, "with the seed {seed}");
    }
}

/// A copy that shows nothing new for an hour is known to be old: nothing is made by it.
#[tokio::test(start_paused = true)]
async fn nothing_is_made_again_while_the_copy_is_behind() {
    let world = World::start(|informers| vec![replica_set(informers)]);
    world.create::<ReplicaSet>(set(2)).await;
    settle(&world, 2).await;
    world.hide(Some("pods"));
    world.patch::<ReplicaSet>("web", json!({"spec": {"replicas": 5}})).await;
    world.pass(3600).await;
    assert_eq!(world.list::<Pod>().await.len(), 5);
    let name = world.list::<Pod>().await[0].metadata.name.clone().unwrap();
    world.delete::<Pod>(&name).await;
    world.hide(None);
    settle(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_pods_as_asked_for_and_then_no_more_writes() {
    let world = World::start(|informers| vec![replica_set(informers)]);
    world.create::<ReplicaSet>(set(100)).await;
    settle(&world, 100).await;
    let pods = world.list::<Pod>().await;
    assert!(pods.iter().all(|pod| pod.metadata.name.as_ref().unwrap().starts_with("web-")));

    world.patch::<ReplicaSet>("web", json!({"spec": {"replicas": 3}})).await;
    settle(&world, 3).await;
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes, "an idle set causes no writes");

    // One that is deleted is replaced.
    let name = world.list::<Pod>().await[0].metadata.name.clone().unwrap();
    world.delete::<Pod>(&name).await;
    world
        .eventually("a replacement", async |world| {
            let pods = world.list::<Pod>().await;
            let replaced = pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name));
            (replaced && pods.len() == 3).then_some(())
        })
        .await;
    settle(&world, 3).await;
}

#[tokio::test(start_paused = true)]
async fn matching_orphans_are_adopted_and_others_released() {
    let world = World::start(|informers| vec![replica_set(informers)]);
    let mut orphan = template("web", "v1");
    orphan["metadata"]["name"] = json!("orphan");
    world.create::<Pod>(orphan).await;
    let set = world.create::<ReplicaSet>(set(2)).await;
    settle(&world, 2).await;
    let adopted = world.get::<Pod>("orphan").await.unwrap();
    let owner = &adopted.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller),
        (set.metadata.uid.as_deref().unwrap(), Some(true))
    );

    world.patch::<Pod>("orphan", json!({"metadata": {"labels": {"app": "other"}}})).await;
    world
        .eventually("the pod is released and replaced", async |world| {
            let released = world.get::<Pod>("orphan").await?;
            let free = released.metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
            (free && world.list::<Pod>().await.len() == 3).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_delay_availability() {
    let world = World::start(|informers| vec![replica_set(informers)]);
    let mut slow = set(2);
    slow["spec"]["minReadySeconds"] = json!(30);
    world.create::<ReplicaSet>(slow).await;
    world
        .eventually("ready", async |world| {
            let set = world.get::<ReplicaSet>("web").await?;
            (set.status.as_ref()?.ready_replicas == Some(2)).then_some(())
        })
        .await;
    assert_eq!(available(&world.get("web").await.unwrap()), 0);
    world.pass(31).await;
    assert_eq!(available(&world.get("web").await.unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_does_the_same() {
    let world = World::start(|informers| vec![replication_controller(informers)]);
    world
        .create::<ReplicationController>(json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 4, "selector": {"app": "web"}, "template": template("web", "v1")},
        }))
        .await;
    world
        .eventually("available", async |world| {
            let status = world.get::<ReplicationController>("web").await?.status.clone()?;
            (status.available_replicas == Some(4)).then_some(())
        })
        .await;
    assert_eq!(world.list::<Pod>().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_budget_says_how_many_pods_may_be_evicted() {
    let world = World::start(|informers| vec![replica_set(informers), disruption(informers)]);
    let budgets = [
        ("most", json!({"minAvailable": "50%"})),
        ("few", json!({"maxUnavailable": 1})),
        ("all", json!({"minAvailable": 5})),
    ];
    for (name, mut spec) in budgets {
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        let budget = json!({"metadata": {"name": name}, "spec": spec});
        world.create::<PodDisruptionBudget>(budget).await;
    }
    world.create::<ReplicaSet>(set(5)).await;
    settle(&world, 5).await;
    let allowed = async |name: &str| {
        let budget = world.get::<PodDisruptionBudget>(name).await.unwrap();
        budget.status.as_ref().and_then(|status| status.disruptions_allowed)
    };
    world.pass(1).await;
    assert_eq!(
        (allowed("most").await, allowed("few").await, allowed("all").await),
        (Some(2), Some(1), Some(0))
    );
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
}
