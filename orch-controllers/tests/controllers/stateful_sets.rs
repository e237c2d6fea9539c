//! StatefulSets.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, StatefulSet},
    core::v1::{Node, PersistentVolumeClaim, Pod},
};
use orch_controllers::{daemon_set::daemon_set, stateful_set::stateful_set};
use serde_json::{Value, json};

use crate::world::{World, template};

fn set(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "db"},
        "spec": {"replicas": replicas, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db", "v1"),
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"]}}]},
    })
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

async fn names(world: &World) -> Vec<String> {
    world.list::<Pod>().await.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

async fn settle(world: &World, replicas: i32, updated: i32) {
    world
        .eventually("the set has settled", async |world| {
            let set = world.get::<StatefulSet>("db").await?;
            let status = set.status.as_ref()?;
            let settled = status.replicas == replicas
                && status.ready_replicas.unwrap_or(0) == replicas
                && status.updated_replicas.unwrap_or(0) == updated
                && status.observed_generation == set.metadata.generation;
            settled.then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_come_in_order_with_claims_and_go_in_reverse() {
    let world = World::start(|informers| vec![stateful_set(informers)]);
    world.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    world.create::<StatefulSet>(set(3)).await;
    world.pass(30).await;
    assert_eq!(names(&world).await, ["db-0"], "the second waits for the first");
    world.ready.store(true, std::sync::atomic::Ordering::Relaxed);
    settle(&world, 3, 3).await;
    assert_eq!(names(&world).await, ["db-0", "db-1", "db-2"]);
    let second = world.get::<Pod>("db-1").await.unwrap();
    let spec = second.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    assert!(world.get::<PersistentVolumeClaim>("data-db-2").await.is_some());
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    // One that is deleted comes back under its name.
    world.delete::<Pod>("db-1").await;
    world.pass(1).await;
    settle(&world, 3, 3).await;
    world.patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}})).await;
    settle(&world, 1, 1).await;
    assert_eq!(names(&world).await, ["db-0"]);
    assert!(world.get::<PersistentVolumeClaim>("data-db-2").await.is_some(), "data stay");
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_from_the_last_down_to_the_partition() {
    let world = World::start(|informers| vec![stateful_set(informers)]);
    world.create::<StatefulSet>(set(3)).await;
    settle(&world, 3, 3).await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let patch = json!({"spec": {"updateStrategy": strategy, "template": template("db", "v2")}});
    world.patch::<StatefulSet>("db", patch).await;
    world.pass(5).await;
    settle(&world, 3, 1).await;
    let images: Vec<String> = world.list::<Pod>().await.iter().map(|pod| image(pod)).collect();
    assert_eq!(images, ["v1", "v1", "v2"]);
    // Below the partition a pod comes back as it was.
    world.delete::<Pod>("db-0").await;
    world.pass(5).await;
    assert_eq!(image(&world.get::<Pod>("db-0").await.unwrap()), "v1");

    let whole = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    world.patch::<StatefulSet>("db", whole).await;
    world.pass(5).await;
    settle(&world, 3, 3).await;
    let status = world.get::<StatefulSet>("db").await.unwrap().status.clone().unwrap();
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(world.list::<ControllerRevision>().await.len(), 2);
}

/// Whether the set owns a claim; none if there is no such claim.
async fn owned(world: &World, claim: &str) -> Option<bool> {
    let set = world.get::<StatefulSet>("db").await?;
    let claim = world.get::<PersistentVolumeClaim>(claim).await?;
    let mut owners = claim.metadata.owner_references.iter().flatten();
    Some(owners.any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref()))
}

