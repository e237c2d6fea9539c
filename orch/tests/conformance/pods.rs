//! Source: `test/e2e/common/node/pods.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{POD_START, condition, image_of, is_ready, pause_pod, phase, ready, runs, selected},
    watching::{Change, Watching, version},
    world::{MINUTE, World, code, eventually, patch, update},
};

/// A cluster whose namespace takes pods of the restricted level only, as upstream's does.
async fn start() -> World {
    let world = World::start(1).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    patch(&namespaces, &world.namespace, json!({"metadata": {"labels": labels}})).await;
    world
}

fn labelled(name: &str, labels: Value, spec: Value) -> Value {
    let mut pod = pause_pod(name, spec);
    pod["metadata"]["labels"] = labels;
    pod
}

/// Creates a pod with these labels, and waits until it is Ready.
async fn started(world: &World, name: &str) -> Api<Pod> {
    let pods: Api<Pod> = world.api();
    let spec = json!({"terminationGracePeriodSeconds": 30});
    world.create::<Pod>(labelled(name, json!({"name": "foo", "time": "1"}), spec)).await;
    ready(&pods, name).await;
    assert_eq!(selected(&pods, "time=1").await.len(), 1);
    pods
}

#[tokio::test(start_paused = true)]
async fn should_get_a_host_ip() {
    let (world, name) = (start().await, "pod-hostip");
    let pods: Api<Pod> = world.api();
    world.create::<Pod>(pause_pod(name, json!({}))).await;
    ready(&pods, name).await;
    let ip = eventually("there is a host's address", 2 * MINUTE, async || {
        pods.get(name).await.expect("there").status?.host_ip
    })
    .await;
    ip.parse::<std::net::IpAddr>().expect("an address");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_be_submitted_and_removed() {
    let (world, name) = (start().await, "pod-submit-remove");
    let pods: Api<Pod> = world.api();
    assert_eq!(selected(&pods, "time=1").await.len(), 0);
    let mut watching = Watching::labelled(&pods, "time=1", &version(&pods).await).await;
    let spec = json!({"terminationGracePeriodSeconds": 30});
    world.create::<Pod>(labelled(name, json!({"name": "foo", "time": "1"}), spec)).await;
    assert_eq!(selected(&pods, "time=1").await.len(), 1);
    assert_eq!(watching.next().await.0, Change::Added);
    runs(&pods, name).await;
    pods.delete(name, &DeleteParams::default().grace_period(30)).await.expect("it is deleted");
    let last = watching
        .until("the pod is deleted", 5 * MINUTE, |change, _| change == Change::Deleted)
        .await;
    assert!(last.metadata.deletion_timestamp.is_some());
    assert_ne!(last.spec.and_then(|spec| spec.termination_grace_period_seconds), Some(0));
    assert_eq!(selected(&pods, "time=1").await.len(), 0);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_be_updated() {
    let (world, name) = (start().await, "pod-update");
    let pods = started(&world, name).await;
    update(&pods, name, |pod: &mut Pod| {
        pod.labels_mut().insert("time".to_owned(), "2".to_owned());
    })
    .await;
    runs(&pods, name).await;
    assert_eq!(selected(&pods, "time=2").await.len(), 1);
    assert_eq!(selected(&pods, "time=1").await.len(), 0);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_allow_activedeadlineseconds_to_be_updated() {
    let (world, name) = (start().await, "pod-update-activedeadlineseconds");
    let pods = started(&world, name).await;
    update(&pods, name, |pod: &mut Pod| {
        pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(5);
    })
    .await;
    let failed = eventually("the pod's time is over", POD_START, async || {
        Some(pods.get(name).await.expect("there")).filter(|pod| phase(pod) == "Failed")
    })
    .await;
    let status = failed.status.expect("a status");
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(status.message.as_deref(), Some(message));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_delete_a_collection_of_pods() {
    let world = start().await;
    let pods: Api<Pod> = world.api();
    let names = ["test-pod-1", "test-pod-2", "test-pod-3"];
    for name in names {
        let spec = json!({"restartPolicy": "Never"});
        world.create::<Pod>(labelled(name, json!({"type": "Testing"}), spec)).await;
    }
    for name in names {
        ready(&pods, name).await;
    }
    let params = DeleteParams::default().grace_period(1);
    let own = ListParams::default().labels("type=Testing");
    pods.delete_collection(&params, &own).await.expect("they are deleted");
    eventually("the pods are gone", 5 * MINUTE, async || {
        selected(&pods, "type=Testing").await.is_empty().then_some(())
    })
    .await;
    world.shutdown().await;
}

/// Says of a running pod that it is not Ready, as nobody but its node should; again if the node
/// was faster.
async fn make_unready(pods: &Api<Pod>, name: &str) -> Pod {
    loop {
        let mut pod = pods.get_status(name).await.expect("the status is read");
        let conditions = pod.status.as_mut().and_then(|status| status.conditions.as_mut());
        let mut changed = 0;
        for condition in conditions.into_iter().flatten() {
            let kind = condition.type_.as_str();
            if matches!(kind, "Ready" | "ContainersReady") && condition.status == "True" {
                condition.status = "False".to_owned();
                changed += 1;
            }
        }
        assert_eq!(changed, 2, "{pod:?}");
        match pods.replace_status(name, &PostParams::default(), &pod).await {
            Ok(updated) => return updated,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("not updated: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn should_run_through_the_lifecycle_of_pods_and_podstatus() {
    let (world, name, selector) = (start().await, "pod-test", "test-pod-static=true");
    let pods: Api<Pod> = world.api();
    let before = version(&pods).await;
    let labels = json!({"test-pod-static": "true"});
    world.create::<Pod>(labelled(name, labels, json!({}))).await;
    let mut watching = Watching::labelled(&pods, selector, &before).await;
    watching.until("the pod runs", POD_START, |_, pod| phase(pod) == "Running").await;
    let current = ready(&pods, name).await;

    let container = json!({"name": name, "image": "registry.example/httpd:v2"});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    patch(&pods, name, json!({"metadata": {"labels": {"test-pod": "patched"}}, "spec": spec}))
        .await;
    let since = current.resource_version().expect("a version");
    let mut watching = Watching::labelled(&pods, selector, &since).await;
    watching
        .until("a change", Duration::from_secs(30), |change, _| change == Change::Modified)
        .await;
    let patched = pods.get(name).await.expect("there");
    assert_eq!(patched.labels().get("test-pod").map(String::as_str), Some("patched"));
    assert_eq!(image_of(&patched), "registry.example/httpd:v2");

    // The other image means another container, which is there when the pod is Ready again.
    eventually("the pod runs the other image", POD_START, async || {
        let pod = ready(&pods, name).await;
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        (statuses[0].image == "registry.example/httpd:v2").then_some(())
    })
    .await;
    let unready = make_unready(&pods, name).await;
    assert!(!is_ready(&unready));
    assert_eq!(condition(&unready, "ContainersReady").map(|c| c.status.as_str()), Some("False"));

    let params = DeleteParams::default().grace_period(1);
    let own = ListParams::default().labels(selector);
    pods.delete_collection(&params, &own).await.expect("they are deleted");
    let since = unready.resource_version().expect("a version");
    let mut watching = Watching::labelled(&pods, selector, &since).await;
    watching.until("the pod is deleted", 5 * MINUTE, |change, _| change == Change::Deleted).await;
    assert_eq!(code(pods.get(name).await), 404);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_patch_a_pod_status() {
    let (world, name) = (start().await, "pod-patched");
    let pods: Api<Pod> = world.api();
    world.create::<Pod>(labelled(name, json!({"e2e": name}), json!({}))).await;
    runs(&pods, name).await;
    let changes = Patch::Merge(json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"message": "Patched by e2e test", "reason": "E2E"},
    }));
    let patched = pods.patch_status(name, &PatchParams::default(), &changes).await;
    let patched = patched.expect("it is patched");
    assert_eq!(patched.annotations().get("patchedstatus").map(String::as_str), Some("true"));
    let status = patched.status.expect("a status");
    assert_eq!(status.message.as_deref(), Some("Patched by e2e test"));
    assert_eq!(status.reason.as_deref(), Some("E2E"));
    world.shutdown().await;
}
