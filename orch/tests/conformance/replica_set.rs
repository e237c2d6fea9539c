//! Source: `test/e2e/apps/replica_set.go`.

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{POD_START, all_run, ready, selected},
    status_endpoints,
    watching::{Watching, version},
    world::{MINUTE, World, eventually, patch, pod_template, update},
};

const NAME: &str = "test-rs";
const SELECTOR: &str = "name=sample-pod,pod=httpd";

fn pod_labels() -> Value {
    json!({"name": "sample-pod", "pod": "httpd"})
}

/// A ReplicaSet whose own labels are those of its pods.
pub(crate) fn replica_set(name: &str, replicas: i32, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": pod_template(labels),
        },
    })
}

/// Creates one of so many replicas, and waits until they run.
async fn created(world: &World, replicas: i32) -> ReplicaSet {
    let set = world.create(replica_set(NAME, replicas, &pod_labels())).await;
    let count = usize::try_from(replicas).expect("a number of pods");
    all_run(&world.api(), "name=sample-pod", count).await;
    set
}

fn replicas(set: &ReplicaSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

#[tokio::test(start_paused = true)]
async fn should_adopt_matching_pods_on_creation_and_release_no_longer_matching_pods() {
    let (world, name) = (World::start(1).await, "pod-adoption-release");
    let pods: Api<Pod> = world.api();
    let labels = json!({"name": name});
    let mut orphan = pod_template(&labels);
    orphan["metadata"]["name"] = json!(name);
    world.create::<Pod>(orphan).await;
    ready(&pods, name).await;
    let set: ReplicaSet = world.create(replica_set(name, 1, &labels)).await;
    let is_owned = |pod: &Pod| {
        let ours = |uid: &String| Some(uid) == set.uid().as_ref();
        pod.owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && ours(&owner.uid))
    };
    eventually("the orphan is adopted", MINUTE, async || {
        is_owned(&pods.get(name).await.expect("there")).then_some(())
    })
    .await;
    update(&pods, name, |pod: &mut Pod| {
        pod.labels_mut().insert("name".to_owned(), "not-matching-name".to_owned());
    })
    .await;
    eventually("the pod is released", MINUTE, async || {
        (!is_owned(&pods.get(name).await.expect("there"))).then_some(())
    })
    .await;
    all_run(&pods, &format!("name={name}"), 1).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn replicaset_should_have_a_working_scale_subresource() {
    let world = World::start(1).await;
    created(&world, 1).await;
    let sets: Api<ReplicaSet> = world.api();
    let mut scale = eventually("the replica is counted", MINUTE, async || {
        let scale = sets.get_scale(NAME).await.expect("a scale");
        (scale.status.as_ref()?.replicas == 1).then_some(scale)
    })
    .await;
    assert_eq!(scale.spec.as_ref().and_then(|spec| spec.replicas), Some(1));
    scale.metadata.resource_version = None;
    scale.spec.as_mut().expect("a spec").replicas = Some(2);
    let scaled = sets.replace_scale(NAME, &PostParams::default(), &scale).await.expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(2));
    assert_eq!(replicas(&sets.get(NAME).await.expect("there")), Some(2));
    let four = Patch::Strategic(json!({"spec": {"replicas": 4}}));
    sets.patch_scale(NAME, &PatchParams::default(), &four).await.expect("it is patched");
    assert_eq!(replicas(&sets.get(NAME).await.expect("there")), Some(4));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn replace_and_patch_tests() {
    let (world, image) = (World::start(1).await, "registry.example/pause:v1");
    let sets: Api<ReplicaSet> = world.api();
    let before = version(&sets).await;
    let set = created(&world, 1).await;
    update(&sets, NAME, |set: &mut ReplicaSet| {
        set.spec.as_mut().expect("a spec").replicas = Some(2);
    })
    .await;
    // The container has another name than the one that is there: it comes before that one.
    let container = json!({"name": NAME, "image": image});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    let changes = json!({
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": spec}},
    });
    let patched = patch(&sets, NAME, changes).await;
    let number = |set: &ReplicaSet| set.resource_version().and_then(|v| v.parse::<u64>().ok());
    assert!(number(&set) < number(&patched));
    let is_wanted = |set: &ReplicaSet| {
        let (Some(spec), Some(status)) = (&set.spec, &set.status) else { return false };
        let Some(pod) = spec.template.as_ref().and_then(|t| t.spec.as_ref()) else { return false };
        set.name_any() == NAME
            && (status.ready_replicas, status.available_replicas) == (Some(3), Some(3))
            && pod.containers[0].image.as_deref() == Some(image)
            && pod.termination_grace_period_seconds == Some(0)
    };
    let mut watching = Watching::labelled(&sets, "test-rs=patched", &before).await;
    watching.until("three replicas", POD_START, |_, set| is_wanted(set)).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_list_and_delete_a_collection_of_replicasets() {
    let world = World::start(1).await;
    let labels = json!({"name": "sample-pod", "pod": "httpd", "e2e": "value"});
    world.create::<ReplicaSet>(replica_set(NAME, 3, &labels)).await;
    all_run(&world.api(), "name=sample-pod", 3).await;
    let everywhere: Api<ReplicaSet> = Api::all(world.client.clone());
    assert_eq!(selected(&everywhere, "e2e=value").await.len(), 1);
    let params = DeleteParams::default().grace_period(1);
    let own = ListParams::default().labels("e2e=value");
    world.api::<ReplicaSet>().delete_collection(&params, &own).await.expect("they are deleted");
    assert_eq!(selected(&everywhere, "e2e=value").await.len(), 0);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_validate_replicaset_status_endpoints() {
    let world = World::start(1).await;
    let sets: Api<ReplicaSet> = world.api();
    let before = version(&sets).await;
    created(&world, 1).await;
    status_endpoints::check(&sets, NAME, SELECTOR, &before).await;
    world.shutdown().await;
}