#[tokio::test(start_paused = true)]
async fn claims_are_kept_or_not_as_the_policy_says() {
    let world = World::start(|informers| vec![stateful_set(informers)]);
    let mut db = set(3);
    db["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "other",
        "controller": true});
    let other =
        json!({"metadata": {"name": "data-db-1", "ownerReferences": [foreign]}, "spec": {}});
    world.create::<PersistentVolumeClaim>(other).await;
    world.create::<StatefulSet>(db).await;
    settle(&world, 3, 3).await;
    assert_eq!(owned(&world, "data-db-0").await, Some(true));
    assert_eq!(owned(&world, "data-db-1").await, Some(false), "it is somebody else's");
    assert_eq!(owned(&world, "data-db-2").await, Some(true));
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    let policy = |deleted: &str, scaled: &str| {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}})
    };
    world.patch::<StatefulSet>("db", policy("Retain", "Delete")).await;
    world.pass(5).await;
    assert_eq!(owned(&world, "data-db-0").await, Some(false));
    assert_eq!(owned(&world, "data-db-2").await, Some(false));
    world.patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}})).await;
    settle(&world, 1, 1).await;
    assert_eq!(owned(&world, "data-db-2").await, None, "it went with its pod");
    world.patch::<StatefulSet>("db", policy("Delete", "Delete")).await;
    world.pass(5).await;
    assert_eq!(owned(&world, "data-db-0").await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_set_tells_of_its_pods_and_claims_in_its_own_words() {
    let world = World::start(|informers| vec![stateful_set(informers)]);
    world.create::<StatefulSet>(set(1)).await;
    settle(&world, 1, 1).await;
    world.patch::<StatefulSet>("db", json!({"spec": {"replicas": 0}})).await;
    settle(&world, 0, 0).await;
    world.hears("db", "SuccessfulDelete").await;
    let mut told = world.told("db").await;
    told.sort();
    let told: Vec<_> =
        told.iter().map(|(_, reason, text)| (reason.as_str(), text.as_str())).collect();
    assert_eq!(
        told,
        [
            ("SuccessfulCreate", "create Claim data-db-0 Pod db-0 in StatefulSet db success"),
            ("SuccessfulCreate", "create Pod db-0 in StatefulSet db successful"),
            ("SuccessfulDelete", "delete Pod db-0 in StatefulSet db successful"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_down_as_many_as_may_be_unavailable() {
    let world = World::start(|informers| vec![stateful_set(informers)]);
    let mut six = set(6);
    let rolling = json!({"partition": 1, "maxUnavailable": "50%"});
    six["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    six["spec"]["podManagementPolicy"] = json!("Parallel");
    world.create::<StatefulSet>(six).await;
    settle(&world, 6, 6).await;
    // New pods do not become ready: three of six are gone for, and no more.
    world.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    world.patch::<StatefulSet>("db", json!({"spec": {"template": template("db", "v2")}})).await;
    world.pass(60).await;
    let versions = async |world: &World| {
        world.list::<Pod>().await.iter().map(|pod| image(pod)).collect::<Vec<_>>()
    };
    assert_eq!(versions(&world).await, ["v1", "v1", "v1", "v2", "v2", "v2"]);
    world.ready.store(true, std::sync::atomic::Ordering::Relaxed);
    world
        .eventually("all above the partition are new", async |world| {
            (versions(world).await == ["v1", "v2", "v2", "v2", "v2", "v2"]).then_some(())
        })
        .await;
    let writes = world.writes();
    world.pass(600).await;
    assert!(world.writes() - writes < 20);
}

#[tokio::test(start_paused = true)]
async fn a_hash_that_is_taken_is_counted_and_another_is_made() {
    let world = World::start(|informers| vec![stateful_set(informers), daemon_set(informers)]);
    world.create::<StatefulSet>(set(1)).await;
    settle(&world, 1, 1).await;
    let first = world.list::<ControllerRevision>().await.remove(0);
    let name = first.metadata.name.clone().unwrap();
    world.delete::<StatefulSet>("db").await;
    world.pass(60).await;
    // The name is somebody else's by now.
    world.delete::<ControllerRevision>(&name).await;
    let other = json!({"metadata": {"name": name}, "data": {"other": true}, "revision": 1});
    world.create::<ControllerRevision>(other).await;
    for pod in world.list::<Pod>().await {
        world.delete::<Pod>(pod.metadata.name.as_deref().unwrap()).await;
    }
    world.create::<StatefulSet>(set(1)).await;
    settle(&world, 1, 1).await;
    let status = world.get::<StatefulSet>("db").await.unwrap().status.clone().unwrap();
    assert_eq!(status.collision_count, Some(1));
    assert_ne!(status.update_revision, Some(name));
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    // A daemon set as well; it writes the count before it tries again.
    world.create_cluster::<Node>(json!({"metadata": {"name": "node-1"}})).await;
    let agent = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "v1")}});
    world.create::<DaemonSet>(agent.clone()).await;
    let of_agent = async |world: &World| {
        let all = world.list::<ControllerRevision>().await;
        let names = all.iter().filter_map(|revision| revision.metadata.name.clone());
        names.filter(|name| name.starts_with("agent-")).collect::<Vec<_>>()
    };
    let name = world.eventually("a revision", async |world| of_agent(world).await.pop()).await;
    world.delete::<DaemonSet>("agent").await;
    world.pass(60).await;
    world.delete::<ControllerRevision>(&name).await;
    let other = json!({"metadata": {"name": name}, "data": {"other": true}, "revision": 1});
    world.create::<ControllerRevision>(other).await;
    world.create::<DaemonSet>(agent).await;
    world
        .eventually("two revisions", async |world| {
            let set = world.get::<DaemonSet>("agent").await?;
            let count = set.status.as_ref()?.collision_count;
            (count == Some(1) && of_agent(world).await.len() == 2).then_some(())
        })
        .await;
}
