//! How pods find the server.
//!
//! Source: `test/e2e/network/apiserver.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::world::{ADDRESS, World};

/// The Service `kubernetes` is there.
pub(super) async fn should_provide_secure_master_service() {
    let world = World::start().await;
    let service = world.of("v1", "Service", "default").await.get("kubernetes").await;
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
}

/// Its Endpoints and its EndpointSlices lead to the same addresses and ports: the server's.
pub(super) async fn should_have_endpoints_and_endpointslices_pointing_to_api_server() {
    let world = World::start().await;
    world.of("v1", "Service", "default").await.get("kubernetes").await;
    let endpoints = world.of("v1", "Endpoints", "default").await.get("kubernetes").await;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for subset in list(&endpoints, "subsets") {
        for address in list(&subset, "addresses").iter().chain(&list(&subset, "notReadyAddresses"))
        {
            addresses.insert(address["ip"].as_str().unwrap().to_owned());
        }
        ports.extend(list(&subset, "ports").iter().filter_map(|port| port["port"].as_u64()));
    }
    let slices = world.of("discovery.k8s.io/v1", "EndpointSlice", "default").await;
    let slices = slices.list("kubernetes.io/service-name=kubernetes").await;
    assert!(!slices.is_empty());
    let (mut of_slices, mut slice_ports) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| slice["addressType"] == "IPv4") {
        for endpoint in list(slice, "endpoints") {
            let own = list(&endpoint, "addresses");
            of_slices.extend(own.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        slice_ports.extend(list(slice, "ports").iter().filter_map(|port| port["port"].as_u64()));
    }
    assert_eq!((&of_slices, &slice_ports), (&addresses, &ports));
    assert_eq!(addresses, BTreeSet::from([ADDRESS.ip().to_string()]));
    assert_eq!(ports, BTreeSet::from([u64::from(ADDRESS.port())]));
}
