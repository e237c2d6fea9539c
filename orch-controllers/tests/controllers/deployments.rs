//! Deployments.

use std::sync::{
    Arc,
    atomic::{AtomicI32, Ordering},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition, ReplicaSet},
    core::v1::Pod,
};
use orch_controllers::{Controller, deployment::deployment, replicas::replica_set};
use orch_core::{
    informer::Informers,
    testing::{FaultRates, rounds},
};
use serde_json::{Value, json};

use crate::world::{World, template};

fn controllers(informers: &Informers) -> Vec<Controller> {
    vec![deployment(informers), replica_set(informers)]
}

fn web(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "progressDeadlineSeconds": 600, "template": template("web", "v1")},
    })
}

fn condition(deployment: &Deployment, type_: &str) -> Option<DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_).cloned()
}

async fn settle(world: &World, replicas: i32) {
    world
        .eventually("the rollout is complete", async |world| {
            let deployment = world.get::<Deployment>("web").await?;
            let status = deployment.status.as_ref()?;
            let complete = status.updated_replicas == Some(replicas)
                && status.replicas == Some(replicas)
                && status.available_replicas == Some(replicas)
                && status.observed_generation == deployment.metadata.generation
                && condition(&deployment, "Progressing")?.reason.as_deref()
                    == Some("NewReplicaSetAvailable");
            complete.then_some(())
        })
        .await;
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().unwrap().replicas.unwrap()
}

