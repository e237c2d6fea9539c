//! What OpenAPI says about custom resources, and what `kubectl` makes of it.
//!
//! Source: `test/e2e/apimachinery/crd_publish_openapi.go`.

use regex::Regex;
use serde_json::{Value, json};

use super::{
    definitions::{anything, definition},
    objects::{JSON_PATCH, done, name},
    shell::Served,
    world::World,
};

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn object(description: &str, properties: Value) -> Value {
    json!({"description": description, "type": "object", "properties": properties})
}

fn foo() -> Value {
    let word = |text: &str| json!({"description": text, "type": "string"});
    let bar = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "name": word("Name of Bar."), "age": word("Age of Bar."),
            "feeling": {"description": "Whether Bar is feeling great.", "type": "string",
                "enum": ["Great", "Down"]},
            "bazs": {"description": "List of Bazs.", "type": "array", "items": {"type": "string"}},
        },
    });
    let seen = json!({
        "type": "object",
        "properties": {
            "name": word("Name of Bar."),
            "available": {"description": "Whether the Bar is installed.", "type": "boolean"},
            "quxType": {"description": "Indicates to external qux type.", "type": "string",
                "pattern": "in-tree|out-of-tree"},
        },
    });
    let list =
        |text: &str, items: Value| json!({"description": text, "type": "array", "items": items});
    object(
        "Foo CRD for Testing",
        json!({
            "spec": object("Specification of Foo",
                json!({"bars": list("List of Bars and their specs.", bar)})),
            "status": object("Status of Foo",
                json!({"bars": list("List of Bars and their statuses.", seen)})),
        }),
    )
}

fn waldo(description: &str) -> Value {
    object(
        description,
        json!({
            "spec": object("Specification of Waldo",
                json!({"dummy": {"description": "Dummy property.", "type": "object"}})),
            "status": object("Status of Waldo", json!({"bars": {
                "description": "List of Bars and their statuses.", "type": "array",
                "items": {"type": "object"}}})),
        }),
    )
}

/// The name of a schema: the group backwards, the version, the kind.
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// A schema of the whole document, without what every object has.
async fn published(world: &World, name: &str) -> Option<Value> {
    let document = world.get("/openapi/v2").await;
    let mut schema = document["definitions"].get(name)?.clone();
    schema.as_object_mut()?.remove("x-kubernetes-group-version-kind");
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    }
    Some(schema)
}

async fn check(world: &World, group: &str, version: &str, kind: &str, schema: &Value) {
    let name = schema_name(group, version, kind);
    assert_eq!(published(world, &name).await.as_ref(), Some(schema), "{name}");
}

async fn gone(world: &World, group: &str, version: &str, kind: &str) {
    let name = schema_name(group, version, kind);
    assert_eq!(published(world, &name).await, None, "{name}");
}

/// Definitions in two groups are both published, and are no more when they are deleted.
pub(super) async fn works_for_multiple_crds_of_different_groups() {
    let world = World::start().await;
    let (one, other) = ("foo.example.com", "waldo.example.com");
    let waldo = waldo("Waldo CRD for Testing");
    let first = world.define(definition(one, "Foo", "Namespaced", &["v1"], &foo())).await;
    let second = world.define(definition(other, "Waldo", "Namespaced", &["v1beta1"], &waldo)).await;
    check(&world, other, "v1beta1", "Waldo", &waldo).await;
    check(&world, one, "v1", "Foo", &foo()).await;
    for definition in [first, second] {
        world.definitions().await.delete(name(&definition)).await;
    }
    gone(&world, one, "v1", "Foo").await;
    gone(&world, other, "v1beta1", "Waldo").await;
}

/// Versions of one group are published, be they of one definition or of two.
pub(super) async fn works_for_multiple_crds_of_same_group_but_different_versions() {
    let world = World::start().await;
    let group = "multi-ver.example.com";
    let first = world.define(definition(group, "Foo", "Namespaced", &["v2", "v3"], &foo())).await;
    check(&world, group, "v3", "Foo", &foo()).await;
    check(&world, group, "v2", "Foo", &foo()).await;
    world.definitions().await.delete(name(&first)).await;
    gone(&world, group, "v2", "Foo").await;

    let (group, waldo) = ("common-group.example.com", waldo("Waldo CRD for Testing"));
    world.define(definition(group, "Foo", "Namespaced", &["v4"], &foo())).await;
    world.define(definition(group, "Waldo", "Namespaced", &["v5"], &waldo)).await;
    check(&world, group, "v5", "Waldo", &waldo).await;
    check(&world, group, "v4", "Foo", &foo()).await;
}

