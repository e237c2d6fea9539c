//! Source: `test/e2e/apps/disruption.go`.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::Pod,
    policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    replica_set::replica_set,
    running::{is_ready, phase, selected},
    world::{MINUTE, World, eventually, gone, object, pod_template, update},
};

fn min_available(budget: &PodDisruptionBudget) -> Value {
    json!(budget.spec.as_ref().and_then(|spec| spec.min_available.clone()))
}

/// Waits until the controller has seen the newest generation.
async fn processed(api: &Api<PodDisruptionBudget>, name: &str) {
    eventually(&format!("{name} is processed"), MINUTE, async || {
        let budget = api.get(name).await.expect("there");
        let seen = budget.status.as_ref().and_then(|status| status.observed_generation);
        (seen >= budget.metadata.generation).then_some(())
    })
    .await;
}

async fn create(api: &Api<PodDisruptionBudget>, name: &str, available: Value, labels: Value) {
    let budget = object(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "minAvailable": available},
    }));
    api.create(&PostParams::default(), &budget).await.expect("it is created");
    processed(api, name).await;
}

#[tokio::test(start_paused = true)]
async fn should_list_and_delete_a_collection_of_poddisruptionbudgets() {
    let world = World::start(0).await;
    let (own, labels) = (world.api::<PodDisruptionBudget>(), json!({"foo_pdb": "bar_pdb"}));
    create(&own, "foo", json!(2), labels.clone()).await;
    create(&own, "foo2", json!("1%"), labels.clone()).await;
    let elsewhere = world.new_namespace().await;
    let other: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), &elsewhere);
    create(&other, "foo3", json!(2), labels).await;

    let selected = ListParams::default().labels("foo_pdb=bar_pdb");
    let everywhere: Api<PodDisruptionBudget> = Api::all(world.client.clone());
    let names = async |api: &Api<PodDisruptionBudget>| -> Vec<String> {
        let listed = api.list(&selected).await.expect("a list").items;
        let mut names: Vec<String> = listed.iter().map(|budget| budget.name_any()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&everywhere).await, ["foo", "foo2", "foo3"]);
    assert_eq!(names(&own).await, ["foo", "foo2"]);
    own.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("gone");
    eventually("the collection is gone", MINUTE, async || {
        names(&own).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(names(&everywhere).await, ["foo3"]);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_poddisruptionbudget() {
    let world = World::start(0).await;
    let api = world.api::<PodDisruptionBudget>();
    create(&api, "foo", json!("1%"), json!({"foo": "bar"})).await;
    let updated = update(&api, "foo", |budget: &mut PodDisruptionBudget| {
        let spec = budget.spec.as_mut().expect("a spec");
        spec.min_available = object(json!("2%"));
    })
    .await;
    assert_eq!(min_available(&updated), "2%");
    processed(&api, "foo").await;
    let patch = Patch::Merge(json!({"spec": {"minAvailable": "3%"}}));
    let patched = api.patch("foo", &PatchParams::default(), &patch).await.expect("it is patched");
    assert_eq!(min_available(&patched), "3%");
    processed(&api, "foo").await;
    api.delete("foo", &DeleteParams::default()).await.expect("it is deleted");
    gone(&api, "foo", MINUTE).await;
    world.shutdown().await;
}

/// Creates pods of the budget's selector that nobody controls.
async fn create_pods(world: &World, count: usize) {
    for number in 0..count {
        let mut pod = pod_template(&json!({"foo": "bar"}));
        pod["metadata"]["name"] = json!(format!("pod-{number}"));
        pod["spec"]["restartPolicy"] = json!("Always");
        world.create::<Pod>(pod).await;
    }
}

/// Waits until at least so many pods are Ready.
async fn pods_are_ready(world: &World, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods are Ready"), 10 * MINUTE, async || {
        let mut pods = selected(&world.api::<Pod>(), "foo=bar").await;
        pods.retain(is_ready);
        (pods.len() >= count).then_some(pods)
    })
    .await
}

/// A pod that runs and that nobody has deleted.
async fn running_pod(world: &World) -> String {
    let found = pods_are_ready(world, 1).await;
    let runs = |pod: &&Pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none();
    found.iter().find(runs).expect("a pod that runs").name_any()
}

/// Waits until the budget counts so many healthy pods and so many wanted ones.
async fn counts(world: &World, healthy: i32, wanted: i32) {
    eventually(&format!("{healthy} healthy pods of {wanted}"), MINUTE, async || {
        let budget = world.api::<PodDisruptionBudget>().get("foo").await.expect("there");
        let generation = budget.metadata.generation;
        let status = budget.status.filter(|status| status.observed_generation == generation)?;
        ((status.current_healthy, status.desired_healthy) == (Some(healthy), Some(wanted)))
            .then_some(())
    })
    .await;
}

