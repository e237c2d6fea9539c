//! What users get wrong: it is told as upstream tells it, tried again less and less often, and
//! never in a hot loop.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, ReplicationController},
};
use orch_controllers::{
    Runnable,
    cron_job::cron_job,
    daemon_set::daemon_set,
    deployment::deployment,
    garbage::garbage_collector,
    job::job,
    pod_autoscaler::{horizontal_pod_autoscaler, metrics::ResourceMetricsApi},
    replicas::{replica_set, replication_controller},
    stateful_set::stateful_set,
};
use orch_core::{
    ResourceType, Resources,
    client::DeleteOptions,
    informer::{Informers, Watchable},
};
use serde_json::{Value, json};

use crate::world::{REFUSAL, World, template};

/// How often something is tried that always fails, in an hour: after 5 ms, then twice that each
/// time, up to 1000 s.
const TRIES_PER_HOUR: u64 = 22;

fn workload(name: &str, app: &str, replicas: u32) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}},
            "template": template(app, "v1")},
    })
}

/// The condition that something could not be made, if there is one.
fn failure<K: Watchable>(object: &K) -> Option<(Value, Value, Value)> {
    let object = serde_json::to_value(object).expect("an object");
    let all = object.pointer("/status/conditions").and_then(Value::as_array)?;
    let found = all.iter().find(|one| one["type"] == "ReplicaFailure")?;
    Some((found["status"].clone(), found["reason"].clone(), found["message"].clone()))
}

/// How many writes an hour brings.
async fn in_an_hour(world: &World) -> u64 {
    let writes = world.writes();
    world.pass(3600).await;
    world.writes() - writes
}

