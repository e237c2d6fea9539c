//! ServiceCIDRs and IPAddresses as objects.
//!
//! Source: `test/e2e/network/service_cidrs.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, annotate, call, names, version},
    world::World,
};

const GROUP: &str = "networking.k8s.io";
const VERSION: &str = "networking.k8s.io/v1";

/// The cluster's own range is there, with a status, and is listed and watched.
pub(super) async fn should_support_servicecidr_api_operations() {
    let world = World::start().await;
    world.discover(GROUP, "v1", &["servicecidrs", "servicecidrs/status"]).await;
    let ranges = world.all(VERSION, "ServiceCIDR").await;
    let default = ranges.get("kubernetes").await;
    let path = format!("{}/kubernetes/status", ranges.path);
    let status = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("ServiceCIDR"), &json!(VERSION)));
    assert_eq!(status["metadata"]["uid"], default["metadata"]["uid"]);
    assert_eq!(names(&ranges.list("").await), ["kubernetes"]);
    let mut watch = ranges.watch("", "").await;
    watch.expect_object("ADDED", &default).await;
}

fn address(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"type": label}},
        "spec": {"parentRef": {"group": "mygroup", "resource": "myresources", "namespace": "foo",
            "name": "bar"}},
    })
}

/// All verbs of addresses, of both families.
pub(super) async fn should_support_ipaddress_api_operations() {
    let world = World::start().await;
    world.discover(GROUP, "v1", &["ipaddresses"]).await;
    let addresses = world.all(VERSION, "IPAddress").await;
    let ip = "255.255.255.255";
    let made = addresses.create(address(ip, "broadcast")).await;
    addresses.create(address("fe80::42:1dff:fe84:f9e2", "link-local")).await;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = addresses.patch(ip, MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert!(version(&patched) > version(&made));
    let mut changed = addresses.get(ip).await;
    annotate(&mut changed, "updated", "true");
    let updated = addresses.replace(changed).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    addresses.get(ip).await;
    assert_eq!(names(&addresses.list("type=broadcast").await), [ip]);
    let mut watch = addresses.watch("type=broadcast", "").await;
    watch.expect_object("ADDED", &updated).await;
    addresses.delete(ip).await;
    watch.expect("DELETED", ip).await;
    addresses.delete_all("type=link-local").await;
    assert_eq!(addresses.list("type=link-local").await.len(), 0);
}
