//! ResourceQuotas.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, ResourceQuota},
    resource::v1::{DeviceClass, ResourceClaim},
};
use orch_controllers::resource_quota::resource_quota;
use orch_core::{Client, client::PatchKind};
use serde_json::{Value, json};

use crate::world::{World, template};

fn world() -> World {
    World::start(|informers| {
        let types: Arc<dyn Client> = informers.client().clone();
        vec![resource_quota(informers, Arc::new(types))]
    })
}

async fn create_quota(world: &World, spec: Value) {
    world.create::<ResourceQuota>(json!({"metadata": {"name": "most"}, "spec": spec})).await;
}

fn pod(name: &str, cpu: &str) -> Value {
    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

async fn used(world: &World, wanted: Value) {
    world
        .eventually(&wanted.to_string(), async |world| {
            let quota = world.get::<ResourceQuota>("most").await?;
            let status = quota.status.as_ref()?;
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
            (json!(status.used) == wanted && status.hard == hard).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_for_devices_count_as_the_extended_resources_that_their_classes_name() {
    let world = world();
    let class = json!({"metadata": {"name": "gpus"},
                       "spec": {"extendedResourceName": "example.com/gpu"}});
    world.create_cluster::<DeviceClass>(class).await;
    let mut web = pod("web", "1");
    web["spec"]["containers"][0]["resources"] = json!({"requests": {"example.com/gpu": "2"}});
    let web = world.create::<Pod>(web).await;
    let devices = json!({"devices": {"requests": [{"name": "r", "exactly":
        {"deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 2}}]}});
    let claim = |meta: Value| json!({"metadata": meta, "spec": devices});
    world.create::<ResourceClaim>(claim(json!({"name": "plain"}))).await;
    let hard = json!({"requests.example.com/gpu": "9", "requests.example.com/nic": "9",
                      "requests.deviceclass.resource.kubernetes.io/gpus": "9"});
    create_quota(&world, json!({"hard": hard})).await;
    let counts = |gpus: &str, implicit: &str| {
        json!({"requests.example.com/gpu": gpus, "requests.example.com/nic": "0",
               "requests.deviceclass.resource.kubernetes.io/gpus": implicit})
    };
    used(&world, counts("4", "2")).await;
    // What a claim was made for is counted with the pod already.
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web",
                        "uid": web.metadata.uid, "controller": true}]);
    let marked = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    let made = json!({"name": "made", "annotations": marked, "ownerReferences": owner});
    world.create::<ResourceClaim>(claim(made)).await;
    used(&world, counts("4", "4")).await;
    world.delete::<ResourceClaim>("plain").await;
    used(&world, counts("2", "2")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_counted_and_what_goes_is_given_back() {
    let world = world();
    world.create::<Pod>(pod("one", "300m")).await;
    world.create::<ConfigMap>(json!({"metadata": {"name": "map"}})).await;
    let hard = json!({"cpu": "2", "pods": "5", "count/configmaps": "3", "gadgets": "1"});
    create_quota(&world, json!({"hard": hard})).await;
    used(&world, json!({"cpu": "300m", "pods": "1", "count/configmaps": "1"})).await;
    world.create::<Pod>(pod("two", "500m")).await;
    used(&world, json!({"cpu": "800m", "pods": "2", "count/configmaps": "1"})).await;
    // A pod that is over uses nothing any more, although it is there.
    let over = json!({"status": {"phase": "Succeeded"}});
    world.resources::<Pod>().patch_status("one", PatchKind::Merge, over).await.unwrap();
    used(&world, json!({"cpu": "500m", "pods": "1", "count/configmaps": "1"})).await;
    world.delete::<Pod>("two").await;
    world.delete::<ConfigMap>("map").await;
    used(&world, json!({"cpu": "0", "pods": "0", "count/configmaps": "0"})).await;
    world.patch::<ResourceQuota>("most", json!({"spec": {"hard": {"cpu": null}}})).await;
    used(&world, json!({"pods": "0", "count/configmaps": "0"})).await;
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes, "what does not change is not written");
}

#[tokio::test(start_paused = true)]
async fn scopes_say_what_is_counted() {
    let world = world();
    world.create::<Pod>(pod("sized", "100m")).await;
    let mut small = pod("best-effort", "0");
    small["spec"]["containers"][0]["resources"] = json!({});
    world.create::<Pod>(small).await;
    create_quota(&world, json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]})).await;
    used(&world, json!({"pods": "1"})).await;
    world.delete::<Pod>("sized").await;
    world.pass(5).await;
    used(&world, json!({"pods": "1"})).await;
    world.delete::<Pod>("best-effort").await;
    used(&world, json!({"pods": "0"})).await;
}

#[tokio::test(start_paused = true)]
async fn a_charge_is_not_lost_before_what_it_is_for_is_stored() {
    let world = world();
    world.create::<Pod>(pod("one", "100m")).await;
    create_quota(&world, json!({"hard": {"pods": "3"}})).await;
    used(&world, json!({"pods": "1"})).await;
    let charged = json!({"status": {"used": {"pods": "2"}}});
    world
        .resources::<ResourceQuota>()
        .patch_status("most", PatchKind::Merge, charged)
        .await
        .unwrap();
    world.delete::<Pod>("one").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    used(&world, json!({"pods": "2"})).await;
    // Nothing has come of it.
    world.pass(2).await;
    used(&world, json!({"pods": "0"})).await;
}
