//! Source: `test/e2e/apimachinery/namespace.go`.

use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::world::{MINUTE, World, eventually, gone, object};

#[tokio::test(start_paused = true)]
async fn should_ensure_that_all_services_are_removed_when_a_namespace_is_deleted() {
    let world = World::start(0).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let accounts: Api<ServiceAccount> = world.api();
    eventually("the namespace has its default account", MINUTE, async || {
        accounts.get_opt("default").await.expect("an answer")
    })
    .await;
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
