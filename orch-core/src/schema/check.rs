//! What an object has that its definition does not, and values of a wrong type.

use std::{fmt::Write as _, ops::RangeInclusive};

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::types::{Definition, Field, Shape, Type};
use crate::quantity::{Amount, QuantityError};

/// Upstream stops collecting strict-decoding complaints here.
const COMPLAINTS_MAX: usize = 100;

/// A value of another JSON type than its field has.
///
/// Source: the messages of `sigs.k8s.io/json` and of
/// `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in version \"{version}\" cannot be handled as a {kind}: {cause}")]
pub struct TypeError {
    /// The object's kind.
    pub kind: String,
    /// The object's version, without its group.
    pub version: String,
    /// What is wrong, as Go's decoder says it.
    pub cause: String,
}

/// Fields that the definition does not have, worded as upstream's strict decoding does:
/// `unknown field "spec.containers[0].imagee"`. At most 100.
pub fn unknown_fields(definition: &Definition, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit_struct(definition, value, &mut String::new(), &mut found);
    found
}

fn visit_struct(
    definition: &Definition,
    value: &Value,
    path: &mut String,
    found: &mut Vec<String>,
) {
    match (definition.shape, value) {
        (Shape::Struct, Value::Object(map)) => {
            for (key, value) in map {
                if found.len() >= COMPLAINTS_MAX {
                    return;
                }
                let length = path.len();
                path.push_str(if length == 0 { "" } else { "." });
                path.push_str(key);
                match definition.field(key) {
                    Some(field) => visit(&field.ty, value, path, found),
                    None => found.push(format!("unknown field \"{path}\"")),
                }
                path.truncate(length);
            }
        }
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, Value::Object(_)) => {
            if let Some(schema) = json_schema() {
                visit_struct(schema, value, path, found);
            }
        }
        _ => {}
    }
}

fn visit(ty: &Type, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (ty, value) {
        (Type::Reference(reference), _) => {
            visit_struct(reference.definition(), value, path, found);
        }
        (Type::Array(item), Value::Array(list)) if item.innermost().is_some() => {
            for (at, value) in list.iter().enumerate() {
                let _infallible = write!(path, "[{at}]");
                visit(item, value, path, found);
                path.truncate(length);
            }
        }
        (Type::Map(item), Value::Object(map)) if item.innermost().is_some() => {
            for (key, value) in map {
                let _infallible = write!(path, ".{key}");
                visit(item, value, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// `JSONSchemaProps`, which the schema-or-something shapes hold.
pub(crate) fn json_schema() -> Option<&'static Definition> {
    super::definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
}

/// Makes an object what upstream would hold after decoding it: without fields that the definition
/// does not have, without nulls and zero values where Go leaves them out (`hostNetwork: false`,
/// `labels: {}`), with quantities and times in their canonical form. What has a wrong type stays.
pub fn prune(definition: &Definition, value: &mut Value) {
    match (definition.shape, value) {
        (Shape::Struct, Value::Object(map)) => map.retain(|key, value| {
            let Some(field) = definition.field(key) else { return false };
            prune_type(&field.ty, value);
            !is_left_out(field, value)
        }),
        (Shape::Quantity, value @ (Value::Number(_) | Value::String(_))) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let canonical = text.parse::<Amount>().map(|amount| amount.to_string());
            *value = Value::String(canonical.unwrap_or(text));
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            if let Ok(time) = text.parse::<Timestamp>()
                && let Ok(second) = Timestamp::from_second(time.as_second())
            {
                *text = match definition.shape {
                    Shape::Time => second.to_string(),
                    _ => format!("{time:.6}"),
                };
            }
        }
        (
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings,
            value @ Value::Object(_),
        ) => {
            if let Some(schema) = json_schema() {
                prune(schema, value);
            }
        }
        _ => {}
    }
}

/// Whether Go's encoding of an object has nothing for a field of this value.
pub(super) fn is_left_out(field: &Field, value: &Value) -> bool {
    let kept = field.pointer || field.required || field.present;
    match (&field.ty, value) {
        (_, Value::Null) => true,
        (Type::String | Type::Bytes, Value::String(text)) => !kept && text.is_empty(),
        (Type::Boolean, Value::Bool(flag)) => !kept && !flag,
        (Type::Int32 | Type::Int64, Value::Number(number)) => !kept && number.as_i64() == Some(0),
        (Type::Array(_), Value::Array(list)) => !kept && list.is_empty(),
        (Type::Map(_), Value::Object(map)) => !kept && map.is_empty(),
        _ => false,
    }
}

fn prune_type(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Reference(reference), value) => prune(reference.definition(), value),
        (Type::Array(item), Value::Array(list)) => {
            list.iter_mut().for_each(|value| prune_element(item, value));
        }
        (Type::Map(item), Value::Object(map)) => {
            map.values_mut().for_each(|value| prune_element(item, value));
        }
        _ => {}
    }
}

/// An element of a list or a map, where Go reads a null as the zero of its type.
fn prune_element(ty: &Type, value: &mut Value) {
    if value.is_null() {
        *value = match ty {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Boolean => Value::Bool(false),
            Type::Int32 | Type::Int64 | Type::Double => Value::from(0),
            Type::Array(_) => Value::Array(Vec::new()),
            Type::Map(_) | Type::Object => Value::Object(Map::new()),
            Type::Reference(reference) => match reference.definition().shape {
                Shape::Struct => Value::Object(Map::new()),
                Shape::Quantity => Value::String("0".into()),
                Shape::IntOrString => Value::from(0),
                _ => return,
            },
        };
    }
    prune_type(ty, value);
}

/// Checks that every value has the JSON type of its field. Unknown fields and nulls are let pass.
///
/// # Errors
/// [`TypeError`] for the first wrong value; the API server answers it as 400 `BadRequest`.
pub fn check_types(definition: &Definition, value: &Value) -> Result<(), TypeError> {
    let mut at = Place { owner: definition, path: String::new() };
    at.check_definition(definition, value).map_err(|cause| {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let known = definition.kinds.first();
        let version = text("apiVersion").or(known.map(|gvk| gvk.version)).unwrap_or_default();
        TypeError {
            kind: text("kind").unwrap_or_else(|| definition.short_name()).to_owned(),
            version: version.rsplit('/').next().unwrap_or_default().to_owned(),
            cause,
        }
    })
}

/// Where a check is: the innermost struct, and the path of field names, which leaves out indexes.
struct Place<'a> {
    owner: &'a Definition,
    path: String,
}

