//! What nodes are given: addresses for their pods, and how long they may keep what pods refer to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Event, Node};
use orch_controllers::{
    node_ipam::{NodeIpamOptions, NodeRanges, node_ipam},
    node_ttl::node_ttl,
};
use orch_core::client::{DeleteOptions, PatchKind};
use serde_json::json;

use crate::world::World;

fn ranges(cidrs: &[&str]) -> NodeRanges {
    let cidrs: Vec<_> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    let services = vec!["10.244.0.0/24".parse().unwrap()];
    let options = NodeIpamOptions { service_cidrs: services, ..NodeIpamOptions::new(cidrs) };
    NodeRanges::new(&options).unwrap()
}

async fn node(world: &World, name: &str) {
    world.create_cluster::<Node>(json!({"metadata": {"name": name}})).await;
}

async fn cidrs(world: &World, name: &str) -> Vec<String> {
    let given = async |world: &World| {
        let node = world.all::<Node>().get_opt(name).await.unwrap()?;
        let spec = node.spec.as_ref()?;
        let cidrs = spec.pod_cidrs.clone()?;
        assert_eq!(spec.pod_cidr.as_ref(), cidrs.first());
        Some(cidrs)
    };
    world.eventually("addresses", given).await
}

#[tokio::test(start_paused = true)]
async fn nodes_get_addresses_of_both_families_and_keep_them() {
    let both = ["10.244.0.0/22", "fd00::/62"];
    let world = World::start(|informers| vec![node_ipam(informers, &ranges(&both))]);
    node(&world, "a").await;
    assert_eq!(cidrs(&world, "a").await, ["10.244.1.0/24", "fd00::/64"]);
    node(&world, "b").await;
    assert_eq!(cidrs(&world, "b").await, ["10.244.2.0/24", "fd00:0:0:1::/64"]);
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
    let cluster = world.cluster.clone();
    drop(world);

    // Another process knows from the nodes what is taken.
    let world = World::over(cluster, |informers| vec![node_ipam(informers, &ranges(&both))]);
    node(&world, "c").await;
    assert_eq!(cidrs(&world, "c").await, ["10.244.3.0/24", "fd00:0:0:2::/64"]);
    node(&world, "d").await;
    let told = async |world: &World| {
        let events = world.all::<Event>().list(Default::default()).await.unwrap();
        let reason = Some("CIDRNotAvailable");
        events.iter().find(|event| event.reason.as_deref() == reason)?.message.clone()
    };
    let message = world.eventually("no addresses are left", told).await;
    assert_eq!(message, "Node d status is now: CIDRNotAvailable");
    world.all::<Node>().delete("b", DeleteOptions::default()).await.unwrap();
    assert_eq!(cidrs(&world, "d").await[0], "10.244.2.0/24");
}

#[tokio::test(start_paused = true)]
async fn many_nodes_get_different_addresses_under_faults() {
    let faults = orch_core::testing::FaultRates {
        conflict_permille: 100,
        transport_permille: 200,
        ..orch_core::testing::FaultRates::default()
    };
    let world = World::with_faults(3, faults, |informers| {
        vec![node_ipam(informers, &ranges(&["10.244.0.0/16"]))]
    });
    for number in 0..50 {
        node(&world, &format!("n{number}")).await;
    }
    let mut all = BTreeSet::new();
    for number in 0..50 {
        all.extend(cidrs(&world, &format!("n{number}")).await);
    }
    assert_eq!(all.len(), 50, "no two nodes have the same");
}

#[tokio::test(start_paused = true)]
async fn the_larger_the_cluster_the_longer_nodes_may_keep_things() {
    let world = World::start(|informers| vec![node_ttl(informers)]);
    let ttl = async |name: &str, expected: &str| {
        let is = async |world: &World| {
            let node = world.all::<Node>().get(name).await.unwrap();
            let annotations = node.metadata.annotations.as_ref()?;
            (annotations.get("node.alpha.kubernetes.io/ttl")? == expected).then_some(())
        };
        world.eventually("the annotation", is).await;
    };
    for number in 0..100 {
        node(&world, &format!("n{number}")).await;
    }
    ttl("n0", "0").await;
    node(&world, "n100").await;
    ttl("n100", "15").await;
    // The others learn of it with their next change.
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    world.all::<Node>().patch("n0", PatchKind::Merge, patch).await.unwrap();
    ttl("n0", "15").await;
}