/// Two kinds of one group and version are published.
pub(super) async fn works_for_multiple_crds_of_same_group_and_version_but_different_kinds() {
    let world = World::start().await;
    let (group, waldo) = ("common-group.example.com", waldo("Waldo CRD for Testing"));
    world.define(definition(group, "Foo", "Namespaced", &["v6"], &foo())).await;
    world.define(definition(group, "Waldo", "Namespaced", &["v6"], &waldo)).await;
    check(&world, group, "v6", "Waldo", &waldo).await;
    check(&world, group, "v6", "Foo", &foo()).await;
}

/// A version that gets another name is published under that, and the other one as before.
pub(super) async fn updates_the_published_spec_when_one_version_gets_renamed() {
    let world = World::start().await;
    let group = "multi-ver.example.com";
    let made = world.define(definition(group, "Foo", "Namespaced", &["v2", "v3"], &foo())).await;
    check(&world, group, "v3", "Foo", &foo()).await;
    check(&world, group, "v2", "Foo", &foo()).await;
    let patch = json!([
        {"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"},
    ]);
    world.definitions().await.patch(name(&made), JSON_PATCH, patch).await;
    check(&world, group, "v4", "Foo", &foo()).await;
    gone(&world, group, "v3", "Foo").await;
    check(&world, group, "v2", "Foo", &foo()).await;
}

/// A version that is not served any more is not published any more either.
pub(super) async fn removes_definition_from_spec_when_one_version_gets_changed_to_not_be_served() {
    let world = World::start().await;
    let group = "multi-to-single-ver.example.com";
    let made =
        world.define(definition(group, "Foo", "Namespaced", &["v5", "v6alpha1"], &foo())).await;
    check(&world, group, "v6alpha1", "Foo", &foo()).await;
    check(&world, group, "v5", "Foo", &foo()).await;
    let definitions = world.definitions().await;
    let mut changed = definitions.get(name(&made)).await;
    changed["spec"]["versions"][1]["served"] = json!(false);
    definitions.replace(changed).await;
    gone(&world, group, "v6alpha1", "Foo").await;
    check(&world, group, "v5", "Foo", &foo()).await;
}

/// A server that `kubectl` reaches, with a definition.
async fn served(kind: &str, schema: &Value) -> Served {
    let served = Served::start().await;
    let group = format!("{}.example.com", kind.to_lowercase());
    served.world.define(definition(&group, kind, "Namespaced", &["v1"], schema)).await;
    served
}

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn custom(kind: &str, name: &str, more: Value) -> String {
    let group = format!("{}.example.com", kind.to_lowercase());
    let mut object = json!({
        "kind": kind, "apiVersion": format!("{group}/v1"), "metadata": {"name": name},
    });
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object.to_string()
}

/// `kubectl create` and `kubectl apply` both take the object, which is deleted in between.
async fn takes(served: &Served, kind: &str, name: &str, object: &str) {
    let plural = format!("{}s", kind.to_lowercase());
    for verb in ["create", "apply"] {
        served.kubectl_with(&[verb, "-f", "-"], object).await.ok();
        served.kubectl(&["delete", &plural, name]).await;
    }
}

/// `kubectl explain` says what matches this.
async fn explains(served: &Served, what: &str, pattern: &str) {
    let said = served.kubectl(&["explain", what]).await;
    assert!(Regex::new(pattern).unwrap().is_match(&said), "{what}: {said}\n{pattern}");
}

