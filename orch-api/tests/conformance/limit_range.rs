//! LimitRanges as objects, and what they do to pods.
//!
//! Source: `test/e2e/scheduling/limit_range.go`.

use serde_json::{Value, json};

use super::{
    objects::{Objects, STRATEGIC, refused},
    world::World,
};

const NAMESPACE: &str = "limitrange";

fn amounts(cpu: &str, memory: &str, storage: &str) -> Value {
    let mut list = json!({});
    for (name, amount) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
        if !amount.is_empty() {
            list[name] = json!(amount);
        }
    }
    list
}

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn range(name: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"limits": [{
            "type": "Container",
            "min": amounts("50m", "100Mi", "100Gi"),
            "max": amounts("500m", "500Mi", "500Gi"),
            "default": amounts("500m", "500Mi", "500Gi"),
            "defaultRequest": amounts("100m", "200Mi", "200Gi"),
        }]},
    })
}

fn pod(name: &str, requests: &Value, limits: &Value) -> Value {
    let resources = json!({"requests": requests, "limits": limits});
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "pause", "image": "pause", "resources": resources}]},
    })
}

/// A pod with these requests is refused: by the range, or because a request is above the limit
/// that the range gives.
async fn refuses(pods: &Objects, requests: &Value, code: u16) {
    let answer = pods.try_create(pod("pfpod", requests, &json!({}))).await;
    assert_eq!(refused(answer).0, code);
}

/// Pods get what they leave out from the range, those outside of it are refused; a change of the
/// range counts at once, and so does its end.
pub(super) async fn should_create_a_limitrange_with_defaults() {
    let world = World::with_namespace(NAMESPACE).await;
    let ranges = world.of("v1", "LimitRange", NAMESPACE).await;
    let pods = world.of("v1", "Pod", NAMESPACE).await;
    assert_eq!(ranges.list("time=now").await.len(), 0);
    let mut watch = ranges.watch("time=now", "").await;
    let made = ranges.create(range("limit-range", json!({"time": "now"}))).await;
    watch.expect_object("ADDED", &made).await;
    let mut read = ranges.get("limit-range").await;
    let limit = &read["spec"]["limits"][0];
    let (requests, limits) = (limit["defaultRequest"].clone(), limit["default"].clone());
    assert_eq!(requests, amounts("100m", "200Mi", "200Gi"));
    assert_eq!(limits, amounts("500m", "500Mi", "500Gi"));

    pods.create(pod("pod-no-resources", &json!({}), &json!({}))).await;
    let of = |pod: Value| pod["spec"]["containers"][0]["resources"].clone();
    let found = of(pods.get("pod-no-resources").await);
    assert_eq!(found, json!({"requests": requests, "limits": limits}));
    let partial =
        pod("pod-partial-resources", &amounts("", "150Mi", "150Gi"), &amounts("300m", "", ""));
    pods.create(partial).await;
    let found = of(pods.get("pod-partial-resources").await);
    // A limit without a request is the request too, before the range has a say.
    assert_eq!(
        found,
        json!({"requests": amounts("300m", "150Mi", "150Gi"),
        "limits": amounts("300m", "500Mi", "500Gi")})
    );
    let small = amounts("10m", "50Mi", "50Gi");
    let large = amounts("600m", "600Mi", "600Gi");
    refuses(&pods, &small, 403).await;
    refuses(&pods, &large, 422).await;

    read["spec"]["limits"][0]["min"] = amounts("9m", "49Mi", "49Gi");
    let updated = ranges.replace(read).await;
    assert_eq!(updated["spec"]["limits"][0]["min"], amounts("9m", "49Mi", "49Gi"));
    pods.create(pod("pfpod-small", &small, &json!({}))).await;
    refuses(&pods, &large, 422).await;
    ranges.try_delete("limit-range", json!({"gracePeriodSeconds": 30})).await.unwrap();
    assert_eq!(ranges.list("").await.len(), 0);
    pods.create(pod("pfpod2", &large, &json!({}))).await;
}

/// Ranges of two namespaces are found together; a patch changes one of them, and a deletion by
/// the label that it set leaves the other.
pub(super) async fn should_list_patch_and_delete_a_limitrange_by_collection() {
    let world = World::with_namespace(NAMESPACE).await;
    world.namespace("limitrange-2").await;
    let ranges = world.of("v1", "LimitRange", NAMESPACE).await;
    let other = world.of("v1", "LimitRange", "limitrange-2").await;
    let everywhere = world.all("v1", "LimitRange").await;
    let name = "e2e-limitrange";
    let labels = json!({"e2e-test": name, name: "created"});
    let made = ranges.create(range(name, labels.clone())).await;
    other.create(range(name, labels)).await;
    let all = format!("e2e-test={name}");
    assert_eq!(everywhere.list(&all).await.len(), 2);

    let mut limits = made["spec"]["limits"].clone();
    limits[0]["min"] = amounts("9m", "49Mi", "49Gi");
    let patch = json!({
        "metadata": {"creationTimestamp": made["metadata"]["creationTimestamp"],
            "labels": {name: "patched"}},
        "spec": {"limits": limits},
    });
    let patched = ranges.patch(name, STRATEGIC, patch).await;
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    assert_eq!(patched["spec"]["limits"][0]["min"], amounts("9m", "49Mi", "49Gi"));
    let selector = format!("{name}=patched");
    ranges.delete_all(&selector).await;
    assert_eq!(everywhere.list(&selector).await.len(), 0);
    assert_eq!(everywhere.list(&all).await.len(), 1);
}