type Checked = Result<(), String>;

impl<'a> Place<'a> {
    fn check_definition(&mut self, definition: &'a Definition, value: &Value) -> Checked {
        match (definition.shape, value) {
            (_, Value::Null)
            | (Shape::Any, _)
            | (Shape::SchemaOrBool, Value::Bool(_))
            | (Shape::SchemaOrArray | Shape::SchemaOrStrings, Value::Array(_))
            | (Shape::Raw, Value::Object(_))
            | (Shape::IntOrString, Value::String(_)) => Ok(()),
            (Shape::Struct, Value::Object(map)) => self.check_struct(definition, map),
            (
                Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings,
                Value::Object(map),
            ) => json_schema().map_or(Ok(()), |schema| self.check_struct(schema, map)),
            (Shape::IntOrString, value) => {
                integer(value, i32::MIN.into()..=i32::MAX.into()).then_some(()).ok_or_else(|| {
                    let found = described(value, true);
                    format!("json: cannot unmarshal {found} into Go value of type int32")
                })
            }
            (Shape::Quantity, Value::Number(_)) => Ok(()),
            (Shape::Quantity, Value::String(text)) => {
                text.parse::<Amount>().map(drop).map_err(|error| error.to_string())
            }
            (Shape::Quantity, _) => Err(QuantityError::Format.to_string()),
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                let (parsed, layout) = match definition.shape {
                    Shape::Time => (text.parse::<Timestamp>(), "2006-01-02T15:04:05Z07:00"),
                    _ => (text.parse(), "2006-01-02T15:04:05.000000Z07:00"),
                };
                parsed.map(drop).map_err(|_| {
                    let why = format!("cannot parse {text:?} as \"2006\"");
                    format!("parsing time {text:?} as {layout:?}: {why}")
                })
            }
            (Shape::Time | Shape::MicroTime, value) => Err(format!(
                "json: cannot unmarshal {} into Go value of type string",
                described(value, false)
            )),
            _ => Err(self.wrong(value, definition.go_name())),
        }
    }

    fn check_struct(&mut self, definition: &'a Definition, map: &Map<String, Value>) -> Checked {
        for (key, value) in map {
            let Some(field) = definition.field(key) else { continue };
            let (owner, length) = (self.owner, self.path.len());
            self.owner = definition;
            self.path.push_str(if length == 0 { "" } else { "." });
            self.path.push_str(key);
            self.check_type(&field.ty, value)?;
            self.path.truncate(length);
            self.owner = owner;
        }
        Ok(())
    }

    fn check_type(&mut self, ty: &Type, value: &Value) -> Checked {
        let right = match (ty, value) {
            (_, Value::Null) => true,
            (Type::Reference(reference), value) => {
                return self.check_definition(reference.definition(), value);
            }
            (Type::Bytes, Value::String(text)) => return check_base64(text),
            (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Double, Value::Number(_))
            | (Type::Object, Value::Object(_)) => true,
            (Type::Int32, value) => integer(value, i32::MIN.into()..=i32::MAX.into()),
            (Type::Int64, value) => integer(value, i64::MIN..=i64::MAX),
            (Type::Array(item), Value::Array(list)) => {
                return list.iter().try_for_each(|value| self.check_type(item, value));
            }
            (Type::Map(item), Value::Object(map)) => {
                return map.values().try_for_each(|value| self.check_type(item, value));
            }
            _ => false,
        };
        if right { Ok(()) } else { Err(self.wrong(value, &ty.go_name())) }
    }

    fn wrong(&self, value: &Value, ty: &str) -> String {
        let found = described(value, matches!(ty, "int32" | "int64"));
        if self.path.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {ty}");
        }
        let (owner, path) = (self.owner.short_name(), &self.path);
        format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {ty}")
    }
}

