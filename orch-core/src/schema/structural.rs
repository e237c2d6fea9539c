//! The structure of custom objects, as a CustomResourceDefinition states it.
//!
//! What the built-in [`Definition`](super::Definition) is to built-in kinds: which fields there
//! are, what they default to, how lists and maps merge. The rules for values are not part of it.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema`, `pruning` and `defaulting`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::types::MapType;

/// Fields of the root that every object has, whatever its schema says.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Without a limit a small object with many items would become one with many large defaults.
const DEFAULTS_BYTES_MAX: usize = 8 << 20;

/// The structure of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structural {
    properties: BTreeMap<String, Structural>,
    additional: Additional,
    items: Option<Box<Structural>>,
    /// The default, and how many bytes it takes.
    default: Option<(Value, usize)>,
    nullable: bool,
    preserves_unknown: bool,
    embedded: bool,
    list: StructuralList,
    map: MapType,
}

/// What an object may have besides its properties.
#[derive(Clone, Debug, Default, PartialEq)]
enum Additional {
    #[default]
    Nothing,
    Anything,
    Of(Box<Structural>),
}

/// How a list of custom objects merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StructuralList {
    /// It is one value, owned as a whole.
    #[default]
    Atomic,
    /// Its scalar elements are owned one by one.
    Set,
    /// Its objects are owned one by one, told apart by these fields.
    Map(Vec<String>),
}

impl Structural {
    /// Reads an `openAPIV3Schema`. What is no structure is left out: whether the schema is well
    /// formed is for the definition's validation to say.
    pub fn of(schema: &Value) -> Self {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let fields = schema.get("properties").and_then(Value::as_object);
        let properties = fields.into_iter().flatten();
        Self {
            properties: properties.map(|(name, value)| (name.clone(), Self::of(value))).collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Anything,
                Some(value @ Value::Object(_)) => Additional::Of(Box::new(Self::of(value))),
                _ => Additional::Nothing,
            },
            items: schema.get("items").filter(|i| i.is_object()).map(|i| Box::new(Self::of(i))),
            default: schema
                .get("default")
                .filter(|value| !value.is_null())
                .map(|value| (value.clone(), value.to_string().len())),
            nullable: flag("nullable"),
            preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            list: list_of(schema),
            map: match schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
                Some("atomic") => MapType::Atomic,
                _ => MapType::Granular,
            },
        }
    }

    /// What is known of a field of an object.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether the schema names the field, so that it is no entry of a map.
    pub fn names(&self, field: &str) -> bool {
        self.properties.contains_key(field)
    }

    /// What is known of the items of a list.
    pub fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// The value of a field that is left out.
    pub fn default_value(&self) -> Option<&Value> {
        self.default.as_ref().map(|(value, _)| value)
    }

    /// How the value, a list, merges.
    pub fn list_type(&self) -> &StructuralList {
        &self.list
    }

    /// How the value, an object, merges.
    pub fn map_type(&self) -> MapType {
        self.map
    }

    /// Whether the value is a whole object inside another one, with a kind and metadata.
    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Whether an object may have a field that nothing is known of.
    pub fn allows(&self, name: &str) -> bool {
        self.preserves_unknown
            || self.additional == Additional::Anything
            || self.embedded && ROOT.contains(&name)
    }

    /// Whether a value somewhere has a default.
    pub fn has_defaults(&self) -> bool {
        let inner = match &self.additional {
            Additional::Of(schema) => Some(&**schema),
            _ => None,
        };
        self.default.is_some()
            || self.properties.values().any(Self::has_defaults)
            || self.items.iter().any(|items| items.has_defaults())
            || inner.is_some_and(Self::has_defaults)
    }

    /// Takes out of a whole object what the schema does not know; gives the paths of what went, as
    /// strict decoding words them.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut gone = Vec::new();
        if let Value::Object(fields) = object {
            self.prune_fields(fields, true, "", &mut gone);
        }
        gone
    }

    fn prune_fields(
        &self,
        fields: &mut Map<String, Value>,
        root: bool,
        path: &str,
        gone: &mut Vec<String>,
    ) {
        fields.retain(|name, value| {
            if (root || self.embedded) && ROOT.contains(&name.as_str()) {
                return true;
            }
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match self.field(name) {
                Some(schema) => schema.prune_value(value, &at, gone),
                None if self.allows(name) => {}
                None => {
                    gone.push(format!("unknown field \"{at}\""));
                    return false;
                }
            }
            true
        });
    }

    fn prune_value(&self, value: &mut Value, path: &str, gone: &mut Vec<String>) {
        match value {
            Value::Object(fields) => self.prune_fields(fields, false, path, gone),
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (at, value) in list.iter_mut().enumerate() {
                    items.prune_value(value, &format!("{path}[{at}]"), gone);
                }
            }
            _ => {}
        }
    }

    /// Fills in what was left out, and takes out nulls where none may be. The metadata stays as
    /// it is. Past 8 MiB of defaults (an object that no server takes) nothing more is filled in.
    pub fn set_defaults(&self, value: &mut Value) {
        let mut left = DEFAULTS_BYTES_MAX;
        self.fill(value, &mut left);
    }

    fn fill(&self, value: &mut Value, left: &mut usize) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let settles = match fields.get(name) {
                        None => true,
                        Some(Value::Null) => !schema.nullable,
                        Some(_) => false,
                    };
                    match &schema.default {
                        Some((default, bytes)) if settles => {
                            *left = left.saturating_sub(*bytes);
                            if *left == 0 {
                                return;
                            }
                            fields.insert(name.clone(), default.clone());
                        }
                        _ if settles => {
                            fields.remove(name);
                        }
                        _ => {}
                    }
                }
                for (name, value) in fields {
                    if let Some(schema) = self.field(name) {
                        schema.fill(value, left);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                list.iter_mut().for_each(|value| items.fill(value, left));
            }
            _ => {}
        }
    }
}

fn list_of(schema: &Value) -> StructuralList {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => StructuralList::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            StructuralList::Map(keys.map(str::to_owned).collect())
        }
        _ => StructuralList::Atomic,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::of(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 3},
                "note": {"type": "string", "nullable": true, "default": "none"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "protocol": {"type": "string", "default": "TCP"},
                }}},
            }},
        }}))
    }

    #[test]
    fn what_the_schema_does_not_know_goes() {
        let mut object = json!({
            "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "other": 1,
            "spec": {"labels": {"x": "y"}, "raw": {"deep": {"er": 1}}, "list": [{"lost": 1}]},
        });
        let gone = schema().prune(&mut object);
        assert_eq!(gone, ["unknown field \"other\"", "unknown field \"spec.list[0].lost\""]);
        assert_eq!(object["spec"]["raw"]["deep"]["er"], 1);
        assert_eq!(object["spec"]["labels"]["x"], "y");
        assert_eq!(object["spec"]["list"], json!([{}]));
    }

    #[test]
    fn what_was_left_out_is_filled_in() {
        let check = |mut object: Value, expected: Value| {
            schema().set_defaults(&mut object);
            assert_eq!(object, expected);
        };
        check(json!({}), json!({"spec": {"size": 3, "note": "none"}}));
        check(
            json!({"spec": {"size": null, "note": null, "labels": null, "list": [{}]}}),
            json!({"spec": {"size": 3, "note": null, "list": [{"protocol": "TCP"}]}}),
        );
        assert!(schema().has_defaults());
    }
}
