//! What the server derives of a pod.
//!
//! Source: `test/e2e/node/pods.go`.

use serde_json::json;

use super::world::World;

/// Requests that equal limits, of both resources, make a pod guaranteed.
pub(super) async fn should_be_set_on_pods_with_matching_resource_requests_and_limits() {
    let world = World::with_namespace("pods").await;
    let pods = world.of("v1", "Pod", "pods").await;
    let resources = json!({"cpu": "100m", "memory": "100Mi"});
    let container = json!({"name": "agnhost", "image": "agnhost",
        "resources": {"limits": resources, "requests": resources}});
    pods.create(json!({"metadata": {"name": "pod-qos"}, "spec": {"containers": [container]}}))
        .await;
    assert_eq!(pods.get("pod-qos").await["status"]["qosClass"], "Guaranteed");
}
