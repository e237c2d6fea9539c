//! CSIDrivers as objects, and pods with volumes of such drivers.
//!
//! Source: `test/e2e/storage/csi_inline.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, STRATEGIC, name, refused},
    world::World,
};

/// A pod with two volumes of a driver is created, read, patched and deleted.
pub(super) async fn should_support_csivolumesource_in_pod_api() {
    let world = World::with_namespace("csi").await;
    let pods = world.of("v1", "Pod", "csi").await;
    let second = json!({"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true});
    let mounts = json!([{"name": "csi-inline-vol1", "mountPath": "/mnt/vol1"},
        {"name": "csi-inline-vol2", "mountPath": "/mnt/vol2"}]);
    let pod = json!({
        "metadata": {"name": "pod-csi-inline-volumes"},
        "spec": {
            "volumes": [
                {"name": "csi-inline-vol1", "csi": {"driver": "e2e.example.com"}},
                {"name": "csi-inline-vol2", "csi": second},
            ],
            "containers": [{"name": "c", "image": "busybox", "volumeMounts": mounts}],
        },
    });
    let made = pods.create(pod.clone()).await;
    assert_eq!(made["spec"]["volumes"][1]["csi"], second);
    assert_eq!(refused(pods.try_create(pod).await), (409, "AlreadyExists".into()));
    let read = pods.get(name(&made)).await;
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(pods.list("").await.len(), 1);
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = pods.patch(name(&made), MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    pods.delete(name(&made)).await;
    // A pod that no node has taken is gone at once.
    pods.gone(name(&made)).await;
}

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn driver(name: &str, modes: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"e2e-test": "csi"}},
        "spec": {"volumeLifecycleModes": modes, "fsGroupPolicy": "ReadWriteOnceWithFSType"},
    })
}

/// Two drivers are created, one of them labelled by a patch and an update; one is deleted by its
/// name, the other by its label.
pub(super) async fn should_run_through_the_lifecycle_of_a_csidriver() {
    let world = World::start().await;
    let drivers = world.all("storage.k8s.io/v1", "CSIDriver").await;
    let first = driver("inline-driver-1", json!(["Ephemeral"]));
    let made = drivers.create(first.clone()).await;
    let second =
        drivers.create(driver("inline-driver-2", json!(["Persistent", "Ephemeral"]))).await;
    assert_eq!(refused(drivers.try_create(first).await), (409, "AlreadyExists".into()));
    for one in [&made, &second] {
        assert_eq!(drivers.get(name(one)).await["metadata"]["uid"], one["metadata"]["uid"]);
    }
    let label = "inline-driver-2";
    drivers.label(STRATEGIC, &second, label, "patched").await;
    let mut changed = drivers.get(name(&second)).await;
    changed["metadata"]["labels"][label] = json!("updated");
    let updated = drivers.replace(changed).await;
    assert_eq!(updated["metadata"]["labels"][label], "updated");
    assert_eq!(drivers.list("e2e-test=csi").await.len(), 2);
    drivers.delete(name(&made)).await;
    drivers.gone(name(&made)).await;
    drivers.delete_all("inline-driver-2=updated").await;
    drivers.gone(name(&second)).await;
}
