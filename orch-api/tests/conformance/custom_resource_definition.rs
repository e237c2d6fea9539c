//! Definitions of custom resources as objects, and defaults in their schemas.
//!
//! Source: `test/e2e/apimachinery/custom_resource_definition.go`.

use serde_json::{Value, json};

use super::{
    definitions::{anything, definition},
    objects::{JSON_PATCH, call, name},
    world::World,
};

const GROUP: &str = "mygroup.example.com";

fn simple(kind: &str) -> Value {
    definition(GROUP, kind, "Cluster", &["v1beta1"], &anything())
}

/// A definition is created, established, and deleted again.
pub(super) async fn creating_deleting_custom_resource_definition_objects_works() {
    let world = World::start().await;
    let made = world.define(simple("Noxu")).await;
    let definitions = world.definitions().await;
    definitions.delete(name(&made)).await;
    definitions.gone(name(&made)).await;
}

/// Ten definitions are found by their label, as they were created, and deleted by it; the one
/// without the label stays.
pub(super) async fn listing_custom_resource_definition_objects_works() {
    let world = World::start().await;
    let mut made = Vec::new();
    for number in 0..10 {
        let mut one = simple(&format!("Listed{number}"));
        one["metadata"]["labels"] = json!({"e2e-list-test-uuid": "x"});
        made.push(world.define(one).await);
    }
    let other = world.define(simple("Other")).await;
    let definitions = world.definitions().await;
    let selector = "e2e-list-test-uuid=x";
    let found = definitions.list(selector).await;
    assert_eq!(found.len(), 10);
    for one in &found {
        let of = made.iter().find(|made| name(made) == name(one)).expect("one of those");
        assert_eq!(one["spec"], of["spec"]);
    }
    definitions.delete_all(selector).await;
    assert_eq!(definitions.list(selector).await.len(), 0);
    definitions.get(name(&other)).await;
}

/// The status is read, replaced and patched through its subresource.
pub(super) async fn getting_updating_patching_custom_resource_definition_status_sub_resource() {
    let world = World::start().await;
    let made = world.define(simple("Noxu")).await;
    let definitions = world.definitions().await;
    let path = format!("{}/{}/status", definitions.path, name(&made));
    let mut status = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(status["spec"], made["spec"]);
    let update = json!({"type": "", "status": "", "message": "updated"});
    status["status"]["conditions"].as_array_mut().unwrap().push(update);
    let updated = definitions.replace_status(status).await;
    let has = |object: &Value, message: &str| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|one| one["message"] == message)
    };
    assert!(has(&updated, "updated"), "{updated}");
    let patch = json!([{"op": "add", "path": "/status/conditions",
        "value": [{"message": "patched"}]}]);
    let at = format!("{}/status", name(&made));
    let patched = definitions.patch(&at, JSON_PATCH, patch).await;
    assert!(has(&patched, "patched"), "{patched}");
    assert!(has(&definitions.get(name(&made)).await, "patched"));
}

/// Discovery leads to definitions from `/apis` on.
pub(super) async fn should_include_custom_resource_definition_resources_in_discovery_documents() {
    let world = World::start().await;
    world.discover("apiextensions.k8s.io", "v1", &["customresourcedefinitions"]).await;
}

/// A default is given to objects that are created and to stored ones as they are read; what was
/// stored with a default keeps it when the schema has another.
pub(super) async fn custom_resource_defaulting_for_requests_and_from_storage_works() {
    let world = World::start().await;
    let mut schema = anything();
    schema["properties"] = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let made = world.define(definition(GROUP, "Noxu", "Cluster", &["v1beta1"], &schema)).await;
    let objects = world.all(&format!("{GROUP}/v1beta1"), "Noxu").await;
    objects.create(json!({"metadata": {"name": "cr-1"}})).await;

    let definitions = world.definitions().await;
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let patch = json!([{"op": "add", "path": format!("{at}/a/default"), "value": "A"}]);
    definitions.patch(name(&made), JSON_PATCH, patch).await;
    assert_eq!(objects.get("cr-1").await["a"], "A");
    let second = objects.create(json!({"metadata": {"name": "cr-2"}})).await;
    assert_eq!(second["a"], "A");

    let patch = json!([
        {"op": "remove", "path": format!("{at}/a/default")},
        {"op": "add", "path": format!("{at}/b/default"), "value": "B"},
    ]);
    definitions.patch(name(&made), JSON_PATCH, patch).await;
    let first = objects.get("cr-1").await;
    assert_eq!((&first["a"], &first["b"]), (&Value::Null, &json!("B")));
    let second = objects.get("cr-2").await;
    assert_eq!((&second["a"], &second["b"]), (&json!("A"), &json!("B")));
}
