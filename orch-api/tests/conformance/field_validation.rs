//! Fields that are not known, or written twice, under strict validation.
//!
//! Source: `test/e2e/apimachinery/field_validation.go`.

use serde_json::{Value, json};

use super::{
    definitions::{anything, definition},
    objects::{APPLY, Answer, call},
    world::World,
};

const STRICT: &str = "fieldManager=field_validation_mgr&fieldValidation=Strict";

/// Posts a Deployment with something wrong about it; the message of the refusal.
async fn deployment(metadata: &str, spec: &str) -> String {
    let world = World::with_namespace("validation").await;
    let body = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
        "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}},
            "template": {{"metadata": {{"labels": {{"app": "nginx"}}}},
                "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
    );
    let path = format!("/apis/apps/v1/namespaces/validation/deployments?{STRICT}");
    let status = call(&world.client, "POST", &path, &[], Some(body)).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"), "{status:?}");
    status.message.clone()
}

/// An unknown field and one that is there twice are both told, in this order.
pub(super) async fn should_detect_unknown_and_duplicate_fields_of_a_typed_object() {
    let spec = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;
    let message = deployment("", spec).await;
    let wanted = "strict decoding error: unknown field \"spec.unknownField\", duplicate field \
                  \"spec.replicas\"";
    assert!(message.contains(wanted), "{message}");
}

/// An unknown field of the metadata is told.
pub(super) async fn should_detect_unknown_metadata_fields_of_a_typed_object() {
    let message = deployment(r#""unknownMeta": "foo","#, "").await;
    let wanted = "strict decoding error: unknown field \"metadata.unknownMeta\"";
    assert!(message.contains(wanted), "{message}");
}

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn spec(preserves: bool, more: Value) -> Value {
    let word = || json!({"type": "string"});
    let number = || json!({"type": "integer", "format": "int32"});
    let mut properties = json!({
        "foo": word(),
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": {
            "type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort", "protocol"],
                "properties": {"containerPort": number(), "hostIP": word(), "hostPort": number(),
                    "name": word(), "protocol": word()}},
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        properties[key] = value.clone();
    }
    let mut spec = json!({"type": "object", "properties": properties});
    if preserves {
        spec["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

/// Applies an object, given as YAML, of a definition with this schema.
async fn apply(schema: &Value, metadata: &str, root: &str, fields: &str) -> Answer {
    let world = World::start().await;
    let versions = ["v1beta1", "v1beta2", "v0"];
    world.define(definition("mygroup.example.com", "Noxu", "Cluster", &versions, schema)).await;
    let body = format!(
        "\napiVersion: mygroup.example.com/v1beta1\nkind: Noxu\nmetadata:\n  name: mytest\n\
         {metadata}  finalizers:\n  - test-finalizer\n{root}spec:\n{fields}  cronSpec: \"* * * * \
         */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP"
    );
    let path = format!("/apis/mygroup.example.com/v1beta1/noxus/mytest?{STRICT}");
    call(&world.client, "PATCH", &path, &[("content-type", APPLY)], Some(body)).await
}

/// What fits a schema is applied.
pub(super) async fn should_create_apply_a_valid_cr_for_crd_with_validation_schema() {
    let made = apply(&spec(false, json!({})), "", "", "  foo: foo1\n").await.unwrap();
    assert_eq!(made["spec"]["ports"][0]["containerPort"], 80);
}

/// Without a schema worth the name any field is applied.
pub(super) async fn should_create_apply_a_cr_with_unknown_fields() {
    let made = apply(&anything(), "", "", "  unknown: uk1\n").await.unwrap();
    assert_eq!(made["spec"]["unknown"], "uk1");
}

/// A field that the schema does not declare is refused.
pub(super) async fn should_create_apply_an_invalid_cr_with_extra_properties() {
    let root = "unknownField: unknown\n";
    let status = apply(&spec(false, json!({})), "", root, "  foo: foo1\n").await.unwrap_err();
    let wanted = ".unknownField: field not declared in schema";
    assert!(status.message.contains(wanted), "{status:?}");
}

/// So are unknown fields of the metadata, of the object itself and of one inside it.
pub(super) async fn should_detect_unknown_metadata_fields_in_both_the_root_and_embedded_object() {
    let template = json!({
        "type": "object", "x-kubernetes-embedded-resource": true,
        "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {"type": "object"},
        },
    });
    let fields = "  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        \
                  unknownSubMeta: unknown\n        name: subobject\n        namespace: x\n  foo: \
                  foo1\n";
    let schema = spec(true, json!({"template": template}));
    let status = apply(&schema, "  unknownMeta: unknown\n", "", fields).await.unwrap_err();
    let wanted = [
        ".spec.template.metadata.unknownSubMeta: field not declared in schema",
        ".metadata.unknownMeta: field not declared in schema",
    ];
    assert!(wanted.iter().any(|text| status.message.contains(text)), "{status:?}");
}

/// A field that is written twice is refused, with its line, even where unknown ones are kept.
pub(super) async fn should_detect_duplicates_in_a_cr_when_preserving_unknown_fields() {
    let fields = "  unknown: uk1\n  foo: foo1\n  foo: foo2\n";
    let status = apply(&spec(true, json!({})), "", "", fields).await.unwrap_err();
    assert!(status.message.contains("line 11: key \"foo\" already set in map"), "{status:?}");
}
