//! Source: `test/e2e/common/node/runtimeclass.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{core::v1::Pod, node::v1::RuntimeClass},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{POD_START, node_of, selected},
    world::{World, eventually, object},
};

/// Has a pod that asks for a class with this overhead scheduled; the overhead that it has then.
async fn overhead_of_scheduled(overhead: Value) -> BTreeMap<String, Quantity> {
    let world = World::start(1).await;
    let (name, classes): (_, Api<RuntimeClass>) =
        ("e2e-preconfigured-handler", Api::all(world.client.clone()));
    let class = json!({
        "metadata": {"name": name}, "handler": "test-handler", "overhead": overhead,
    });
    classes.create(&PostParams::default(), &object(class)).await.expect("it is created");
    let spec = json!({
        "runtimeClassName": name,
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "containers": [
            {"name": "test", "image": "registry.example/busybox:v1", "command": ["true"]},
        ],
    });
    let metadata = json!({"generateName": "test-runtimeclass-"});
    let created: Pod = world.create(json!({"metadata": metadata, "spec": spec})).await;
    let mut pods = eventually("the pod is scheduled", POD_START, async || {
        let pods = selected(&world.api::<Pod>(), "").await;
        pods.iter().all(|pod| !node_of(pod).is_empty()).then_some(pods)
    })
    .await;
    assert_eq!(pods.len(), 1);
    let pod = pods.remove(0);
    assert_eq!(pod.uid(), created.uid());
    classes.delete(name, &DeleteParams::default()).await.expect("it is deleted");
    world.shutdown().await;
    pod.spec.and_then(|spec| spec.overhead).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn should_schedule_a_pod_requesting_a_runtimeclass_without_podoverhead() {
    assert_eq!(overhead_of_scheduled(Value::Null).await, BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn should_schedule_a_pod_requesting_a_runtimeclass_and_initialize_its_overhead() {
    let fixed = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    let overhead = overhead_of_scheduled(fixed).await;
    let wanted = [("cpu", "10m"), ("memory", "1Mi")];
    let wanted = wanted.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    assert_eq!(overhead, wanted.into());
}