/// The budget forbids the eviction, and is named as the cause.
async fn cannot_evict(world: &World, pod: &str) {
    let refused = world.api::<Pod>().evict(pod, &EvictParams::default()).await;
    let Err(kube::Error::Api(status)) = refused else { panic!("it was evicted: {refused:?}") };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(status.message, message);
    let causes = status.details.expect("details").causes;
    assert!(causes.iter().any(|cause| cause.reason == "DisruptionBudget"), "{causes:?}");
}

async fn evict(world: &World, pod: &str) {
    let evicted = world.api::<Pod>().evict(pod, &EvictParams::default()).await;
    evicted.expect("it is evicted");
}

#[tokio::test(start_paused = true)]
async fn should_observe_poddisruptionbudget_status_updated() {
    let world = World::start(1).await;
    let api = world.api::<PodDisruptionBudget>();
    create(&api, "foo", json!(1), json!({"foo": "bar"})).await;
    create_pods(&world, 3).await;
    pods_are_ready(&world, 3).await;
    let status = eventually("a disruption is allowed", MINUTE, async || {
        let status = api.get("foo").await.expect("there").status?;
        (status.disruptions_allowed > Some(0)).then_some(status)
    })
    .await;
    let conditions = status.conditions.unwrap_or_default();
    let allowed = conditions.iter().find(|condition| condition.type_ == "DisruptionAllowed");
    let allowed = allowed.expect("a condition");
    assert_eq!((allowed.status.as_str(), allowed.reason.as_str()), ("True", "SufficientPods"));
    world.shutdown().await;
}

/// Changes the status, again if the controller was faster.
async fn update_status(
    api: &Api<PodDisruptionBudget>,
    change: impl Fn(&mut PodDisruptionBudgetStatus),
) {
    loop {
        let mut budget = api.get("foo").await.expect("there");
        change(budget.status.as_mut().expect("a status"));
        match api.replace_status("foo", &PostParams::default(), &budget).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("not updated: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn should_update_patch_poddisruptionbudget_status() {
    let world = World::start(1).await;
    let api = world.api::<PodDisruptionBudget>();
    create(&api, "foo", json!(1), json!({"foo": "bar"})).await;
    create_pods(&world, 1).await;
    pods_are_ready(&world, 1).await;
    let pod = running_pod(&world).await;
    // The controller keeps what is said of a pod that is there.
    let now = world.cluster.environment().clock.now().to_string();
    update_status(&api, |status| {
        status.disrupted_pods = Some(object(json!({pod.clone(): now})));
    })
    .await;
    let disrupted = async || {
        let status = api.get_status("foo").await.expect("it is read").status.expect("a status");
        status.disrupted_pods.unwrap_or_default()
    };
    assert!(disrupted().await.contains_key(&pod));
    let patch = Patch::Merge(json!({"status": {"disruptedPods": {pod: null}}}));
    let patched = api.patch_status("foo", &PatchParams::default(), &patch).await;
    let status = patched.expect("it is patched").status.expect("a status");
    assert_eq!(status.disrupted_pods.unwrap_or_default().len(), 0);
    assert_eq!(disrupted().await.len(), 0);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_block_an_eviction_until_the_pdb_is_updated_to_allow_it() {
    let world = World::start(1).await;
    let api = world.api::<PodDisruptionBudget>();
    create(&api, "foo", json!(3), json!({"foo": "bar"})).await;
    world.create::<ReplicaSet>(replica_set("rs", 3, &json!({"foo": "bar"}))).await;
    pods_are_ready(&world, 3).await;
    let pod = running_pod(&world).await;
    cannot_evict(&world, &pod).await;
    update(&api, "foo", |budget: &mut PodDisruptionBudget| {
        budget.spec.as_mut().expect("a spec").min_available = object(json!(2));
    })
    .await;
    pods_are_ready(&world, 3).await;
    counts(&world, 3, 2).await;
    evict(&world, &pod).await;

    let patch = Patch::Merge(json!({"spec": {"minAvailable": null, "maxUnavailable": 0}}));
    api.patch("foo", &PatchParams::default(), &patch).await.expect("it is patched");
    gone(&world.api::<Pod>(), &pod, MINUTE).await;
    pods_are_ready(&world, 3).await;
    let pod = running_pod(&world).await;
    cannot_evict(&world, &pod).await;
    api.delete("foo", &DeleteParams::default()).await.expect("it is deleted");
    gone(&api, "foo", MINUTE).await;
    pods_are_ready(&world, 3).await;
    evict(&world, &pod).await;
    world.shutdown().await;
}