async fn roll_to(world: &World, image: &str) {
    let patch = json!({"spec": {"template": template("web", image)}});
    world.patch::<Deployment>("web", patch).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_available_and_then_writes_nothing() {
    let world = World::start(controllers);
    world.create::<Deployment>(web(100)).await;
    settle(&world, 100).await;
    let deployment = world.get::<Deployment>("web").await.unwrap();
    let available = condition(&deployment, "Available").unwrap();
    assert_eq!(available.reason.as_deref(), Some("MinimumReplicasAvailable"));
    let annotations = deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
    let sets = world.list::<ReplicaSet>().await;
    assert_eq!(sets.len(), 1);
    let hash = &sets[0].metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(sets[0].metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes, "an idle deployment causes no writes");
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_stays_within_surge_and_unavailability() {
    let world = World::start(controllers);
    let mut value = web(10);
    value["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 2}});
    world.create::<Deployment>(value).await;
    settle(&world, 10).await;
    roll_to(&world, "v2").await;
    world
        .eventually("the new version", async |world| {
            let sets = world.list::<ReplicaSet>().await;
            let total: i32 = sets.iter().map(|set| size(set)).sum();
            assert!(total <= 13, "{total} is above the surge");
            let pods = world.list::<Pod>().await;
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            let ready = pods.iter().filter(|pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && phase(pod).as_deref() == Some("Running")
            });
            assert!(ready.count() >= 8, "below availability");
            let old = sets.iter().filter(|set| size(set) > 0).count();
            (sets.len() == 2 && old == 1).then_some(())
        })
        .await;
    settle(&world, 10).await;
    let deployment = world.get::<Deployment>("web").await.unwrap();
    let annotations = deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "2");

    // Rolling back revives the old set under a new revision.
    roll_to(&world, "v1").await;
    world.pass(1).await;
    settle(&world, 10).await;
    let sets = world.list::<ReplicaSet>().await;
    assert_eq!(sets.len(), 2);
    let current = sets.iter().find(|set| size(set) == 10).unwrap();
    let annotations = current.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

/// Right after a set was made smaller its status still counts the pods that go: they are no spare.
#[tokio::test(start_paused = true)]
async fn a_smaller_deployment_of_a_new_version_stays_available() {
    let world = World::start(controllers);
    let mut value = web(5);
    value["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    world.create::<Deployment>(value).await;
    settle(&world, 5).await;
    let least = Arc::new(AtomicI32::new(i32::MAX));
    let (seen, sets) = (least.clone(), world.informers.of::<ReplicaSet>());
    let all = sets.clone();
    sets.on_change(move |_| {
        let available = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            status.and_then(|status| status.available_replicas).unwrap_or(0).min(size(set))
        };
        seen.fetch_min(all.list().iter().map(|set| available(set)).sum(), Ordering::Relaxed);
    });
    least.store(i32::MAX, Ordering::Relaxed);
    let smaller = json!({"spec": {"replicas": 4, "template": template("web", "v2")}});
    world.patch::<Deployment>("web", smaller).await;
    settle(&world, 4).await;
    assert_eq!(least.load(Ordering::Relaxed), 3, "one of four may be missing");
}

#[tokio::test(start_paused = true)]
async fn recreate_stops_the_old_before_it_starts_the_new() {
    let world = World::start(controllers);
    let mut value = web(3);
    value["spec"]["strategy"] = json!({"type": "Recreate"});
    world.create::<Deployment>(value).await;
    settle(&world, 3).await;
    roll_to(&world, "v2").await;
    world
        .eventually("the new version", async |world| {
            let pods = world.list::<Pod>().await;
            let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
            let new = pods.iter().filter(|pod| image(pod).as_deref() == Some("v2")).count();
            assert!(new == 0 || new == pods.len(), "versions overlap");
            (new == 3).then_some(())
        })
        .await;
    settle(&world, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let world = World::start(controllers);
    world.create::<Deployment>(web(2)).await;
    settle(&world, 2).await;
    world.patch::<Deployment>("web", json!({"spec": {"paused": true}})).await;
    roll_to(&world, "v2").await;
    world.patch::<Deployment>("web", json!({"spec": {"replicas": 4}})).await;
    world
        .eventually("scaled", async |world| {
            let sets = world.list::<ReplicaSet>().await;
            assert_eq!(sets.len(), 1, "nothing is rolled out");
            (size(&sets[0]) == 4).then_some(())
        })
        .await;
    world.pass(5).await;
    let paused = world.get::<Deployment>("web").await.unwrap();
    let progressing = condition(&paused, "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("DeploymentPaused"));
    world.patch::<Deployment>("web", json!({"spec": {"paused": false}})).await;
    settle(&world, 4).await;
    assert_eq!(world.list::<ReplicaSet>().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_is_stuck_exceeds_its_deadline() {
    let world = World::start(controllers);
    world.ready.store(false, Ordering::Relaxed);
    let mut value = web(2);
    value["spec"]["progressDeadlineSeconds"] = json!(60);
    world.create::<Deployment>(value).await;
    world.pass(30).await;
    let waiting = world.get::<Deployment>("web").await.unwrap();
    assert_eq!(condition(&waiting, "Progressing").unwrap().status, "True");
    let available = condition(&waiting, "Available").unwrap();
    assert_eq!(available.reason.as_deref(), Some("MinimumReplicasUnavailable"));
    world.pass(40).await;
    let stuck = world.get::<Deployment>("web").await.unwrap();
    let progressing = condition(&stuck, "Progressing").unwrap();
    assert_eq!(
        (progressing.status.as_str(), progressing.reason.as_deref()),
        ("False", Some("ProgressDeadlineExceeded"))
    );
    world.ready.store(true, Ordering::Relaxed);
    settle(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn history_keeps_as_many_old_sets_as_asked_for() {
    let world = World::start(controllers);
    let mut value = web(1);
    value["spec"]["revisionHistoryLimit"] = json!(2);
    world.create::<Deployment>(value).await;
    settle(&world, 1).await;
    for image in ["v2", "v3", "v4", "v5"] {
        roll_to(&world, image).await;
        world.pass(1).await;
        settle(&world, 1).await;
    }
    world
        .eventually("old sets are cleaned up", async |world| {
            (world.list::<ReplicaSet>().await.len() == 3).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_size_during_a_rollout_is_spread_proportionally() {
    let world = World::start(controllers);
    let mut value = web(10);
    value["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    world.create::<Deployment>(value).await;
    settle(&world, 10).await;
    world.ready.store(false, Ordering::Relaxed);
    roll_to(&world, "v2").await;
    world.pass(10).await;
    let sizes = async || {
        let mut sizes: Vec<i32> =
            world.list::<ReplicaSet>().await.iter().map(|set| size(set)).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes().await, [5, 8]);
    // The example of Kubernetes' documentation: from 10 to 15 pods, 3 surge.
    world.patch::<Deployment>("web", json!({"spec": {"replicas": 15}})).await;
    world.pass(10).await;
    assert_eq!(sizes().await, [7, 11]);
}

/// A set that a Deployment has left behind in the middle of a rollout.
fn left_behind(name: &str, pods: i32, desired: &str) -> Value {
    let mut template = template("web", name);
    template["metadata"]["labels"]["pod-template-hash"] = json!(name);
    json!({
        "metadata": {"name": format!("web-{name}"),
            "labels": {"app": "web", "pod-template-hash": name},
            "annotations": {"deployment.kubernetes.io/desired-replicas": desired,
                "deployment.kubernetes.io/max-replicas": "9",
                "deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": pods,
            "selector": {"matchLabels": {"app": "web", "pod-template-hash": name}},
            "template": template},
    })
}

#[tokio::test(start_paused = true)]
async fn sets_that_are_adopted_in_the_middle_of_a_rollout_are_replaced() {
    let rolling = json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    let sets = [
        (json!({"type": "Recreate"}), vec![("a", 3), ("b", 1)]),
        (json!({"type": "Recreate"}), vec![("a", 4)]),
        (rolling, vec![("a", 4)]),
    ];
    for (strategy, sets) in sets {
        let world = World::start(controllers);
        for (name, pods) in &sets {
            world.create::<ReplicaSet>(left_behind(name, *pods, "7")).await;
        }
        let exist = async |world: &World| (world.list::<Pod>().await.len() == 4).then_some(());
        world.eventually("the pods", exist).await;
        let mut value = web(4);
        value["spec"]["strategy"] = strategy.clone();
        world.create::<Deployment>(value).await;
        settle(&world, 4).await;
        let sizes: Vec<i32> = world.list::<ReplicaSet>().await.iter().map(|s| size(s)).collect();
        assert_eq!(sizes.len(), sets.len() + 1, "{strategy}");
        assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 1, "{strategy}");
    }
}

/// Whatever fails on the way, a rollout ends with exactly the pods that were asked for.
#[tokio::test(start_paused = true)]
async fn rollouts_settle_under_faults() {
    let rates = FaultRates {
        conflict_permille: 50,
        server_error_permille: 50,
        transport_permille: 50,
        watch_drop_permille: 20,
        expired_permille: 10,
        ..FaultRates::default()
    };
    for seed in 0..u64::from(rounds(10)) {
        println!("seed {seed}");
        let world = World::with_faults(seed, rates, controllers);
        world.create::<Deployment>(web(20)).await;
        settle(&world, 20).await;
        roll_to(&world, "v2").await;
        world.pass(1).await;
        settle(&world, 20).await;
        world.patch::<Deployment>("web", json!({"spec": {"replicas": 3}})).await;
        settle(&world, 3).await;
        world
            .eventually("no pod too many", async |world| {
                (world.list::<Pod>().await.len() == 3).then_some(())
            })
            .await;
    }
}