/// The value's kind as Go's decoder names it; a number that does not fit is spelt out.
fn described(value: &Value, spell_number: bool) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) if spell_number => format!("number {number}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn integer(value: &Value, range: RangeInclusive<i64>) -> bool {
    value.as_i64().is_some_and(|number| range.contains(&number))
}

fn check_base64(text: &str) -> Checked {
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                _ => text.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::of;

    #[test]
    fn unknown_fields_are_named_as_strict_decoding_names_them() {
        let deployment = of("apps", "v1", "Deployment").unwrap();
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"any": "thing"}, "extra": 1},
            "spec": {"template": {"spec": {"containers": [
                {"name": "a", "imagee": "b", "resources": {"limits": {"cpu": 1}}}]}}},
            "status": null,
        });
        assert_eq!(
            unknown_fields(deployment, &value),
            [
                "unknown field \"metadata.extra\"",
                "unknown field \"spec.template.spec.containers[0].imagee\"",
            ]
        );
        prune(deployment, &mut value);
        assert!(unknown_fields(deployment, &value).is_empty());
        assert_eq!(value.get("status"), None);
        let container = &value["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(*container, json!({"name": "a", "resources": {"limits": {"cpu": "1"}}}));
    }

    #[test]
    fn wrong_types_are_worded_as_gos_decoder_words_them() {
        let check = |kind: &str, spec: Value, cause: &str| {
            let (group, version) = if kind == "Deployment" { ("apps", "v1") } else { ("", "v1") };
            let value = json!({"apiVersion": version, "kind": kind, "spec": spec});
            let error = check_types(of(group, version, kind).unwrap(), &value).unwrap_err();
            let head = format!("{kind} in version \"v1\" cannot be handled as a {kind}: ");
            assert_eq!(error.to_string(), format!("{head}{cause}"));
        };
        check(
            "Deployment",
            json!({"replicas": "three"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of \
             type int32",
        );
        check(
            "Pod",
            json!({"containers": [{"image": 5}]}),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image \
             of type string",
        );
        check(
            "Pod",
            json!({"containers": {}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type \
             []v1.Container",
        );
        check(
            "Pod",
            json!({"priority": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type \
             int32",
        );
        check(
            "Pod",
            json!({"containers": [{"resources": {"limits": {"cpu": "1 core"}}}]}),
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
    }

    #[test]
    fn pruning_leaves_what_go_would_write() {
        let deployment = of("apps", "v1", "Deployment").unwrap();
        let mut value = json!({
            "metadata": {"labels": {}, "annotations": {"a": "", "b": null}, "generation": 0,
                "creationTimestamp": "2026-01-02T05:04:05+02:00"},
            "spec": {"replicas": 0, "paused": false, "selector": {}, "template": {"spec": {
                "hostNetwork": false, "nodeName": "", "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "a", "args": [], "command": [null], "resources": {"limits":
                    {"cpu": "1000m", "memory": "1024Mi", "wrong": "x"}}}],
                "initContainers": [], "volumes": [{"name": "v", "emptyDir": {}}]}}},
        });
        prune(deployment, &mut value);
        assert_eq!(
            value,
            json!({
                "metadata": {"annotations": {"a": "", "b": ""}, "creationTimestamp": "2026-01-02T03:04:05Z"},
                "spec": {"replicas": 0, "selector": {}, "template": {"spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "a", "command": [""], "resources": {"limits":
                        {"cpu": "1", "memory": "1Gi", "wrong": "x"}}}],
                    "volumes": [{"name": "v", "emptyDir": {}}]}}},
            })
        );
    }

    #[test]
    fn right_types_pass() {
        let service = of("", "v1", "Service").unwrap();
        let value = json!({"spec": {"ports": [{"port": 80, "targetPort": "http"},
            {"port": 81, "targetPort": 81}], "selector": null}, "unknown": []});
        assert_eq!(check_types(service, &value), Ok(()));
    }
}
