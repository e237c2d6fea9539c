//! Source: `test/e2e/apps/statefulset.go`, `test/e2e/framework/statefulset/`.
//!
//! Upstream's containers serve HTTP and are probed; here the runtime's script answers the probe.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Service},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{image_of, is_ready, phase, selected},
    status_endpoints,
    watching::version,
    world::{MINUTE, World, eventually, gone, patch, update},
};

const OLD: &str = "registry.example/httpd:v1";
const NEW: &str = "registry.example/httpd:v2";
const REVISION: &str = "controller-revision-hash";
const LABELS: [(&str, &str); 2] = [("foo", "bar"), ("baz", "blah")];
const SELECTOR: &str = "foo=bar,baz=blah";

/// A set with a probe, under the governing Service `test`.
fn stateful_set(name: &str, replicas: i32, labels: &Value) -> Value {
    let container = json!({
        "name": "webserver", "image": OLD,
        "readinessProbe": {
            "httpGet": {"path": "/index.html", "port": 80},
            "periodSeconds": 1, "successThreshold": 1, "failureThreshold": 1,
        },
    });
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels}, "replicas": replicas, "serviceName": "test",
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

fn labels() -> Value {
    LABELS.into_iter().collect()
}

/// A cluster with the governing Service.
async fn start() -> World {
    let world = World::start(2).await;
    let spec = json!({
        "clusterIP": "None", "selector": labels(),
        "ports": [{"port": 80, "name": "http", "protocol": "TCP"}],
    });
    let service = json!({"metadata": {"name": "test", "labels": labels()}, "spec": spec});
    world.create::<Service>(service).await;
    world
}

/// The pods in the order of their ordinals.
async fn pods(world: &World, selector: &str) -> Vec<Pod> {
    let mut pods = selected(&world.api::<Pod>(), selector).await;
    pods.sort_by_key(|pod| {
        let name = pod.name_any();
        name.rsplit('-').next().and_then(|ordinal| ordinal.parse::<u32>().ok())
    });
    pods
}

/// Waits until there are so many pods, they run, and they are Ready.
async fn run_and_are_ready(world: &World, selector: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods run and are Ready"), 10 * MINUTE, async || {
        let pods = pods(world, selector).await;
        let all = pods.iter().all(|pod| phase(pod) == "Running" && is_ready(pod));
        (pods.len() == count && all).then_some(pods)
    })
    .await
}

/// Waits until the controller has seen the newest generation.
async fn observed(world: &World, name: &str) -> StatefulSet {
    eventually(&format!("{name} is observed"), 10 * MINUTE, async || {
        let set = world.api::<StatefulSet>().get(name).await.expect("there");
        let seen = set.status.as_ref().and_then(|status| status.observed_generation);
        (seen >= set.metadata.generation).then_some(set)
    })
    .await
}

async fn created(world: &World, name: &str, labels: &Value, selector: &str) {
    world.create::<StatefulSet>(stateful_set(name, 1, labels)).await;
    run_and_are_ready(world, selector, 1).await;
    observed(world, name).await;
}

fn replicas(set: &StatefulSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

/// The current and the update revision.
fn revisions(set: &StatefulSet) -> (String, String) {
    let status = set.status.clone().expect("a status");
    (status.current_revision.expect("a revision"), status.update_revision.expect("a revision"))
}

fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(REVISION).map(String::as_str).unwrap_or_default()
}

/// The pods before the partition are as they were, and the others are as they should be.
fn check_split(pods: &[Pod], partition: usize, old: &str, new: &str) {
    for (ordinal, pod) in pods.iter().enumerate() {
        let (image, revision) = if ordinal < partition { (OLD, old) } else { (NEW, new) };
        assert_eq!((image_of(pod), revision_of(pod)), (image, revision), "{}", pod.name_any());
    }
}

async fn set_partition(world: &World, name: &str, partition: i32) {
    update(&world.api(), name, |set: &mut StatefulSet| {
        let strategy = set.spec.as_mut().and_then(|spec| spec.update_strategy.as_mut());
        let rolling = &mut strategy.expect("a strategy").rolling_update;
        rolling.get_or_insert_default().partition = Some(partition);
    })
    .await;
}

