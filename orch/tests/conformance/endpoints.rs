//! Source: `test/e2e/network/endpoints.go`.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use crate::world::{MINUTE, World, eventually, gone};

/// A Service that selects nothing.
pub(crate) fn unmatched() -> Value {
    json!({
        "metadata": {"name": "example-empty-selector"},
        "spec": {
            "selector": {
                "does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created",
            },
            "ports": [{"name": "example", "port": 80, "protocol": "TCP"}],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn should_create_and_delete_endpoints_for_a_service_with_a_selector_that_matches_no_pods() {
    let world = World::start(0).await;
    world.create::<Service>(unmatched()).await;
    let (name, endpoints) = ("example-empty-selector", world.api::<Endpoints>());
    let found = eventually("there are Endpoints", MINUTE / 2, async || {
        endpoints.get_opt(name).await.expect("an answer")
    })
    .await;
    assert_eq!(found.subsets, None);
    let services: Api<Service> = world.api();
    services.delete(name, &DeleteParams::default()).await.expect("it is deleted");
    gone(&endpoints, name, MINUTE / 2).await;
    world.shutdown().await;
}