/// `kubectl` takes what fits a schema, refuses what does not (unknown fields, missing ones, words
/// that are not in an enumeration), and explains every level of it, but no field that is not there.
pub(super) async fn works_for_crd_with_validation_schema() {
    let served = served("Foo", &foo()).await;
    check(&served.world, "foo.example.com", "v1", "Foo", &foo()).await;
    let valid = custom("Foo", "test-foo", json!({"spec": {"bars": [{"name": "test-bar"}]}}));
    takes(&served, "Foo", "test-foo", &valid).await;
    for (spec, complaint) in [
        (
            json!({"bars": [{"name": "b", "feeling": "NonExistentValue"}]}),
            "Unsupported value: \"NonExistentValue\"",
        ),
        (json!({"foo": true}), "unknown field \"spec.foo\""),
        (json!({"bars": [{"age": "10"}]}), "spec.bars[0].name: Required value"),
    ] {
        let object = custom("Foo", "test-foo", json!({"spec": spec}));
        for verb in ["create", "apply"] {
            let said = served.kubectl_with(&[verb, "-f", "-"], &object).await.failed();
            assert!(said.contains(complaint), "{said}");
        }
    }
    explains(
        &served,
        "foos",
        "(?s)DESCRIPTION:.*Foo CRD for Testing.*FIELDS:.*apiVersion.*<string>.*APIVersion \
         defines.*spec.*<Object>.*Specification of Foo",
    )
    .await;
    explains(
        &served,
        "foos.metadata",
        "(?s)DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*\
         CreationTimestamp is a timestamp",
    )
    .await;
    explains(
        &served,
        "foos.spec",
        r"(?s)DESCRIPTION:.*Specification of Foo.*FIELDS:.*bars.*<\[\]Object>.*List of Bars and",
    )
    .await;
    explains(&served, "foos.spec.bars",
        r"(?s)FIELD: bars.*<\[\]Object>.*DESCRIPTION:.*List of Bars and their specs.*FIELDS:.*bazs.*<\[\]string>.*List of Bazs.*name.*<string>.*Name of Bar").await;
    let said = served.kubectl_with(&["explain", "foos.spec.bars2"], "").await.failed();
    assert!(said.contains("field \"bars2\" does not exist"), "{said}");
    served.stop().await;
}

/// A schema that keeps unknown fields is published as one that says nothing; anything is taken.
pub(super) async fn works_for_crd_without_validation_schema() {
    let served = served("Empty", &anything()).await;
    let schema = published(&served.world, &schema_name("empty.example.com", "v1", "Empty")).await;
    assert_eq!(schema.map(|s| s["type"].clone()), Some(json!("object")));
    let any = custom("Empty", "test-cr", json!({"a": {"b": [{"c": "d"}]}}));
    takes(&served, "Empty", "test-cr", &any).await;
    explains(&served, "emptys", "(?s)DESCRIPTION:.*<empty>").await;
    served.stop().await;
}

/// Unknown fields at the root are taken where the schema keeps them, and the kind is explained.
pub(super) async fn works_for_crd_preserving_unknown_fields_at_the_schema_root() {
    let mut schema = waldo("preserve-unknown-properties at root for Testing");
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let served = served("Root", &schema).await;
    let any = custom("Root", "test-cr", json!({"a": {"b": [{"c": "d"}]}}));
    takes(&served, "Root", "test-cr", &any).await;
    explains(&served, "roots", "(?s)KIND:.*Root").await;
    served.stop().await;
}

/// And inside a field where the schema of that one keeps them.
pub(super) async fn works_for_crd_preserving_unknown_fields_in_an_embedded_object() {
    let mut schema = waldo("preserve-unknown-properties in nested field for Testing");
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let served = served("Nested", &schema).await;
    let any = custom("Nested", "test-cr", json!({"spec": {"a": null, "b": [{"c": "d"}]}}));
    takes(&served, "Nested", "test-cr", &any).await;
    explains(&served, "nesteds", "(?s)DESCRIPTION:.*preserve-unknown-properties in nested field")
        .await;
    let kept = served.world.of("nested.example.com/v1", "Nested", "default").await;
    let object: Value = serde_json::from_str(&any).unwrap();
    let made = done("create", kept.try_create(object).await);
    assert_eq!(made["spec"]["b"], json!([{"c": "d"}]));
    served.stop().await;
}