/// Waits until all pods from the partition on are updated, as the set tells of it too.
async fn updated_from(world: &World, name: &str, partition: usize) -> (StatefulSet, Vec<Pod>) {
    eventually(&format!("the pods from {partition} on are updated"), 10 * MINUTE, async || {
        let set = observed(world, name).await;
        let (current, update) = revisions(&set);
        let pods = pods(world, SELECTOR).await;
        let done = pods.len() == 3
            && pods[partition..].iter().all(|pod| revision_of(pod) == update && is_ready(pod))
            && (partition > 0 || current == update);
        done.then_some((set, pods))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn should_perform_canary_updates_and_phased_rolling_updates_of_template_modifications() {
    let (world, name) = (start().await, "ss2");
    let mut set = stateful_set(name, 3, &labels());
    set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"partition": 3});
    world.create::<StatefulSet>(set).await;
    let running = run_and_are_ready(&world, SELECTOR, 3).await;
    let (current, update_to) = revisions(&observed(&world, name).await);
    assert_eq!(current, update_to);
    assert!(running.iter().all(|pod| revision_of(pod) == current));

    update(&world.api(), name, |set: &mut StatefulSet| {
        let spec = set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        spec.expect("a spec").containers[0].image = Some(NEW.to_owned());
    })
    .await;
    let (old, new) = revisions(&observed(&world, name).await);
    assert_ne!(old, new);
    check_split(&run_and_are_ready(&world, SELECTOR, 3).await, 3, &old, &new);
    set_partition(&world, name, 2).await;
    let (_, updated) = updated_from(&world, name, 2).await;
    check_split(&updated, 2, &old, &new);

    let api: Api<Pod> = world.api();
    for ordinal in [0, 2] {
        let victim = format!("{name}-{ordinal}");
        api.delete(&victim, &DeleteParams::default()).await.expect("it is deleted");
    }
    eventually("the deleted pods have successors", 10 * MINUTE, async || {
        let pods = run_and_are_ready(&world, SELECTOR, 3).await;
        [0, 2].iter().all(|&i| pods[i].uid() != updated[i].uid()).then_some(())
    })
    .await;
    check_split(&pods(&world, SELECTOR).await, 2, &old, &new);
    for partition in [1, 0] {
        set_partition(&world, name, partition).await;
        let partition = usize::try_from(partition).expect("no negative number");
        let (set, pods) = updated_from(&world, name, partition).await;
        check_split(&pods, partition, &old, &new);
        if partition == 0 {
            assert_eq!(revisions(&set), (new.clone(), new.clone()));
        }
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_have_a_working_scale_subresource() {
    let (world, name) = (start().await, "ss");
    created(&world, name, &labels(), SELECTOR).await;
    let sets: Api<StatefulSet> = world.api();
    let mut scale = sets.get_scale(name).await.expect("a scale");
    assert_eq!(scale.spec.as_ref().and_then(|spec| spec.replicas), Some(1));
    assert_eq!(scale.status.as_ref().map(|status| status.replicas), Some(1));
    scale.metadata.resource_version = None;
    scale.spec.as_mut().expect("a spec").replicas = Some(2);
    let scaled = sets.replace_scale(name, &PostParams::default(), &scale).await.expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(2));
    assert_eq!(replicas(&sets.get(name).await.expect("there")), Some(2));
    let four = Patch::Strategic(json!({"spec": {"replicas": 4}}));
    sets.patch_scale(name, &PatchParams::default(), &four).await.expect("it is patched");
    assert_eq!(replicas(&sets.get(name).await.expect("there")), Some(4));
    run_and_are_ready(&world, SELECTOR, 4).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_list_patch_and_delete_a_collection_of_statefulsets() {
    let (world, name, image) = (start().await, "test-ss", "registry.example/pause:v1");
    let (labels, selector) = (json!({"name": "sample-pod", "pod": "httpd"}), "name=sample-pod");
    created(&world, name, &labels, selector).await;
    let sets: Api<StatefulSet> = world.api();
    // The container is a new one and comes first; a field in the wrong case is none.
    let container = json!({"name": name, "image": image});
    let spec = json!({"TerminationGracePeriodSeconds": 1, "containers": [container]});
    let changes = json!({
        "metadata": {"labels": {"test-ss": "patched"}},
        "spec": {"replicas": 2, "template": {"spec": spec}},
    });
    patch(&sets, name, changes).await;
    let set = sets.get(name).await.expect("there");
    assert_eq!(replicas(&set), Some(2));
    let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod's spec");
    assert_eq!(pod.containers[0].image.as_deref(), Some(image));
    run_and_are_ready(&world, selector, 2).await;
    observed(&world, name).await;

    let everywhere: Api<StatefulSet> = Api::all(world.client.clone());
    assert_eq!(selected(&everywhere, "test-ss=patched").await.len(), 1);
    let params = DeleteParams::default().grace_period(1);
    let own = ListParams::default().labels("test-ss=patched");
    sets.delete_collection(&params, &own).await.expect("they are deleted");
    assert_eq!(selected(&everywhere, "test-ss=patched").await.len(), 0);
    gone(&world.api::<Pod>(), "test-ss-0", 5 * MINUTE).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_validate_statefulset_status_endpoints() {
    let (world, name) = (start().await, "ss");
    let sets: Api<StatefulSet> = world.api();
    let before = version(&sets).await;
    created(&world, name, &labels(), SELECTOR).await;
    patch(&sets, name, json!({"metadata": {"labels": {"e2e": "testing"}}})).await;
    status_endpoints::check(&sets, name, "e2e=testing", &before).await;
    world.shutdown().await;
}
