//! Source: `test/e2e/apps/rc.go`.

use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ResourceQuota,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    running::{POD_START, ready, selected},
    watching::{Change, Watching, version},
    world::{MINUTE, World, eventually, patch, pod_template, replication_controller, update},
};

async fn counted(world: &World, name: &str, wanted: i32) {
    eventually(&format!("{wanted} replicas are counted"), MINUTE, async || {
        let rc = world.api::<ReplicationController>().get(name).await.expect("there");
        (rc.status?.replicas == wanted).then_some(())
    })
    .await;
}

/// The condition that says why there are not as many pods as there should be.
fn failure(rc: &ReplicationController) -> Option<&ReplicationControllerCondition> {
    let conditions = rc.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")
}

/// Waits until the controller has seen the newest generation and the check holds.
async fn observed<T>(
    world: &World,
    name: &str,
    what: &str,
    check: impl Fn(&ReplicationController) -> Option<T>,
) -> T {
    eventually(what, MINUTE, async || {
        let rc = world.api::<ReplicationController>().get(name).await.expect("there");
        let seen = rc.status.as_ref().and_then(|status| status.observed_generation);
        if seen < rc.metadata.generation { None } else { check(&rc) }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn should_surface_a_failure_condition_on_a_common_issue_like_exceeded_quota() {
    let (world, name) = (World::start(1).await, "condition-test");
    let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"pods": "2"}}});
    world.create::<ResourceQuota>(quota).await;
    let quotas: Api<ResourceQuota> = world.api();
    eventually("the quota is calculated", MINUTE, async || {
        let hard = quotas.get(name).await.expect("there").status?.hard?;
        (hard.get("pods")?.0 == "2").then_some(())
    })
    .await;
    let labels = json!({"name": name});
    world.create::<ReplicationController>(replication_controller(name, 3, &labels)).await;
    let condition = observed(&world, name, "the failure is told", |rc| failure(rc).cloned()).await;
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("True", Some("FailedCreate"))
    );
    let message = condition.message.expect("a message");
    let wanted = "exceeded quota: condition-test, requested: pods=1, used: pods=2, limited: pods=2";
    assert!(message.ends_with(wanted), "{message}");

    update(&world.api(), name, |rc: &mut ReplicationController| {
        rc.spec.as_mut().expect("a spec").replicas = Some(2);
    })
    .await;
    observed(&world, name, "nothing fails", |rc| failure(rc).is_none().then_some(())).await;
    assert_eq!(world.count::<Pod>().await, 2);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_release_no_longer_matching_pods() {
    let (world, name) = (World::start(1).await, "pod-release");
    let labels = json!({"name": name});
    let rc: ReplicationController = world.create(replication_controller(name, 1, &labels)).await;
    let pods: Api<Pod> = world.api();
    let pod = eventually("it has a pod", MINUTE, async || {
        let matching = ListParams::default().labels("name=pod-release");
        pods.list(&matching).await.expect("a list").items.into_iter().next()
    })
    .await
    .name_any();
    update(&pods, &pod, |pod: &mut Pod| {
        pod.labels_mut().insert("name".to_owned(), "not-matching-name".to_owned());
    })
    .await;
    eventually("the pod is released", MINUTE, async || {
        let pod = pods.get(&pod).await.expect("there");
        let owned =
            pod.owner_references().iter().any(|owner| Some(&owner.uid) == rc.uid().as_ref());
        (!owned).then_some(())
    })
    .await;
    eventually("another one takes its place", MINUTE, async || {
        (world.count::<Pod>().await == 2).then_some(())
    })
    .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_get_and_update_a_replicationcontroller_scale() {
    let (world, name) = (World::start(1).await, "e2e-rc");
    let labels = json!({"name": name});
    world.create::<ReplicationController>(replication_controller(name, 1, &labels)).await;
    counted(&world, name, 1).await;
    let api: Api<ReplicationController> = world.api();
    let mut scale = api.get_scale(name).await.expect("a scale");
    assert_eq!(scale.status.as_ref().map(|status| status.replicas), Some(1));
    scale.metadata.resource_version = None;
    scale.spec.as_mut().expect("a spec").replicas = Some(2);
    let scaled =
        api.replace_scale(name, &PostParams::default(), &scale).await.expect("it is scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(2));
    counted(&world, name, 2).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_adopt_matching_pods_on_creation() {
    let (world, name) = (World::start(1).await, "pod-adoption");
    let (pods, labels) = (world.api::<Pod>(), json!({"name": name}));
    let mut orphan = pod_template(&labels);
    orphan["metadata"]["name"] = json!(name);
    world.create::<Pod>(orphan).await;
    ready(&pods, name).await;
    let rc: ReplicationController = world.create(replication_controller(name, 1, &labels)).await;
    eventually("the orphan is adopted", MINUTE, async || {
        let pod = pods.get(name).await.expect("there");
        let mut owners = pod.owner_references().iter();
        let owned = owners.any(|o| o.controller == Some(true) && Some(&o.uid) == rc.uid().as_ref());
        owned.then_some(())
    })
    .await;
    assert_eq!(world.count::<Pod>().await, 1);
    world.shutdown().await;
}

/// How many replicas there are, and how many of them are Ready.
fn replicas(rc: &ReplicationController) -> (i32, i32) {
    let status = rc.status.clone().unwrap_or_default();
    (status.replicas, status.ready_replicas.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn should_test_the_lifecycle_of_a_replicationcontroller() {
    let (world, name, selector) = (World::start(1).await, "rc-test", "test-rc-static=true");
    let api: Api<ReplicationController> = world.api();
    let labels = json!({"test-rc-static": "true"});
    let mut rc = replication_controller(name, 1, &labels);
    rc["metadata"]["labels"] = labels;
    let params = PatchParams::default();
    let mut watching = Watching::labelled(&api, selector, &version(&api).await).await;
    // The changes are looked through in order, each once.
    let modified = |change, _: &ReplicationController| change == Change::Modified;

    world.create::<ReplicationController>(rc).await;
    assert_eq!(watching.next().await.0, Change::Added);
    watching.until("a replica is Ready", POD_START, |_, rc| replicas(rc) == (1, 1)).await;
    let patched = patch(&api, name, json!({"metadata": {"labels": {"test-rc": "patched"}}})).await;
    assert_eq!(patched.labels().get("test-rc").map(String::as_str), Some("patched"));
    watching.until("it is modified", MINUTE, modified).await;

    let none = Patch::Strategic(json!({"status": {"readyReplicas": 0, "availableReplicas": 0}}));
    let patched = api.patch_status(name, &params, &none).await.expect("it is patched");
    assert_eq!(replicas(&patched), (1, 0));
    watching.until("it is modified", MINUTE, modified).await;
    watching.until("the replica is counted", POD_START, |_, rc| replicas(rc).0 == 1).await;
    let current = api.get_status(name).await.expect("the status is read");
    assert_eq!(replicas(&current).0, 1);

    let two = Patch::Strategic(json!({"spec": {"replicas": 2}}));
    api.patch_scale(name, &params, &two).await.expect("it is scaled");
    watching.until("it is modified", POD_START, modified).await;
    watching.until("two replicas are Ready", POD_START, |_, rc| replicas(rc) == (2, 2)).await;
    let mut current = api.get(name).await.expect("there");
    assert_eq!(current.labels().get("test-rc").map(String::as_str), Some("patched"));
    let status = current.status.as_mut().expect("a status");
    (status.available_replicas, status.ready_replicas) = (Some(1), Some(1));
    let replaced = api.replace_status(name, &PostParams::default(), &current).await;
    replaced.expect("the status is replaced");
    watching.until("it is modified", MINUTE, modified).await;

    let everywhere: Api<ReplicationController> = Api::all(world.client.clone());
    let found = selected(&everywhere, selector).await;
    let is_ours = |rc: &ReplicationController| {
        rc.name_any() == name && rc.labels().get("test-rc").is_some_and(|value| value == "patched")
    };
    assert!(found.iter().any(is_ours), "{found:?}");
    let own = ListParams::default().labels(selector);
    api.delete_collection(&DeleteParams::default(), &own).await.expect("they are deleted");
    watching.until("it is deleted", MINUTE, |change, _| change == Change::Deleted).await;
    world.shutdown().await;
}
