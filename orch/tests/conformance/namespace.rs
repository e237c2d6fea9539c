//! Source: `test/e2e/apimachinery/namespace.go`.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    running::{pause_pod, runs},
    world::{MINUTE, World, eventually, gone, object, update},
};

async fn has_account(world: &World) {
    let accounts: Api<ServiceAccount> = world.api();
    eventually("the namespace has its default account", MINUTE, async || {
        accounts.get_opt("default").await.expect("an answer")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn should_ensure_that_all_services_are_removed_when_a_namespace_is_deleted() {
    let world = World::start(0).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    has_account(&world).await;
    let service = json!({
        "metadata": {"name": "test-service"},
        "spec": {
            "selector": {"foo": "bar", "baz": "blah"},
            "ports": [{"port": 80, "targetPort": 80}],
        },
    });
    world.create::<Service>(service).await;
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.expect("it is deleted");
    gone(&namespaces, &world.namespace, MINUTE).await;
    let again = object(json!({"metadata": {"name": world.namespace}}));
    namespaces.create(&PostParams::default(), &again).await.expect("the name is free again");
    let services: Api<Service> = world.api();
    assert!(services.get_opt("test-service").await.expect("an answer").is_none());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_ensure_that_all_pods_are_removed_when_a_namespace_is_deleted() {
    let (world, name) = (World::start(1).await, "test-pod");
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    has_account(&world).await;
    let pods: Api<Pod> = world.api();
    world.create::<Pod>(pause_pod(name, json!({"terminationGracePeriodSeconds": 30}))).await;
    runs(&pods, name).await;
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.expect("it is deleted");
    gone(&namespaces, &world.namespace, MINUTE * 3 / 2).await;
    let again = object(json!({"metadata": {"name": world.namespace}}));
    namespaces.create(&PostParams::default(), &again).await.expect("the name is free again");
    assert!(pods.get_opt(name).await.expect("an answer").is_none());
    world.shutdown().await;
}

/// How long upstream's tests wait for a namespace to go.
const DELETION: std::time::Duration = std::time::Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn namespace_deletion_should_delete_pod_first() {
    let (world, name) = (World::start(1).await, "test-pod");
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    has_account(&world).await;
    let (pods, maps) = (world.api::<Pod>(), world.api::<ConfigMap>());
    let mut pod = pause_pod(name, json!({}));
    pod["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    world.create::<Pod>(pod).await;
    runs(&pods, name).await;
    let map = json!({"metadata": {"name": "test-configmap"}, "data": {"key": "value"}});
    world.create::<ConfigMap>(map).await;
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.expect("it is deleted");
    eventually("the controller has begun", DELETION, async || {
        let status = namespaces.get(&world.namespace).await.expect("it is still there").status?;
        let conditions = status.conditions.unwrap_or_default();
        let told = conditions.iter().any(|c| c.type_ == "NamespaceDeletionContentFailure");
        (told && status.phase.as_deref() == Some("Terminating")).then_some(())
    })
    .await;
    eventually("the pod is going", DELETION, async || {
        maps.get("test-configmap").await.expect("it stays as long as there are pods");
        pods.get(name).await.expect("the finalizer keeps it").metadata.deletion_timestamp
    })
    .await;
    update(&pods, name, |pod: &mut Pod| pod.metadata.finalizers = None).await;
    gone(&pods, name, 5 * MINUTE).await;
    gone(&namespaces, &world.namespace, DELETION).await;
    world.shutdown().await;
}
