//! Leases as objects.
//!
//! Source: `test/e2e/common/node/lease.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, names},
    world::World,
};

fn spec(holder: &str, seconds: u32, minute: u32, transitions: u32) -> Value {
    json!({
        "holderIdentity": holder, "leaseDurationSeconds": seconds,
        "acquireTime": format!("2026-01-02T03:{minute:02}:00.123456Z"),
        "renewTime": format!("2026-01-02T03:{minute:02}:05.654321Z"),
        "leaseTransitions": transitions,
    })
}

/// What is created, updated and patched is read as it was written, to the microsecond; a second
/// lease is found with the first and deleted by its label alone.
pub(super) async fn lease_api_should_be_available() {
    let world = World::with_namespace("lease").await;
    world.discover("coordination.k8s.io", "v1", &["leases"]).await;
    let leases = world.of("coordination.k8s.io/v1", "Lease", "lease").await;
    let first = spec("holder", 30, 4, 0);
    let lease = json!({"metadata": {"name": "lease"}, "spec": first});
    leases.create(lease).await;
    let mut read = leases.get("lease").await;
    assert_eq!(read["spec"], first);

    let second = spec("holder2", 60, 5, 1);
    read["spec"] = second.clone();
    leases.replace(read).await;
    assert_eq!(leases.get("lease").await["spec"], second);

    let third = spec("holder3", 50, 6, 2);
    leases.patch("lease", STRATEGIC, json!({"spec": third})).await;
    assert_eq!(leases.get("lease").await["spec"], third);

    let labels = json!({"deletecollection": "true"});
    let lease = json!({"metadata": {"name": "lease2", "labels": labels},
        "spec": spec("holder", 30, 7, 0)});
    leases.create(lease).await;
    assert_eq!(names(&leases.list("").await), ["lease", "lease2"]);
    leases.delete_all("deletecollection=true").await;
    assert_eq!(names(&leases.list("").await), ["lease"]);
    leases.delete("lease").await;
    leases.gone("lease").await;
}
