//! Secrets that do not change any more.
//!
//! Source: `test/e2e/common/storage/secrets_volume.go`.

use serde_json::{Value, json};

use super::{objects::refused, world::World};

/// Data change until the object says that it is immutable; then neither data nor that word change
/// any more, but labels do, and it can be deleted.
pub(super) async fn should_be_immutable_if_immutable_field_is_set() {
    let world = World::with_namespace("immutable").await;
    let secrets = world.of("v1", "Secret", "immutable").await;
    let object = json!({"metadata": {"name": "immutable"}, "data": {"data-1": "dmFsdWUtMQ=="}});
    let mut made = secrets.create(object).await;
    made["data"]["data-4"] = json!("dmFsdWUtNA==");
    let mut made = secrets.replace(made).await;
    made["immutable"] = json!(true);
    let made = secrets.replace(made).await;
    let invalid = (422, "Invalid".to_owned());

    let mut changed = made.clone();
    changed["data"]["data-5"] = json!("dmFsdWUtNQ==");
    assert_eq!(refused(secrets.try_replace("", changed).await), invalid);
    for back in [json!(false), Value::Null] {
        let mut changed = made.clone();
        changed["immutable"] = back;
        assert_eq!(refused(secrets.try_replace("", changed).await), invalid);
    }
    let mut labelled = made;
    labelled["metadata"]["labels"] = json!({"label1": "value1"});
    let labelled = secrets.replace(labelled).await;
    assert_eq!(labelled["metadata"]["labels"], json!({"label1": "value1"}));
    secrets.delete("immutable").await;
    secrets.gone("immutable").await;
}
