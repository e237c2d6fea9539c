//! Endpoints as objects.
//!
//! Source: `test/e2e/network/endpoints.go`.

use serde_json::json;

use super::{
    objects::{STRATEGIC, names, text, version},
    world::World,
};

const NAMESPACE: &str = "endpoints";

/// Endpoints are seen by a watch, found over all namespaces, labelled by an update, given another
/// address and port by a patch, and deleted by their label.
pub(super) async fn should_test_the_lifecycle_of_an_endpoint() {
    let world = World::with_namespace(NAMESPACE).await;
    let endpoints = world.of("v1", "Endpoints", NAMESPACE).await;
    let everywhere = world.all("v1", "Endpoints").await;
    let selector = "test-endpoint-static=true";
    let from = everywhere.list_all(selector).await;
    let mut watch = endpoints.watch(selector, text(&from, "/metadata/resourceVersion")).await;
    let port = json!({"name": "http", "port": 80, "protocol": "TCP"});
    let made = endpoints
        .create(json!({
            "metadata": {"name": "testservice", "labels": {"test-endpoint-static": "true"}},
            "subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [port]}],
        }))
        .await;
    watch.expect_object("ADDED", &made).await;
    let mut found = everywhere.list(selector).await;
    assert_eq!(names(&found), ["testservice"]);
    found[0]["metadata"]["labels"]["test-service"] = json!("updated");
    let updated = endpoints.replace(found.remove(0)).await;
    watch.expect_object("MODIFIED", &updated).await;
    let read = endpoints.get("testservice").await;
    assert_eq!(read["metadata"]["labels"]["test-service"], "updated");

    let patch = json!({
        "metadata": {"labels": {"test-service": "patched"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.25"}],
            "ports": [{"name": "http-test", "port": 8080}]}],
    });
    let patched = endpoints.patch("testservice", STRATEGIC, patch).await;
    assert!(version(&patched) > version(&made));
    watch.expect_object("MODIFIED", &patched).await;
    let read = endpoints.get("testservice").await;
    assert_eq!(read["metadata"]["labels"]["test-service"], "patched");
    let port = json!({"name": "http-test", "port": 8080, "protocol": "TCP"});
    assert_eq!(read["subsets"], json!([{"addresses": [{"ip": "10.0.0.25"}], "ports": [port]}]));

    endpoints.delete_all(selector).await;
    watch.expect("DELETED", "testservice").await;
    endpoints.gone("testservice").await;
}