#[tokio::test(start_paused = true)]
async fn owners_with_one_selector_do_not_fight_over_pods() {
    let world = World::start(|informers| {
        vec![
            deployment(informers),
            replica_set(informers),
            replication_controller(informers),
            stateful_set(informers),
        ]
    });
    world.create::<Deployment>(workload("one", "web", 2)).await;
    world.create::<Deployment>(workload("two", "web", 2)).await;
    world.create::<ReplicaSet>(workload("three", "web", 2)).await;
    let mut four = workload("four", "web", 2);
    four["spec"]["selector"] = json!({"app": "web"});
    world.create::<ReplicationController>(four).await;
    let mut five = workload("five", "web", 2);
    five["spec"]["serviceName"] = json!("five");
    world.create::<StatefulSet>(five).await;
    let mut orphan = template("web", "v1");
    orphan["metadata"]["name"] = json!("orphan");
    world.create::<Pod>(orphan).await;
    world
        .eventually("everybody has two", async |world| {
            let pods = world.list::<Pod>().await;
            let owned = pods.iter().filter(|pod| pod.metadata.owner_references.is_some()).count();
            (pods.len() == 10 && owned == 10).then_some(())
        })
        .await;
    world.pass(60).await;
    assert_eq!(in_an_hour(&world).await, 0);
    assert_eq!(world.list::<Pod>().await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_owner_elsewhere_is_told_of_and_a_circle_stays_quiet() {
    let types = vec![ResourceType::of::<ConfigMap>(), ResourceType::of::<Pod>()];
    let world = World::start(|informers: &Informers| -> Vec<Runnable> {
        vec![garbage_collector(informers, Arc::new(types))]
    });
    let map =
        |name: &str, owners: Value| json!({"metadata": {"name": name, "ownerReferences": owners}});
    let refer = |name: &str, uid: &str| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}]);
    let real = world.create::<ConfigMap>(map("real", json!([]))).await;
    let uid = real.metadata.uid.clone().unwrap();
    // Two that own each other; nobody wants them gone.
    let a = world.create::<ConfigMap>(map("a", json!([]))).await;
    let b =
        world.create::<ConfigMap>(map("b", refer("a", a.metadata.uid.as_deref().unwrap()))).await;
    let owners = refer("b", b.metadata.uid.as_deref().unwrap());
    world.patch::<ConfigMap>("a", json!({"metadata": {"ownerReferences": owners}})).await;
    let elsewhere: Resources<ConfigMap> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "other");
    let misplaced = serde_json::from_value(map("misplaced", refer("real", &uid))).unwrap();
    elsewhere.create(&misplaced).await.unwrap();
    world.create::<ConfigMap>(map("dangling", refer("never", "no-such-uid"))).await;
    world
        .eventually("what has no owner goes", async |world| {
            let gone = elsewhere.get_opt("misplaced").await.unwrap().is_none()
                && world.get::<ConfigMap>("dangling").await.is_none();
            gone.then_some(())
        })
        .await;
    let events: Resources<k8s_openapi::api::core::v1::Event> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "other");
    let told = world
        .eventually("its author is told", async |_| {
            events.list(Default::default()).await.unwrap().first().cloned()
        })
        .await;
    assert_eq!(told.reason.as_deref(), Some("OwnerRefInvalidNamespace"));
    assert_eq!(
        told.message.as_deref().unwrap(),
        format!(
            "ownerRef [v1/ConfigMap, namespace: other, name: real, uid: {uid}] does not exist in \
             namespace \"other\""
        )
    );
    assert_eq!(in_an_hour(&world).await, 0);
    for name in ["real", "a", "b"] {
        assert!(world.get::<ConfigMap>(name).await.is_some(), "{name} has an owner");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_a_webhook_refuses_are_told_of_and_tried_less_and_less_often() {
    let world = World::start(|informers| {
        vec![
            deployment(informers),
            replica_set(informers),
            replication_controller(informers),
            stateful_set(informers),
            daemon_set(informers),
            job(informers),
        ]
    });
    world.refuse(Some("pods"));
    world.create_cluster::<Node>(json!({"metadata": {"name": "node-1"}})).await;
    world.create::<Deployment>(workload("deploy", "a", 10)).await;
    let mut controller = workload("rc", "b", 10);
    controller["spec"]["selector"] = json!({"app": "b"});
    world.create::<ReplicationController>(controller).await;
    let mut set = workload("set", "c", 10);
    set["spec"]["serviceName"] = json!("set");
    world.create::<StatefulSet>(set).await;
    let mut agent = workload("agent", "d", 0);
    agent["spec"].as_object_mut().unwrap().remove("replicas");
    world.create::<DaemonSet>(agent).await;
    world
        .create::<Job>(json!({"metadata": {"name": "job", "uid": "job-uid"}, "spec": {
            "parallelism": 10, "completions": 10, "backoffLimit": 6,
            "selector": {"matchLabels": {"app": "e"}}, "template": template("e", "v1")}}))
        .await;
    let common = format!("Error creating: {REFUSAL}");
    for name in ["rc", "agent", "job"] {
        assert_eq!(world.hears(name, "FailedCreate").await, common, "{name}");
    }
    assert_eq!(
        world.hears("set", "FailedCreate").await,
        format!("create Pod set-0 in StatefulSet set failed error: {REFUSAL}")
    );
    let sets = world.list::<ReplicaSet>().await;
    let name = sets[0].metadata.name.as_deref().unwrap();
    assert_eq!(world.hears(name, "FailedCreate").await, common);

    let expected = Some((json!("True"), json!("FailedCreate"), json!(REFUSAL)));
    world
        .eventually("the condition is there", async |world| {
            let deploy = world.get::<Deployment>("deploy").await?;
            let rc = world.get::<ReplicationController>("rc").await?;
            let set = world.get::<ReplicaSet>(name).await?;
            let all = [failure(&*deploy), failure(&*rc), failure(&*set)];
            all.iter().all(|one| *one == expected).then_some(())
        })
        .await;
    world.pass(60).await;
    // Six owners; a try is one refused pod and one more count of an event.
    let writes = in_an_hour(&world).await;
    assert!(writes <= 6 * 2 * TRIES_PER_HOUR, "{writes}");

    // Once it is allowed everything comes to be, and nothing says that it fails.
    world.refuse(None);
    world
        .eventually("all pods are there", async |world| {
            (world.list::<Pod>().await.len() >= 10 + 10 + 10 + 1 + 10).then_some(())
        })
        .await;
    world
        .eventually("no condition is left", async |world| {
            let rc = world.get::<ReplicationController>("rc").await?;
            let deploy = world.get::<Deployment>("deploy").await?;
            (failure(&*rc).is_none() && failure(&*deploy).is_none()).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_replica_sets_and_jobs_that_are_refused_are_told_of() {
    let world = World::start(|informers| {
        vec![deployment(informers), stateful_set(informers), cron_job(informers)]
    });
    world.refuse(Some("persistentvolumeclaims"));
    let mut set = workload("set", "c", 1);
    set["spec"]["serviceName"] = json!("set");
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    world.create::<StatefulSet>(set).await;
    world
        .eventually("both are told of", async |world| {
            let mut told = world.told("set").await;
            told.sort();
            let texts: Vec<&str> = told.iter().map(|(_, _, text)| text.as_str()).collect();
            let claim = format!(
                "create Claim data-set-0 for Pod set-0 in StatefulSet set failed error: {REFUSAL}"
            );
            let pod = format!(
                "create Pod set-0 in StatefulSet set failed error: failed to create PVC \
                 data-set-0: {REFUSAL}"
            );
            (texts == [claim.as_str(), pod.as_str()]).then_some(())
        })
        .await;
    let writes = in_an_hour(&world).await;
    assert!(writes <= 3 * TRIES_PER_HOUR, "{writes}");
    assert!(world.list::<PersistentVolumeClaim>().await.is_empty());
    world.delete::<StatefulSet>("set").await;

    world.refuse(Some("replicasets"));
    world.create::<Deployment>(workload("deploy", "a", 1)).await;
    let message = world.hears("deploy", "ReplicaSetCreateError").await;
    assert!(message.ends_with(REFUSAL), "{message}");
    world.pass(60).await;
    let writes = in_an_hour(&world).await;
    assert!(writes <= 3 * TRIES_PER_HOUR, "{writes}");
    world.delete::<Deployment>("deploy").await;

    // A start that cannot be made is tried until it is too late for it.
    world.refuse(Some("jobs"));
    world
        .create::<CronJob>(json!({"metadata": {"name": "cron"}, "spec": {
            "schedule": "0 * * * *", "startingDeadlineSeconds": 60,
            "jobTemplate": {"spec": {"template": template("e", "v1")}}}}))
        .await;
    world.pass(3600).await;
    assert_eq!(world.hears("cron", "FailedCreate").await, format!("Error creating job: {REFUSAL}"));
    let writes = in_an_hour(&world).await;
    assert!(writes <= 3 * TRIES_PER_HOUR, "{writes}");
}

/// Garbage collection has seen that the owner is gone and deletes what its controller, which has
/// not, creates for it.
async fn creates_no_more_for_one_that_is_gone<K: Watchable>(
    world: &World,
    plural: &'static str,
    object: Value,
) {
    let of_pods = async |pods: usize| {
        let all = async |world: &World| (world.list::<Pod>().await.len() == pods).then_some(());
        world.eventually(&format!("{pods} pods of {plural}"), all).await;
    };
    world.create::<K>(object.clone()).await;
    of_pods(2).await;
    world.pass(60).await;
    world.hide(Some(plural));
    let name = &object["metadata"]["name"].as_str().expect("a name").to_owned();
    world.delete::<K>(name).await;
    let writes = world.writes();
    for _ in 0..100 {
        for pod in world.list::<Pod>().await {
            let finalizers = json!({"metadata": {"finalizers": null}});
            world.patch::<Pod>(pod.metadata.name.as_deref().expect("a name"), finalizers).await;
            let delete = world.resources::<Pod>();
            let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
            delete.delete(pod.metadata.name.as_deref().expect("a name"), now).await.expect("gone");
        }
        world.pass(1).await;
    }
    assert!(world.writes() - writes < 15, "{} writes for {plural}", world.writes() - writes);
    world.hide(None);
    world.pass(1).await;
    // Another one of its name is not held for it.
    world.create::<K>(object).await;
    of_pods(2).await;
    world.delete::<K>(name).await;
    world.pass(1).await;
    for pod in world.list::<Pod>().await {
        world.delete::<Pod>(pod.metadata.name.as_deref().expect("a name")).await;
    }
    of_pods(0).await;
}

#[tokio::test(start_paused = true)]
async fn who_learns_late_that_an_owner_is_gone_creates_no_more_for_it() {
    let world = World::start(|informers| {
        vec![replica_set(informers), stateful_set(informers), daemon_set(informers), job(informers)]
    });
    for at in 1..=2 {
        world.create_cluster::<Node>(json!({"metadata": {"name": format!("node-{at}")}})).await;
    }
    creates_no_more_for_one_that_is_gone::<ReplicaSet>(
        &world,
        "replicasets",
        workload("a", "a", 2),
    )
    .await;
    creates_no_more_for_one_that_is_gone::<DaemonSet>(&world, "daemonsets", workload("b", "b", 2))
        .await;
    let mut set = workload("c", "c", 2);
    set["spec"]["serviceName"] = json!("c");
    creates_no_more_for_one_that_is_gone::<StatefulSet>(&world, "statefulsets", set).await;
    let mut template = template("d", "v1");
    template["spec"]["restartPolicy"] = json!("Never");
    let spec = json!({"completions": 2, "parallelism": 2, "backoffLimit": 1000, "suspend": false,
        "completionMode": "NonIndexed", "selector": {"matchLabels": {"app": "d"}},
        "template": template});
    let job = json!({"metadata": {"name": "d"}, "spec": spec});
    creates_no_more_for_one_that_is_gone::<Job>(&world, "jobs", job).await;
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_is_missing_is_told_of_once_for_each_look() {
    let world = World::start(|informers| {
        let types = Arc::new(vec![ResourceType::of::<ReplicaSet>()]);
        let metrics = Arc::new(ResourceMetricsApi::new(informers.client().clone()));
        vec![replica_set(informers), horizontal_pod_autoscaler(informers, types, metrics)]
    });
    world.create::<ReplicaSet>(workload("web", "web", 3)).await;
    world
        .create::<HorizontalPodAutoscaler>(json!({"metadata": {"name": "scaler"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
            "minReplicas": 2, "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}}))
        .await;
    world.hears("scaler", "FailedGetResourceMetric").await;
    world.pass(60).await;
    // Every 15 s it looks, and counts its two events up; the status says the same all the time.
    let writes = in_an_hour(&world).await;
    assert!(writes <= 2 * (3600 / 15 + 1), "{writes}");
    let set = world.get::<ReplicaSet>("web").await.unwrap();
    assert_eq!(set.spec.as_ref().unwrap().replicas, Some(3));
}
