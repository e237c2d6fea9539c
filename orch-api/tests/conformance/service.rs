//! Services as objects.
//!
//! Source: `test/e2e/network/service.go`.

use serde_json::json;

use super::{
    objects::{MERGE, STRATEGIC, call, names},
    world::World,
};

const NAMESPACE: &str = "services";

/// The Service `kubernetes` is among those of all namespaces.
pub(super) async fn should_find_a_service_from_listing_all_namespaces() {
    let world = World::with_namespace(NAMESPACE).await;
    let found = world.all("v1", "Service").await.list("").await;
    let is_it = |one: &&serde_json::Value| one["metadata"]["name"] == "kubernetes";
    let found = found.iter().find(is_it).expect("the service");
    assert_eq!(found["metadata"]["namespace"], "default");
}

/// The status of a load balancer's Service is read, patched and replaced through its subresource;
/// labels are patched; a watch sees all of it, and the deletion.
pub(super) async fn should_complete_a_service_status_lifecycle() {
    let world = World::with_namespace(NAMESPACE).await;
    let services = world.of("v1", "Service", NAMESPACE).await;
    let selector = "test-service-static=true";
    let mut watch = services.watch(selector, "").await;
    let made = services
        .create(json!({
            "metadata": {"name": "test-service", "labels": {"test-service-static": "true"}},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip",
                "ports": [{"name": "http", "port": 80, "targetPort": 80}]},
        }))
        .await;
    watch.expect_object("ADDED", &made).await;
    let found = world.all("v1", "Service").await.list(selector).await;
    assert_eq!(names(&found), ["test-service"]);

    let path = format!("{}/test-service/status", services.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(read["status"], json!({"loadBalancer": {}}));
    let ingress = json!([{"ip": "203.0.113.1", "ipMode": "VIP"}]);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let mut patched = services.patch("test-service/status", MERGE, patch).await;
    watch.expect_object("MODIFIED", &patched).await;
    assert_eq!(patched["status"]["loadBalancer"]["ingress"], ingress);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");

    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from e2e test", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    patched["status"]["conditions"] = json!([condition]);
    let updated = services.replace_status(patched).await;
    watch.expect_object("MODIFIED", &updated).await;
    assert_eq!(updated["status"]["conditions"], json!([condition]));
    assert_eq!(updated["spec"], made["spec"]);

    let labelled = services.label(STRATEGIC, &updated, "test-service", "patched").await;
    watch.expect_object("MODIFIED", &labelled).await;
    assert_eq!(labelled["status"], updated["status"]);
    services.delete("test-service").await;
    watch.expect("DELETED", "test-service").await;
}

/// Of three Services the two with a label are deleted by it.
pub(super) async fn should_delete_a_collection_of_services() {
    let world = World::with_namespace(NAMESPACE).await;
    let services = world.of("v1", "Service", NAMESPACE).await;
    for (number, label) in [(1, "true"), (2, "true"), (3, "false")] {
        let name = format!("e2e-svc-{number}");
        services
            .create(json!({
                "metadata": {"name": name, "labels": {"e2e-test-service": label}},
                "spec": {"ports": [{"name": "http", "port": 8001, "targetPort": 8001}]},
            }))
            .await;
    }
    assert_eq!(services.list("").await.len(), 3);
    services.delete_all("e2e-test-service=true").await;
    assert_eq!(names(&services.list("").await), ["e2e-svc-3"]);
}
