//! The kinds of dynamic resource allocation as objects.
//!
//! Source: `test/e2e/dra/dra.go`, `test/e2e/framework/conformance`.

use serde_json::{Value, json};

use super::{
    objects::{APPLY, JSON_PATCH, MERGE, Objects, STRATEGIC, call, name, version},
    operations::{every_verb, nothing_more},
    world::World,
};

const VERSION: &str = "resource.k8s.io/v1";
const NAMESPACE: &str = "dra";

/// What changes about an object, by each way to write one.
struct Change {
    /// Where it is, as a JSON pointer.
    at: &'static str,
    /// A patch that sets it, but for the value.
    patch: fn(Value) -> Value,
    /// A value that the server takes, made different by a number.
    value: fn(usize) -> Value,
}

/// Creates, replaces, patches in all four ways and applies an object, and sees each by a watch.
async fn written(objects: &Objects, first: Value, change: &Change) {
    let made = objects.create(first).await;
    let own = name(&made).to_owned();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("fieldSelector=metadata.name%3D{own}&resourceVersion={from}");
    let mut watch = objects.watch_by(&query).await;
    let mut changed = made.clone();
    *changed.pointer_mut(change.at).unwrap() = (change.value)(1);
    let mut last = objects.replace(changed).await;
    let mut wanted = (change.value)(1);
    for (number, kind) in [STRATEGIC, MERGE, JSON_PATCH].into_iter().enumerate() {
        assert_eq!(last.pointer(change.at), Some(&wanted), "{kind}");
        watch.expect_object("MODIFIED", &last).await;
        wanted = (change.value)(number + 2);
        let patch = match kind {
            JSON_PATCH => json!([{"op": "replace", "path": change.at, "value": wanted}]),
            _ => (change.patch)(wanted.clone()),
        };
        let after = objects.patch(&own, kind, patch).await;
        assert!(version(&after) > version(&last));
        last = after;
    }
    watch.expect_object("MODIFIED", &last).await;
    let patch = json!({"metadata": {"name": own, "labels": {"applied": "true"}}});
    let applied = objects.patch(&own, APPLY, patch).await;
    assert_eq!(applied["metadata"]["labels"]["applied"], "true");
    assert_eq!(applied.pointer(change.at), Some(&wanted));
    watch.expect_object("MODIFIED", &applied).await;
    objects.delete(&own).await;
    watch.expect("DELETED", &own).await;
}

fn selector(number: usize) -> Value {
    json!(format!("device.driver == \"driver-{number}.example.com\""))
}

/// All verbs of device classes, whose selectors may be changed.
pub(super) async fn crud_tests_resource_k8s_io_v1_deviceclass() {
    let world = World::start().await;
    let classes = world.all(VERSION, "DeviceClass").await;
    let make = |number| {
        json!({"metadata": {"name": format!("class-{number}")},
            "spec": {"selectors": [{"cel": {"expression": selector(0)}}]}})
    };
    let change = Change {
        at: "/spec/selectors/0/cel/expression",
        patch: |value| json!({"spec": {"selectors": [{"cel": {"expression": value}}]}}),
        value: selector,
    };
    written(&classes, make(0), &change).await;
    every_verb(&classes, None, make, nothing_more).await;
}

fn claim(class: &str) -> Value {
    json!({"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": class}}]}})
}

fn annotation() -> Change {
    Change {
        at: "/metadata/annotations/changed",
        patch: |value| json!({"metadata": {"annotations": {"changed": value}}}),
        value: |number| json!(format!("times {number}")),
    }
}

fn named(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "annotations": {"changed": "never"}}, "spec": spec})
}

/// All verbs of claims, and of their status: an allocation is written, reserved for pods, and
/// taken back. What is claimed does not change.
pub(super) async fn crud_tests_resource_k8s_io_v1_resourceclaim() {
    let world = World::with_namespace(NAMESPACE).await;
    let claims = world.of(VERSION, "ResourceClaim", NAMESPACE).await;
    let everywhere = world.all(VERSION, "ResourceClaim").await;
    let make = |number: usize| named(&format!("claim-{number}"), &claim("class"));
    written(&claims, make(0), &annotation()).await;
    every_verb(&claims, Some(&everywhere), make, async |claims, first| {
        let exactly = &first["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!(
            (&exactly["allocationMode"], &exactly["count"]),
            (&json!("ExactCount"), &json!(1))
        );
        let mut changed = first.clone();
        changed["spec"] = claim("other");
        let status = claims.try_replace("", changed).await.unwrap_err();
        assert!(status.message.contains("spec: Invalid value") && status.code == 422, "{status:?}");

        let result = json!({"request": "req-0", "driver": "driver.example.com", "pool": "pool",
            "device": "device-0"});
        let mut allocated = first.clone();
        allocated["status"] = json!({"allocation": {"devices": {"results": [result]}}});
        let allocated = claims.replace_status(allocated).await;
        assert_eq!(allocated["status"]["allocation"]["devices"]["results"][0]["pool"], "pool");
        let user = json!([{"resource": "pods", "name": "pod-0", "uid": "uid-0"}]);
        let at = format!("{}/status", name(&first));
        let patch = json!({"status": {"reservedFor": user}});
        let reserved = claims.patch(&at, STRATEGIC, patch).await;
        assert_eq!(reserved["status"]["reservedFor"], user);
        let path = format!("{}/{at}", claims.path);
        let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
        assert_eq!(read["status"], reserved["status"]);
        let mut free = reserved;
        free["status"] = json!({});
        let free = claims.replace_status(free).await;
        assert!(free["status"]["allocation"].is_null(), "{free}");
        assert_eq!(free["spec"], first["spec"]);
    })
    .await;
}

/// All verbs of claim templates. What is claimed by them does not change.
pub(super) async fn crud_tests_resource_k8s_io_v1_resourceclaimtemplate() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = world.of(VERSION, "ResourceClaimTemplate", NAMESPACE).await;
    let everywhere = world.all(VERSION, "ResourceClaimTemplate").await;
    let make =
        |number: usize| named(&format!("template-{number}"), &json!({"spec": claim("class")}));
    written(&templates, make(0), &annotation()).await;
    every_verb(&templates, Some(&everywhere), make, async |templates, first| {
        let mut changed = first;
        changed["spec"]["spec"] = claim("other");
        let status = templates.try_replace("", changed).await.unwrap_err();
        assert!(status.message.contains("field is immutable") && status.code == 422, "{status:?}");
    })
    .await;
}

/// All verbs of slices, whose devices may be changed, and their selectable fields.
pub(super) async fn crud_tests_resource_k8s_io_v1_resourceslice() {
    let world = World::start().await;
    let slices = world.all(VERSION, "ResourceSlice").await;
    let make = |number| {
        json!({
            "metadata": {"name": format!("slice-{number}")},
            "spec": {
                "driver": "driver.example.com", "nodeName": format!("node-{number}"),
                "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "device-0"}],
            },
        })
    };
    let change = Change {
        at: "/spec/devices/0/name",
        patch: |value| json!({"spec": {"devices": [{"name": value}]}}),
        value: |number| json!(format!("device-{number}")),
    };
    written(&slices, make(0), &change).await;
    every_verb(&slices, None, make, async |slices, _| {
        assert_eq!(slices.list_by_field("spec.driver=driver.example.com").await.len(), 3);
        let of_node = slices.list_by_field("spec.nodeName=node-2").await;
        assert_eq!(super::objects::names(&of_node), ["slice-2"]);
    })
    .await;
}
