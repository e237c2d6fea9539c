//! EndpointSlices as objects.
//!
//! Source: `test/e2e/network/endpointslice.go`.

use serde_json::json;

use super::{
    operations::{every_verb, nothing_more},
    world::World,
};

/// All verbs of slices, in a namespace and over all.
pub(super) async fn should_support_creating_endpointslice_api_operations() {
    let world = World::with_namespace("endpointslice").await;
    world.discover("discovery.k8s.io", "v1", &["endpointslices"]).await;
    let slices = world.of("discovery.k8s.io/v1", "EndpointSlice", "endpointslice").await;
    let everywhere = world.all("discovery.k8s.io/v1", "EndpointSlice").await;
    let make = |number| {
        json!({
            "metadata": {"name": format!("e2e-example-ing{number}")},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.2.3", "10.1.2.4"]}],
            "ports": [{"name": "port80", "port": 80, "protocol": "TCP"}],
        })
    };
    every_verb(&slices, Some(&everywhere), make, nothing_more).await;
}
