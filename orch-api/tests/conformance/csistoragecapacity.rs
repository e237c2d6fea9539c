//! CSIStorageCapacities as objects.
//!
//! Source: `test/e2e/storage/csistoragecapacity.go`.

use serde_json::json;

use super::{
    operations::{every_verb, nothing_more},
    world::World,
};

/// All verbs of capacities, in a namespace and over all.
pub(super) async fn should_support_csistoragecapacities_api_operations() {
    let world = World::with_namespace("capacity").await;
    world.discover("storage.k8s.io", "v1", &["csistoragecapacities"]).await;
    let capacities = world.of("storage.k8s.io/v1", "CSIStorageCapacity", "capacity").await;
    let everywhere = world.all("storage.k8s.io/v1", "CSIStorageCapacity").await;
    let make = |number| {
        json!({"metadata": {"name": format!("e2e-csc{number}")},
            "storageClassName": "e2e.example.com"})
    };
    every_verb(&capacities, Some(&everywhere), make, nothing_more).await;
}
