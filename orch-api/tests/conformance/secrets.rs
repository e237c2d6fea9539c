//! Secrets as objects.
//!
//! Source: `test/e2e/common/node/secrets.go`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    objects::{STRATEGIC, names, refused},
    world::World,
};

const NAMESPACE: &str = "secrets";

/// An empty key is refused.
pub(super) async fn should_fail_to_create_secret_due_to_empty_secret_key() {
    let world = World::with_namespace(NAMESPACE).await;
    let secrets = world.of("v1", "Secret", NAMESPACE).await;
    let secret = json!({"metadata": {"name": "secret-emptykey-test"},
        "data": {"": STANDARD.encode("value-1\n")}});
    assert_eq!(refused(secrets.try_create(secret).await), (422, "Invalid".into()));
}

/// A secret is found over all namespaces, its data patched, and deleted by the label that the
/// patch gave it.
pub(super) async fn should_patch_a_secret() {
    let world = World::with_namespace(NAMESPACE).await;
    let secrets = world.of("v1", "Secret", NAMESPACE).await;
    let everywhere = world.all("v1", "Secret").await;
    let selector = "testsecret-constant=true";
    let secret = json!({
        "metadata": {"name": "test-secret", "labels": {"testsecret-constant": "true"}},
        "type": "Opaque", "data": {"key": STANDARD.encode("value")},
    });
    secrets.create(secret).await;
    assert_eq!(names(&everywhere.list(selector).await), ["test-secret"]);
    let patch = json!({"metadata": {"labels": {"testsecret": "true"}},
        "data": {"key": STANDARD.encode("value1")}});
    secrets.patch("test-secret", STRATEGIC, patch).await;
    let read = secrets.get("test-secret").await;
    assert_eq!(STANDARD.decode(read["data"]["key"].as_str().unwrap()).unwrap(), b"value1");
    secrets.delete_all("testsecret=true").await;
    assert_eq!(everywhere.list(selector).await.len(), 0);
}
