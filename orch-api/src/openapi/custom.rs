//! The schemas of custom kinds as the documents have them.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder`, `v2/conversion.go`.

use serde_json::{Map, Value, json};

use super::schemas::Dialect;

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Group, version and kind.
pub(super) type Kind = (String, String, String);

/// The name of a custom kind's definition: `com.example.v1.Widget`.
pub(super) fn name((group, version, kind): &Kind) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version.as_str(), kind.as_str()]);
    parts.join(".")
}

/// The schema of an object, with what every object has. `metadata` refers to the built-in one.
pub(super) fn object(kind: &Kind, schema: &Value, metadata: Value, dialect: Dialect) -> Value {
    let mut object = schema.clone();
    if dialect == Dialect::V2 {
        to_v2(&mut object);
    }
    if !object["properties"].is_object() {
        object["properties"] = json!({});
    }
    object["type"] = "object".into();
    heads(&mut object["properties"], metadata);
    object["x-kubernetes-group-version-kind"] = json!([of_kind(kind)]);
    object
}

/// The schema of a list of objects.
pub(super) fn list(kind: &Kind, item: &Value, metadata: Value) -> Value {
    let (group, version, of) = kind;
    let mut properties = json!({"items": {
        "type": "array", "items": item, "description": format!("List of {of}."),
    }});
    heads(&mut properties, metadata);
    let kind = (group.clone(), version.clone(), format!("{of}List"));
    json!({
        "type": "object", "required": ["items"], "properties": properties,
        "description": format!("{of}List is a list of {of}"),
        "x-kubernetes-group-version-kind": [of_kind(&kind)],
    })
}

fn of_kind((group, version, kind): &Kind) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn heads(properties: &mut Value, mut metadata: Value) {
    metadata["description"] = METADATA.into();
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = metadata;
}

/// Takes out what readers of version 2 do not understand.
fn to_v2(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let flag = |fields: &Map<String, Value>, name: &str| fields.get(name) == Some(&true.into());
    let nullable = flag(fields, "nullable");
    let open = flag(fields, "x-kubernetes-preserve-unknown-fields");
    for name in ["allOf", "anyOf", "oneOf", "not", "nullable", "default"] {
        fields.remove(name);
    }
    if nullable || open {
        for name in ["items", "properties"] {
            fields.remove(name);
        }
    }
    if nullable {
        fields.remove("type");
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(to_v2);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            to_v2(inner);
        }
    }
}
