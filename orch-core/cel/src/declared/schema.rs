//! Declarations from OpenAPI schemas.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/schemas.go` (`SchemaDeclType`), `cel/limits.go`.

use serde_json::{Value as Json, json};

use super::{Declared, DeclaredList, Format, Shape, UNNAMED, escape};

/// The size of the largest request, which bounds every value that has no bound of its own.
///
/// Source: `k8s.io/apiserver/pkg/apis/cel/config.go` (`MaxRequestSizeBytes`).
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A longest point in time or span of time.
const TIME_MAX: u64 = 32;
const DATE_BYTES: u64 = 12;
const DATE_TIME_BYTES_MIN: u64 = 21;
const DURATION_BYTES_MIN: u64 = 3;
const STRING_BYTES_MIN: u64 = 2;

/// How many values may be in one request.
pub trait RequestSizes {
    /// How often at most the value can be in a list or map of a request without bounds.
    ///
    /// Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go`
    /// (`maxCardinality`).
    fn cardinality_max(&self) -> u64;
}

impl RequestSizes for Declared {
    fn cardinality_max(&self) -> u64 {
        REQUEST_BYTES_MAX / (self.bytes_min() + 1)
    }
}

impl Declared {
    /// The declaration of what an `openAPIV3Schema` describes, or `None` if expressions cannot see
    /// it: unknown fields are not visible, and neither are lists and maps of them. The root of a
    /// resource has `apiVersion`, `kind` and `metadata` with its names, whatever the schema says.
    ///
    /// ```
    /// use orch_cel::Declared;
    /// let schema = serde_json::json!({"type": "object", "properties": {
    ///     "replicas": {"type": "integer"},
    ///     "data": {"x-kubernetes-preserve-unknown-fields": true},
    /// }});
    /// let declared = Declared::of_schema(&schema, false).unwrap().named("spec");
    /// assert_eq!(declared.type_of().to_string(), "spec");
    /// ```
    pub fn of_schema(schema: &Json, resource_root: bool) -> Option<Self> {
        let declared = of_schema(schema, resource_root)?;
        let nullable = schema.get("nullable").and_then(Json::as_bool).unwrap_or_default();
        Some(if nullable { declared.or_null() } else { declared })
    }
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or_default()
}

/// A bound, of which less than nothing is nothing.
fn bound(schema: &Json, name: &str) -> Option<u64> {
    schema.get(name).and_then(Json::as_i64).map(|bound| bound.max(0) as u64)
}

fn nested(schema: &Json) -> Option<Declared> {
    Declared::of_schema(schema, flag(schema, "x-kubernetes-embedded-resource"))
}

fn of_schema(schema: &Json, resource_root: bool) -> Option<Declared> {
    if flag(schema, "x-kubernetes-int-or-string") {
        // The length is bounded in code points, which take four bytes at most.
        let length = bound(schema, "maxLength").map(|length| length.saturating_mul(4));
        return Some(Declared::new(Shape::IntOrString, length.unwrap_or(REQUEST_BYTES_MAX - 2), 1));
    }
    let kind = schema.get("type").and_then(Json::as_str);
    match kind {
        _ if resource_root => Some(object(schema, true)),
        Some("array") => list(schema),
        Some("object") => match schema.get("additionalProperties") {
            Some(values @ Json::Object(_)) => map(schema, values),
            _ => Some(object(schema, false)),
        },
        Some("string") => Some(string(schema)),
        Some("boolean") => Some(Declared::boolean()),
        Some("number") => Some(Declared::number()),
        Some("integer") => Some(Declared::integer()),
        _ => None,
    }
}

fn list(schema: &Json) -> Option<Declared> {
    let items = nested(schema.get("items")?)?;
    let fits = (REQUEST_BYTES_MAX - 2) / (items.bytes_min + 1);
    let items_max = bound(schema, "maxItems").unwrap_or(fits);
    let kind = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => DeclaredList::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            let keys = keys.into_iter().flatten().filter_map(Json::as_str);
            let escaped = keys.map(|key| escape(key).map_or_else(|| key.into(), |key| key.into()));
            DeclaredList::Map(escaped.collect())
        }
        _ => DeclaredList::Atomic,
    };
    Some(Declared::list(items, kind, items_max))
}

fn map(schema: &Json, values: &Json) -> Option<Declared> {
    let values = nested(values)?;
    let fits = (REQUEST_BYTES_MAX - 2) / (values.bytes_min + 6);
    let entries_max = bound(schema, "maxProperties").unwrap_or(fits);
    Some(Declared::map(values, entries_max))
}

fn object(schema: &Json, resource_root: bool) -> Declared {
    let mut properties: Vec<(String, Json)> = Vec::new();
    let fields = schema.get("properties").and_then(Json::as_object);
    let declared = |name: &str| fields.is_some_and(|fields| fields.contains_key(name));
    let complete = declared("kind") && declared("apiVersion") && named_metadata(schema);
    if resource_root && !complete {
        let text = json!({"type": "string"});
        let names = json!({"name": text, "generateName": text});
        properties.push(("kind".to_owned(), text.clone()));
        properties.push(("apiVersion".to_owned(), text));
        let metadata = json!({"type": "object", "properties": names});
        properties.push(("metadata".to_owned(), metadata));
    }
    let added = properties.len();
    for (name, property) in fields.into_iter().flatten() {
        if !properties[..added].iter().any(|(other, _)| other == name) {
            properties.push((name.clone(), property.clone()));
        }
    }
    let required = schema.get("required").and_then(Json::as_array);
    let required: Vec<&str> = required.into_iter().flatten().filter_map(Json::as_str).collect();
    let mut bytes_min = 2;
    let mut found = Vec::new();
    for (name, property) in properties {
        let Some(declared) = nested(&property) else { continue };
        if required.contains(&name.as_str()) && property.get("default").is_none() {
            bytes_min += name.len() as u64 + declared.bytes_min + 4;
        }
        found.push((name, declared));
    }
    let mut object = Declared::object(UNNAMED, found);
    object.bytes_min = bytes_min;
    object
}

fn named_metadata(schema: &Json) -> bool {
    let is = |at: &str, kind: &str| {
        schema.pointer(&format!("/properties/{at}/type")).and_then(Json::as_str) == Some(kind)
    };
    is("kind", "string")
        && is("apiVersion", "string")
        && is("metadata", "object")
        && is("metadata/properties/name", "string")
        && is("metadata/properties/generateName", "string")
}

fn string(schema: &Json) -> Declared {
    let formatted =
        |format, longest, bytes_min| Declared::new(Shape::Formatted(format), longest, bytes_min);
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => {
            let longest = bound(schema, "maxLength").unwrap_or(REQUEST_BYTES_MAX - 2);
            formatted(Format::Byte, longest, STRING_BYTES_MIN)
        }
        Some("duration") => formatted(Format::Duration, TIME_MAX, DURATION_BYTES_MIN),
        Some("date") => formatted(Format::Date, DATE_BYTES, DATE_BYTES),
        Some("date-time") => formatted(Format::DateTime, TIME_MAX, DATE_TIME_BYTES_MIN),
        _ => {
            let values = schema.get("enum").and_then(Json::as_array);
            let longest = values.filter(|values| !values.is_empty()).map(|values| {
                let lengths = values.iter().filter_map(Json::as_str).map(str::len);
                lengths.max().unwrap_or_default() as u64
            });
            let length = bound(schema, "maxLength").map(|length| length.saturating_mul(4));
            let longest = length.or(longest).unwrap_or(REQUEST_BYTES_MAX - 2);
            Declared::new(Shape::String, longest, STRING_BYTES_MIN)
        }
    }
}
