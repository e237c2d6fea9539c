//! VolumeAttachments as objects.
//!
//! Source: `test/e2e/storage/volume_attachment.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, Objects, call, name},
    world::World,
};

async fn attachment(attachments: &Objects, number: u32) -> Value {
    let name = format!("va-e2e-{number}");
    let made = attachments
        .create(json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"attacher": "e2e-test.storage.k8s.io", "nodeName": "node",
                "source": {"persistentVolumeName": format!("pv-e2e-{number}")}},
            "status": {"attached": false},
        }))
        .await;
    assert_eq!(made["metadata"]["name"], name);
    made
}

/// One is labelled by a patch, found by that, and deleted; two others are labelled by updates and
/// deleted by their label.
pub(super) async fn should_run_through_the_lifecycle_of_a_volumeattachment() {
    let world = World::start().await;
    let attachments = world.all("storage.k8s.io/v1", "VolumeAttachment").await;
    let first = attachment(&attachments, 1).await;
    assert_eq!(attachments.get(name(&first)).await["metadata"]["uid"], first["metadata"]["uid"]);
    attachments.label(MERGE, &first, name(&first), "patched").await;
    let selector = format!("{}=patched", name(&first));
    assert_eq!(attachments.list(&selector).await.len(), 1);
    attachments.delete(name(&first)).await;
    assert_eq!(attachments.list(&selector).await.len(), 0);
    for number in [2, 3] {
        let made = attachment(&attachments, number).await;
        let mut read = attachments.get(name(&made)).await;
        read["metadata"]["labels"] = json!({"va-e2e": "updated"});
        let updated = attachments.replace(read).await;
        assert_eq!(updated["metadata"]["labels"]["va-e2e"], "updated");
    }
    assert_eq!(attachments.list("va-e2e=updated").await.len(), 2);
    attachments.delete_all("va-e2e=updated").await;
    assert_eq!(attachments.list("va-e2e=updated").await.len(), 0);
}

/// Whether a volume is attached is read, patched and replaced through the status.
pub(super) async fn should_apply_changes_to_a_volumeattachment_status() {
    let world = World::start().await;
    let attachments = world.all("storage.k8s.io/v1", "VolumeAttachment").await;
    let made = attachment(&attachments, 1).await;
    attachments.label(MERGE, &made, name(&made), "patched").await;
    let at = format!("{}/status", name(&made));
    let path = format!("{}/{at}", attachments.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(read["status"]["attached"], false);
    let patch = json!({"status": {"attached": true}});
    let patched = attachments.patch(&at, MERGE, patch).await;
    assert_eq!(patched["status"]["attached"], true);
    let mut read = attachments.get(name(&made)).await;
    read["status"]["attached"] = json!(false);
    let updated = attachments.replace_status(read).await;
    assert_eq!(updated["status"]["attached"], false);
    attachments.delete(name(&made)).await;
    assert_eq!(attachments.list(&format!("{}=patched", name(&made))).await.len(), 0);
}
