//! Source: `test/e2e/apps/daemon_set.go`, `test/e2e/framework/daemonset/fixtures.go`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet},
    core::v1::Pod,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{image_of, is_ready, node_of, selected},
    status_endpoints,
    watching::version,
    world::{MINUTE, World, eventually, patch, update},
};

const NAME: &str = "daemon-set";
const SELECTOR: &str = "daemonset-name=daemon-set";
const COLOR: &str = "daemonset-color";
const OLD: &str = "registry.example/webserver:v1";
const NEW: &str = "registry.example/agnhost:v2";
const HASH: &str = "controller-revision-hash";

pub(crate) fn daemon_set(name: &str) -> Value {
    let labels = json!({"daemonset-name": name});
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [
                    {"name": "app", "image": OLD, "ports": [{"containerPort": 9376}]},
                ]},
            },
        },
    })
}

/// The pods of a set that nobody has deleted.
async fn pods_of(world: &World, name: &str) -> Vec<Pod> {
    let uid = world.api::<DaemonSet>().get(name).await.expect("there").uid();
    let mut pods = selected(&world.api::<Pod>(), &format!("daemonset-name={name}")).await;
    pods.retain(|pod| {
        let owned = pod.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref());
        owned && pod.metadata.deletion_timestamp.is_none()
    });
    pods
}

/// Waits until one pod is available on each of these nodes, and none elsewhere.
pub(crate) async fn runs_on(world: &World, name: &str, nodes: &[String]) {
    let wanted: BTreeMap<String, usize> = nodes.iter().map(|node| (node.clone(), 1)).collect();
    eventually(&format!("pods on {nodes:?}"), 5 * MINUTE, async || {
        let mut counts = BTreeMap::new();
        for pod in pods_of(world, name).await.iter().filter(|pod| is_ready(pod)) {
            *counts.entry(node_of(pod).to_owned()).or_default() += 1;
        }
        (counts == wanted).then_some(())
    })
    .await;
}

/// Waits until the set says that all its pods are there and Ready.
async fn counts_all(world: &World, name: &str, wanted: usize) {
    let wanted = i32::try_from(wanted).expect("a small number");
    eventually("the status counts all pods", MINUTE, async || {
        let status = world.api::<DaemonSet>().get(name).await.expect("there").status?;
        let counts =
            [status.desired_number_scheduled, status.current_number_scheduled, status.number_ready];
        (counts == [wanted; 3]).then_some(())
    })
    .await;
}

/// A cluster of three nodes with a set on all of them.
async fn started(labels: Value) -> (World, Vec<String>) {
    let world = World::start(3).await;
    let nodes = world.schedulable_nodes().await;
    let mut set = daemon_set(NAME);
    set["metadata"]["labels"] = labels;
    world.create::<DaemonSet>(set).await;
    runs_on(&world, NAME, &nodes).await;
    counts_all(&world, NAME, nodes.len()).await;
    (world, nodes)
}

/// The hash of the newest revision, which must be this one; every pod must bear it.
async fn revision(world: &World, wanted: i64) -> String {
    let wanted_count = usize::try_from(wanted).expect("a small number");
    let mut found = eventually(&format!("{wanted} revisions"), 5 * MINUTE, async || {
        let found = selected(&world.api::<ControllerRevision>(), SELECTOR).await;
        (found.len() == wanted_count).then_some(found)
    })
    .await;
    found.sort_by_key(|revision| revision.revision);
    let newest = found.pop().expect("a revision");
    assert_eq!(newest.revision, wanted);
    let hash = newest.labels()[HASH].clone();
    for pod in pods_of(world, NAME).await {
        assert_eq!(pod.labels().get(HASH), Some(&hash));
    }
    hash
}

/// Waits until every node has a pod with the image; never more than one is unavailable.
async fn rolled_out(world: &World, nodes: &[String], image: &str) {
    let at_most = 5 * MINUTE + Duration::from_secs(30) * u32::try_from(nodes.len()).expect("few");
    eventually(&format!("pods with {image} everywhere"), at_most, async || {
        let pods = pods_of(world, NAME).await;
        let unavailable = pods.iter().filter(|pod| !is_ready(pod)).count();
        assert!(unavailable <= 1, "{unavailable} pods are unavailable");
        let has_new =
            |node: &String| pods.iter().any(|pod| node_of(pod) == node && image_of(pod) == image);
        nodes.iter().all(has_new).then_some(())
    })
    .await;
}

