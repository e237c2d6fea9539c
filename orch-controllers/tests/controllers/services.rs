//! Endpoints and EndpointSlices.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Endpoints, Event, Pod, Service},
    discovery::v1::EndpointSlice,
};
use orch_controllers::{
    endpoint_slice::{SERVICE_NAME, endpoint_slice, endpoint_slice_mirroring},
    endpoints::endpoints,
    replicas::replica_set,
};
use serde_json::json;

use crate::world::{World, template};

#[tokio::test(start_paused = true)]
async fn a_service_has_the_addresses_of_its_ready_pods() {
    let world = World::start(|informers| {
        vec![replica_set(informers), endpoints(informers), endpoint_slice(informers)]
    });
    world
        .create::<Service>(json!({
            "metadata": {"name": "web", "labels": {"tier": "front"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
        }))
        .await;
    world
        .eventually("an empty slice and empty endpoints", async |world| {
            let slices = world.list::<EndpointSlice>().await;
            let empty = slices.len() == 1 && slices[0].endpoints.as_ref().is_none_or(Vec::is_empty);
            (empty && world.get::<Endpoints>("web").await.is_some()).then_some(())
        })
        .await;
    world
        .create::<ReplicaSet>(json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": template("web", "v1")},
        }))
        .await;
    let slice = world
        .eventually("three ready endpoints in one slice", async |world| {
            let slices = world.list::<EndpointSlice>().await;
            assert_eq!(slices.len(), 1);
            let endpoints = slices[0].endpoints.clone()?;
            let ready =
                endpoints.iter().filter(|e| e.conditions.as_ref().unwrap().ready == Some(true));
            (ready.count() == 3).then(|| slices[0].clone())
        })
        .await;
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!((labels[SERVICE_NAME].as_str(), labels["tier"].as_str()), ("web", "front"));
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    let one = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(one.node_name.as_deref(), Some("node-1"));
    assert_eq!(one.target_ref.as_ref().unwrap().kind.as_deref(), Some("Pod"));
    world
        .eventually("three addresses", async |world| {
            let subsets = world.get::<Endpoints>("web").await?.subsets.clone()?;
            (subsets[0].addresses.as_ref()?.len() == 3).then_some(())
        })
        .await;

    // A pod that loses its readiness moves to the other list.
    let name = world.list::<Pod>().await[0].metadata.name.clone().unwrap();
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let kind = orch_core::client::PatchKind::Merge;
    world.resources::<Pod>().patch_status(&name, kind, patch).await.unwrap();
    world
        .eventually("two addresses", async |world| {
            let subsets = world.get::<Endpoints>("web").await?.subsets.clone()?;
            let not_ready = subsets[0].not_ready_addresses.as_ref()?.len();
            (subsets[0].addresses.as_ref()?.len() == 2 && not_ready == 1).then_some(())
        })
        .await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    world.delete::<Service>("web").await;
    world
        .eventually("endpoints are gone", async |world| {
            world.get::<Endpoints>("web").await.is_none().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_somebody_writes_are_mirrored() {
    let world = World::start(|informers| vec![endpoint_slice_mirroring(informers)]);
    world.create::<Service>(json!({"metadata": {"name": "db"}, "spec": {}})).await;
    let addresses = |range: std::ops::Range<usize>| -> Vec<_> {
        range.map(|n| json!({"ip": format!("10.1.{}.{}", n / 250, n % 250)})).collect()
    };
    let ports = json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]);
    world
        .create::<Endpoints>(json!({
            "metadata": {"name": "db", "labels": {"tier": "back"}, "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}", "owner": "dba"}},
            "subsets": [
                {"ports": ports, "addresses": addresses(0..1005)},
                {"addresses": [{"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "db.example"}]},
            ],
        }))
        .await;
    let slices = world
        .eventually("a slice for each family", async |world| {
            let slices = world.list::<EndpointSlice>().await;
            (slices.len() == 2).then_some(slices)
        })
        .await;
    let of = |family: &str| slices.iter().find(|slice| slice.address_type == family).unwrap();
    let (v4, v6) = (of("IPv4"), of("IPv6"));
    assert_eq!(v4.endpoints.as_ref().unwrap().len(), 1000, "so many of a subset");
    assert_eq!(v4.ports.as_ref().unwrap()[0].port, Some(5432));
    assert_eq!(v6.endpoints.as_ref().unwrap()[0].addresses, ["fd00::1"]);
    let labels = v4.metadata.labels.as_ref().unwrap();
    assert_eq!((labels[SERVICE_NAME].as_str(), labels["tier"].as_str()), ("db", "back"));
    let annotations = v4.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["owner"]);
    let told = async |reason: &str| {
        world
            .eventually(reason, async |world| {
                let events = world.list::<Event>().await;
                let found = events.iter().find(|e| e.reason.as_deref() == Some(reason))?;
                found.message.clone()
            })
            .await
    };
    let message = told("InvalidIPAddress").await;
    assert_eq!(message, "Skipped 1 invalid IP addresses when mirroring to EndpointSlices");
    let message = told("TooManyAddressesToMirror").await;
    assert!(message.ends_with("5 addresses were skipped"), "{message}");

    // A change of nothing but labels and annotations is taken over too.
    let meta = json!({"metadata": {"labels": {"tier": "data"}, "annotations": {"owner": "ops"}}});
    world.patch::<Endpoints>("db", meta).await;
    world
        .eventually("labels and annotations follow", async |world| {
            let slices = world.list::<EndpointSlice>().await;
            let follows = slices.iter().all(|slice| {
                let meta = &slice.metadata;
                meta.labels.as_ref().is_some_and(|all| all["tier"] == "data")
                    && meta.annotations.as_ref().is_some_and(|all| all["owner"] == "ops")
            });
            (slices.len() == 2 && follows).then_some(())
        })
        .await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes, "what is mirrored is not written again");
    // Who says so is not mirrored, and neither is who has a selector.
    let skip = json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}});
    world.patch::<Endpoints>("db", skip).await;
    world
        .eventually("nothing is mirrored", async |world| {
            world.list::<EndpointSlice>().await.is_empty().then_some(())
        })
        .await;
}
