//! The status of PersistentVolumes and of PersistentVolumeClaims.
//!
//! Source: `test/e2e/storage/persistent_volumes.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, call, names},
    world::World,
};

const NAMESPACE: &str = "pv";

/// The status of a volume and of a claim is read with a phase, patched, and replaced; nothing else
/// changes by that.
pub(super) async fn should_apply_changes_to_a_pv_pvc_status() {
    let world = World::with_namespace(NAMESPACE).await;
    let volumes = world.all("v1", "PersistentVolume").await;
    let claims = world.of("v1", "PersistentVolumeClaim", NAMESPACE).await;
    let volume = volumes
        .create(json!({
            "metadata": {"name": "pv-1", "labels": {"e2e-pv-pool": "pv"}},
            "spec": {
                "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": NAMESPACE,
                "csi": {"driver": "e2e-driver", "volumeHandle": "e2e-status-conformance"},
            },
        }))
        .await;
    let claim = claims
        .create(json!({
            "metadata": {"name": "pvc-1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": NAMESPACE,
                "resources": {"requests": {"storage": "2Gi"}}},
        }))
        .await;
    assert_eq!(names(&volumes.list("e2e-pv-pool=pv").await), ["pv-1"]);
    assert_eq!(names(&claims.list("").await), ["pvc-1"]);
    for (objects, name, phases) in
        [(&claims, "pvc-1", ["Pending", "Bound"]), (&volumes, "pv-1", ["Pending", "Available"])]
    {
        let path = format!("{}/{name}/status", objects.path);
        let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
        assert!(phases.contains(&read["status"]["phase"].as_str().unwrap()), "{read}");
    }

    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    let patch = json!({"status": {"conditions": [condition("StatusPatched")]}});
    let mut patched = claims.patch("pvc-1/status", MERGE, patch).await;
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatched");
    patched["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdated"));
    let updated = claims.replace_status(patched).await;
    assert_eq!(updated["status"]["conditions"][1]["type"], "StatusUpdated");
    assert_eq!(updated["spec"], claim["spec"]);

    let told =
        |object: &Value| (object["status"]["reason"].clone(), object["status"]["message"].clone());
    let patch = json!({"status": {"message": "StatusPatched", "reason": "E2E patchedStatus"}});
    let mut patched = volumes.patch("pv-1/status", MERGE, patch).await;
    assert_eq!(told(&patched), (json!("E2E patchedStatus"), json!("StatusPatched")));
    patched["status"]["message"] = json!("StatusUpdated");
    patched["status"]["reason"] = json!("E2E updatedStatus");
    let updated = volumes.replace_status(patched).await;
    assert_eq!(told(&updated), (json!("E2E updatedStatus"), json!("StatusUpdated")));
    assert_eq!(updated["spec"], volume["spec"]);
}