async fn set_image(world: &World, image: &str) {
    update(&world.api(), NAME, |set: &mut DaemonSet| {
        let spec = set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        spec.expect("a spec").containers[0].image = Some(image.to_owned());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn should_run_and_stop_simple_daemon() {
    let (world, nodes) = started(Value::Null).await;
    let pod = pods_of(&world, NAME).await.remove(0).name_any();
    let pods: Api<Pod> = world.api();
    pods.delete(&pod, &DeleteParams::default()).await.expect("it is deleted");
    runs_on(&world, NAME, &nodes).await;
    assert!(pods_of(&world, NAME).await.iter().all(|other| other.name_any() != pod));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_run_and_stop_complex_daemon() {
    let world = World::start(3).await;
    let node = vec![world.schedulable_nodes().await.remove(0)];
    let mut set = daemon_set(NAME);
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({COLOR: "blue"});
    world.create::<DaemonSet>(set).await;
    runs_on(&world, NAME, &[]).await;
    counts_all(&world, NAME, 0).await;

    world.label_node(&node[0], COLOR, Some("blue")).await;
    runs_on(&world, NAME, &node).await;
    counts_all(&world, NAME, 1).await;
    world.label_node(&node[0], COLOR, Some("green")).await;
    runs_on(&world, NAME, &[]).await;

    let template = json!({"spec": {"nodeSelector": {COLOR: "green"}}});
    let strategy = json!({"type": "RollingUpdate"});
    let sets: Api<DaemonSet> = world.api();
    patch(&sets, NAME, json!({"spec": {"template": template, "updateStrategy": strategy}})).await;
    runs_on(&world, NAME, &node).await;
    counts_all(&world, NAME, 1).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_retry_creating_failed_daemon_pods() {
    let (world, nodes) = started(Value::Null).await;
    let pods: Api<Pod> = world.api();
    let mut pod = pods_of(&world, NAME).await.remove(0);
    pod.metadata.resource_version = None;
    pod.status.as_mut().expect("a status").phase = Some("Failed".into());
    let name = pod.name_any();
    pods.replace_status(&name, &PostParams::default(), &pod).await.expect("it has failed");
    eventually("the failed pod is gone", 5 * MINUTE, async || {
        pods.get_opt(&name).await.expect("an answer").is_none().then_some(())
    })
    .await;
    runs_on(&world, NAME, &nodes).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_update_pod_when_spec_was_updated_and_update_strategy_is_rollingupdate() {
    let (world, nodes) = started(Value::Null).await;
    let old = revision(&world, 1).await;
    let containers = json!([{"name": "app", "image": NEW}]);
    let sets: Api<DaemonSet> = world.api();
    patch(&sets, NAME, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
    rolled_out(&world, &nodes, NEW).await;
    runs_on(&world, NAME, &nodes).await;
    assert_ne!(revision(&world, 2).await, old);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_rollback_without_unnecessary_restarts() {
    let (world, nodes) = started(Value::Null).await;
    // An image that cannot be had keeps the update from coming to an end.
    let broken = "unpullable.example/app:v1";
    set_image(&world, broken).await;
    eventually("the update has begun", 5 * MINUTE, async || {
        let pods = pods_of(&world, NAME).await;
        pods.iter().any(|pod| image_of(pod) == broken).then_some(())
    })
    .await;
    let (new, kept): (Vec<Pod>, Vec<Pod>) =
        pods_of(&world, NAME).await.into_iter().partition(|pod| image_of(pod) == broken);
    assert!(!new.is_empty() && !kept.is_empty());
    assert!(kept.iter().all(|pod| image_of(pod) == OLD));
    set_image(&world, OLD).await;
    rolled_out(&world, &nodes, OLD).await;
    let names: Vec<_> = pods_of(&world, NAME).await.iter().map(|pod| pod.name_any()).collect();
    for pod in kept {
        assert!(names.contains(&pod.name_any()), "{} was restarted", pod.name_any());
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_list_and_delete_a_collection_of_daemonsets() {
    let (world, _) = started(json!({"daemonset-name": NAME})).await;
    let everywhere: Api<DaemonSet> = Api::all(world.client.clone());
    assert_eq!(selected(&everywhere, SELECTOR).await.len(), 1);
    let params = DeleteParams::default().grace_period(1);
    let own = ListParams::default().labels(SELECTOR);
    world.api::<DaemonSet>().delete_collection(&params, &own).await.expect("they are deleted");
    assert_eq!(selected(&everywhere, SELECTOR).await.len(), 0);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_verify_changes_to_a_daemon_set_status() {
    let world = World::start(2).await;
    let nodes = world.schedulable_nodes().await;
    let sets: Api<DaemonSet> = world.api();
    let before = version(&sets).await;
    let mut set = daemon_set(NAME);
    set["metadata"]["labels"] = json!({"daemonset-name": NAME});
    world.create::<DaemonSet>(set).await;
    runs_on(&world, NAME, &nodes).await;
    counts_all(&world, NAME, nodes.len()).await;
    status_endpoints::check(&sets, NAME, SELECTOR, &before).await;
    world.shutdown().await;
}
