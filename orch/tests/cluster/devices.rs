//! Pods whose extended resources devices stand behind, from the class to the deletion.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::world::{create, create_global, is_ready, node_of, seeded, template, until};

const GPU: &str = "example.com/gpu";

/// A pod that wants so many of them.
fn wanting(name: &str, count: u32) -> Value {
    let mut pod = template(name);
    pod["metadata"]["name"] = name.into();
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {GPU: count.to_string()}});
    pod
}

fn is_refused(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|one| one.type_ == "PodScheduled" && one.status == "False")
        .any(|one| one.message.as_deref().is_some_and(|m| m.contains("cannot allocate all claims")))
}

fn named<'p>(pods: &'p [Arc<Pod>], name: &str) -> Option<&'p Arc<Pod>> {
    pods.iter().find(|pod| pod.name_any() == name)
}

fn devices(claim: &ResourceClaim) -> Vec<&str> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    let results = devices.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results.map(|result| result.device.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn extended_resources_are_devices_while_their_pod_lives() {
    let cluster = seeded(1).simulated_nodes(2).start().await.expect("it starts");
    let class = json!({"metadata": {"name": "gpus"}, "spec": {"extendedResourceName": GPU}});
    create_global::<DeviceClass>(&cluster, class).await;
    let pool = json!({"name": "node-2", "generation": 1, "resourceSliceCount": 1});
    let slice = json!({"metadata": {"name": "node-2"}, "spec": {
        "driver": "dra.example.com", "nodeName": "node-2", "pool": pool,
        "devices": [{"name": "a"}, {"name": "b"}],
    }});
    create_global::<ResourceSlice>(&cluster, slice).await;
    create::<Pod>(&cluster, wanting("first", 2)).await;
    until::<Pod>(&cluster, |pods| named(pods, "first").is_some_and(|pod| is_ready(pod))).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let claims: Api<ResourceClaim> = Api::default_namespaced(cluster.client());
    let first = pods.get("first").await.expect("it is there");
    assert_eq!(node_of(&first), "node-2");
    let told = first.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    let told = told.expect("the status tells of the claim");
    let claim = claims.get(&told.resource_claim_name).await.expect("the claim is there");
    assert_eq!(devices(&claim), ["a", "b"]);
    let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref());
    assert_eq!(users.map(|users| &users[0].uid), first.metadata.uid.as_ref());

    create::<Pod>(&cluster, wanting("second", 1)).await;
    until::<Pod>(&cluster, |pods| named(pods, "second").is_some_and(|pod| is_refused(pod))).await;
    pods.delete("first", &DeleteParams::default()).await.expect("it is deleted");
    until::<Pod>(&cluster, |pods| named(pods, "second").is_some_and(|pod| is_ready(pod))).await;
    until::<ResourceClaim>(&cluster, |claims| claims.len() == 1).await;
    let left = claims.list(&ListParams::default()).await.expect("a list").items;
    assert!(left[0].name_any().starts_with("second-extended-resources-"));
    assert_eq!(devices(&left[0]), ["a"]);
    pods.delete("second", &DeleteParams::default()).await.expect("it is deleted");
    until::<ResourceClaim>(&cluster, <[_]>::is_empty).await;
    cluster.shutdown().await;
}
