//! ConfigMaps that do not change any more.
//!
//! Source: `test/e2e/common/storage/configmap_volume.go`.

use serde_json::{Value, json};

use super::{objects::refused, world::World};

/// Data change until the object says that it is immutable; then neither data nor that word change
/// any more, but labels do, and it can be deleted.
pub(super) async fn should_be_immutable_if_immutable_field_is_set() {
    let world = World::with_namespace("immutable").await;
    let maps = world.of("v1", "ConfigMap", "immutable").await;
    let object = json!({"metadata": {"name": "immutable"}, "data": {"data-1": "dmFsdWUtMQ=="}});
    let mut made = maps.create(object).await;
    made["data"]["data-4"] = json!("dmFsdWUtNA==");
    let mut made = maps.replace(made).await;
    made["immutable"] = json!(true);
    let made = maps.replace(made).await;
    let invalid = (422, "Invalid".to_owned());

    let mut changed = made.clone();
    changed["data"]["data-5"] = json!("dmFsdWUtNQ==");
    assert_eq!(refused(maps.try_replace("", changed).await), invalid);
    for back in [json!(false), Value::Null] {
        let mut changed = made.clone();
        changed["immutable"] = back;
        assert_eq!(refused(maps.try_replace("", changed).await), invalid);
    }
    let mut labelled = made;
    labelled["metadata"]["labels"] = json!({"label1": "value1"});
    let labelled = maps.replace(labelled).await;
    assert_eq!(labelled["metadata"]["labels"], json!({"label1": "value1"}));
    maps.delete("immutable").await;
    maps.gone("immutable").await;
}
