//! Source: `test/e2e/apimachinery/garbage_collector.go`.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, ReplicationController},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::world::{
    MINUTE, World, delete, eventually, gone, patch, pod_template, replication_controller,
};

/// Upstream takes what its cluster has room for, between 10 and 100.
const REPLICAS: i32 = 40;

async fn create_rc(world: &World, name: &str, replicas: i32) -> ReplicationController {
    let labels = json!({"gctest": name});
    world.create(replication_controller(name, replicas, &labels)).await
}

/// Waits until the controller has counted all of its pods.
async fn replicas_exist(world: &World, rc: &ReplicationController) {
    let wanted = rc.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    eventually("all pods are counted", 2 * MINUTE, async || {
        let rc = world.api::<ReplicationController>().get(&rc.name_any()).await.expect("there");
        (rc.status?.replicas == wanted).then_some(())
    })
    .await;
}

fn deployment(labels: &Value) -> Value {
    json!({
        "metadata": {"name": "simpletest.deployment"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": pod_template(labels),
        },
    })
}

async fn replica_set(world: &World) -> ReplicaSet {
    eventually("the deployment has a replica set", MINUTE, async || {
        let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.expect("a list");
        sets.items.into_iter().next()
    })
    .await
}

async fn pods(world: &World) -> Vec<Pod> {
    world.api::<Pod>().list(&ListParams::default()).await.expect("a list").items
}

#[tokio::test(start_paused = true)]
async fn should_delete_pods_created_by_rc_when_not_orphaning() {
    let world = World::start(1).await;
    let rc = create_rc(&world, "simpletest.rc", 2).await;
    eventually("some pods exist", MINUTE / 2, async || {
        (!pods(&world).await.is_empty()).then_some(())
    })
    .await;
    delete(&world.api(), &rc, DeleteParams::background()).await;
    eventually("all pods are collected", 2 * MINUTE, async || {
        let left = world.count::<ReplicationController>().await + pods(&world).await.len();
        (left == 0).then_some(())
    })
    .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_orphan_pods_created_by_rc_if_delete_options_say_so() {
    let world = World::start(2).await;
    let rc = create_rc(&world, "simpletest.rc", REPLICAS).await;
    replicas_exist(&world, &rc).await;
    delete(&world.api(), &rc, DeleteParams::orphan()).await;
    gone(&world.api::<ReplicationController>(), &rc.name_any(), 3 * MINUTE).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let left = pods(&world).await;
    assert_eq!(left.len(), REPLICAS as usize);
    assert!(left.iter().all(|pod| pod.owner_references().is_empty()));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_delete_rs_created_by_deployment_when_not_orphaning() {
    let world = World::start(1).await;
    let created: Deployment = world.create(deployment(&json!({"gctest": "delete-rs"}))).await;
    replica_set(&world).await;
    delete(&world.api(), &created, DeleteParams::background()).await;
    eventually("everything is collected", 2 * MINUTE, async || {
        let left = world.count::<Deployment>().await
            + world.count::<ReplicaSet>().await
            + world.count::<Pod>().await;
        (left == 0).then_some(())
    })
    .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_orphan_rs_created_by_deployment_when_deleteoptions_propagationpolicy_is_orphan() {
    let world = World::start(1).await;
    let created: Deployment = world.create(deployment(&json!({"gctest": "orphan-rs"}))).await;
    let set = replica_set(&world).await;
    eventually("the replica set has its pods", MINUTE, async || {
        let set = world.api::<ReplicaSet>().get(&set.name_any()).await.expect("there");
        let (wanted, status) = (set.spec?.replicas?, set.status?);
        let seen = status.observed_generation >= set.metadata.generation;
        (seen && status.replicas == wanted).then_some(())
    })
    .await;
    delete(&world.api(), &created, DeleteParams::orphan()).await;
    gone(&world.api::<Deployment>(), &created.name_any(), 2 * MINUTE).await;
    // Once it is gone, the collector has done what it had to.
    let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.expect("a list").items;
    assert_eq!((sets.len(), pods(&world).await.len()), (1, 2));
    for set in sets {
        let owners = set.owner_references();
        assert!(owners.iter().all(|owner| owner.controller != Some(true)), "{owners:?}");
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_rc_around_until_all_its_pods_are_deleted_if_the_deleteoptions_says_so() {
    let world = World::start(2).await;
    let rc = create_rc(&world, "simpletest.rc", REPLICAS).await;
    replicas_exist(&world, &rc).await;
    delete(&world.api(), &rc, DeleteParams::foreground()).await;
    gone(&world.api::<ReplicationController>(), &rc.name_any(), 2 * MINUTE).await;
    assert_eq!(pods(&world).await.len(), 0, "they went first");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_not_delete_dependents_that_have_both_valid_owner_and_owner_thats_waiting_for_dependents_to_be_deleted()
 {
    let world = World::start(2).await;
    let going = create_rc(&world, "simpletest-rc-to-be-deleted", REPLICAS).await;
    let staying = create_rc(&world, "simpletest-rc-to-stay", 0).await;
    replicas_exist(&world, &going).await;
    let half = (REPLICAS / 2) as usize;
    for pod in pods(&world).await.into_iter().take(half) {
        let owner = json!({"apiVersion": "v1", "kind": "ReplicationController",
            "name": staying.name_any(), "uid": staying.uid()});
        let owners = json!({"metadata": {"ownerReferences": [owner]}});
        let patched = patch(&world.api::<Pod>(), &pod.name_any(), owners).await;
        assert_eq!(patched.owner_references().len(), 2, "a strategic patch adds the owner");
    }
    delete(&world.api(), &going, DeleteParams::foreground()).await;
    gone(&world.api::<ReplicationController>(), &going.name_any(), MINUTE * 3 / 2).await;
    let left = pods(&world).await;
    assert_eq!(left.len(), half);
    for pod in left {
        assert_eq!(pod.metadata.deletion_timestamp, None);
        assert_eq!(pod.owner_references().len(), 1, "{:?}", pod.owner_references());
        assert_eq!(pod.owner_references()[0].uid, staying.uid().expect("a uid"));
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_not_be_blocked_by_dependency_circle() {
    let world = World::start(1).await;
    let mut created = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let mut pod = pod_template(&json!({}));
        pod["metadata"]["name"] = json!(name);
        created.push(world.create::<Pod>(pod).await);
    }
    for (owned, owner) in [(0, 2), (1, 0), (2, 1)] {
        let owner: &Pod = &created[owner];
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": owner.name_any(),
            "uid": owner.uid(), "controller": true, "blockOwnerDeletion": true});
        let owners = json!({"metadata": {"ownerReferences": [owner]}});
        patch(&world.api::<Pod>(), &created[owned].name_any(), owners).await;
    }
    delete(&world.api(), &created[0], DeleteParams::foreground()).await;
    eventually("the whole circle is gone", MINUTE * 5 / 2, async || {
        pods(&world).await.is_empty().then_some(())
    })
    .await;
    world.shutdown().await;
}
