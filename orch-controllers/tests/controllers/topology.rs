//! For whom endpoints are meant first.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use orch_controllers::endpoint_slice::endpoint_slice;
use orch_core::client::PatchKind;
use serde_json::{Value, json};

use crate::world::{World, template};

async fn node(world: &World, name: &str, zone: &str, cpu: &str) {
    let node = json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {"allocatable": {"cpu": cpu},
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    world.create_cluster::<Node>(node).await;
}

/// A ready pod on a node; its number is the end of its address.
async fn pod(world: &World, number: u32, node: &str) {
    let name = format!("web-{number}");
    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["nodeName"] = json!(node);
    world.create::<Pod>(pod).await;
    let address = format!("10.0.0.{number}");
    let status = json!({"status": {"phase": "Running", "podIP": address,
        "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]}});
    world.resources::<Pod>().patch_status(&name, PatchKind::Merge, status).await.unwrap();
}

/// Two nodes in zone a and one in b, two pods on the first and one on each of the others.
async fn world(service: Value) -> World {
    let world = World::start(|informers| vec![endpoint_slice(informers)]);
    // Pods are placed by hand.
    world.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    for (name, zone, cpu) in [("node-1", "a", "2"), ("node-2", "a", "2"), ("node-3", "b", "4")] {
        node(&world, name, zone, cpu).await;
    }
    for (number, node) in [(1, "node-1"), (2, "node-1"), (3, "node-2"), (4, "node-3")] {
        pod(&world, number, node).await;
    }
    let mut wanted = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80}]}});
    json_patch::merge(&mut wanted, &service);
    world.create::<Service>(wanted).await;
    world
}

/// The zones and nodes that each endpoint is for, by its address.
async fn hints(world: &World) -> BTreeMap<String, String> {
    let slices = world.list::<EndpointSlice>().await;
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.clone().unwrap_or_default());
    let text = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let hints = endpoint.hints.clone().unwrap_or_default();
        let zones = hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name);
        let nodes = hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name);
        zones.chain(nodes).collect::<Vec<_>>().join(" ")
    };
    endpoints.map(|endpoint| (endpoint.addresses[0].clone(), text(&endpoint))).collect()
}

async fn until(world: &World, expected: [&str; 4]) {
    world
        .eventually(&format!("{expected:?}"), async |world| {
            let found = hints(world).await;
            (found.values().map(String::as_str).collect::<Vec<_>>() == expected).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn traffic_stays_in_the_zone_or_on_the_node_as_the_service_says() {
    let world = world(json!({})).await;
    until(&world, ["", "", "", ""]).await;
    for (value, expected) in [
        ("PreferClose", ["a", "a", "a", "b"]),
        ("PreferSameNode", ["a node-1", "a node-1", "a node-2", "b node-3"]),
        ("PreferSameZone", ["a", "a", "a", "b"]),
    ] {
        let patch = json!({"spec": {"trafficDistribution": value}});
        world.patch::<Service>("web", patch).await;
        until(&world, expected).await;
    }
    // One that is not ready is for nobody.
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    world.resources::<Pod>().patch_status("web-4", PatchKind::Merge, unready).await.unwrap();
    until(&world, ["a", "a", "a", ""]).await;
    world.patch::<Service>("web", json!({"spec": {"trafficDistribution": null}})).await;
    until(&world, ["", "", "", ""]).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_dealt_out_to_zones_by_their_cpus() {
    let auto =
        json!({"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}});
    let world = world(auto).await;
    // Half of the CPUs are in each zone: of four endpoints two are for each.
    until(&world, ["b", "a", "a", "b"]).await;
    assert_eq!(
        world.hears("web", "TopologyAwareHintsEnabled").await,
        "Topology Aware Hints has been enabled, addressType: IPv4"
    );
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
    // Zone b grows: it needs three of four, two of them from the other zone.
    node(&world, "node-4", "b", "8").await;
    until(&world, ["b", "b", "a", "b"]).await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
    // Of one node nothing is known: then nothing is of any.
    world
        .create_cluster::<Node>(json!({"metadata": {"name": "odd"}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}]}}))
        .await;
    until(&world, ["", "", "", ""]).await;
    assert_eq!(
        world.hears("web", "TopologyAwareHintsDisabled").await,
        "Insufficient Node information: allocatable CPU or zone not specified on one or more \
         nodes, addressType: IPv4"
    );
}

#[tokio::test(start_paused = true)]
async fn too_few_endpoints_are_not_dealt_out() {
    let auto =
        json!({"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "auto"}}});
    let world = world(auto).await;
    until(&world, ["b", "a", "a", "b"]).await;
    for name in ["web-1", "web-2", "web-3"] {
        world.delete::<Pod>(name).await;
    }
    world
        .eventually("no hints", async |world| {
            (hints(world).await.values().collect::<Vec<_>>() == [""]).then_some(())
        })
        .await;
    world
        .eventually("the reason", async |world| {
            let expected = "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: \
                            IPv4";
            world.told("web").await.iter().any(|(_, _, text)| text == expected).then_some(())
        })
        .await;
}
