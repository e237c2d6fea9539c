//! Definitions as OpenAPI schemas.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use orch_core::schema::{self, Definition, Field, ListType, MapType, Shape, Type};
use serde_json::{Map, Value, json};

use super::{Endpoint, custom, descriptions};

/// Which version of OpenAPI is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// The schemas of one document: those asked for, and all that they refer to.
pub(super) struct Schemas {
    dialect: Dialect,
    made: BTreeMap<Cow<'static, str>, Value>,
}

static DESCRIPTIONS: LazyLock<Map<String, Value>> = LazyLock::new(descriptions::collect);

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, made: BTreeMap::new() }
    }

    /// A reference to a definition, which becomes part of the document.
    pub(super) fn reference(&mut self, definition: &'static Definition) -> Value {
        let mut wanted = vec![definition];
        while let Some(definition) = wanted.pop() {
            if !self.made.contains_key(definition.name) {
                self.made.insert(definition.name.into(), self.schema(definition));
                wanted.extend(definition.fields().iter().filter_map(|f| f.ty.innermost()));
                wanted.extend(schema_inside(definition.shape));
            }
        }
        json!({"$ref": self.target(definition)})
    }

    pub(super) fn finish(self) -> Map<String, Value> {
        self.made.into_iter().map(|(name, schema)| (name.into_owned(), schema)).collect()
    }

    /// The names of a custom kind's definition and of its list's, which become part of the
    /// document.
    pub(super) fn custom(&mut self, endpoint: &Endpoint) -> Option<(String, String)> {
        let schema = endpoint.schema.as_ref()?;
        let name = custom::name(&endpoint.kind);
        let list = format!("{name}List");
        if !self.made.contains_key(name.as_str()) {
            let (own, of_list) = (self.meta("ObjectMeta"), self.meta("ListMeta"));
            let object = custom::object(&endpoint.kind, schema, own, self.dialect);
            let items = custom::list(&endpoint.kind, &self.named(&name), of_list);
            self.made.insert(name.clone().into(), object);
            self.made.insert(list.clone().into(), items);
        }
        Some((name, list))
    }

    /// A reference to a definition that is part of the document.
    pub(super) fn named(&self, name: &str) -> Value {
        json!({"$ref": self.place(name)})
    }

    fn meta(&mut self, name: &str) -> Value {
        let meta = schema::definition(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
        let reference = meta.map_or_else(|| json!({"type": "object"}), |meta| self.reference(meta));
        // Beside a `$ref` version 3 ignores everything.
        if self.dialect == Dialect::V3 { json!({"allOf": [reference]}) } else { reference }
    }

    fn target(&self, definition: &Definition) -> String {
        self.place(definition.name)
    }

    fn place(&self, name: &str) -> String {
        match self.dialect {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }

    fn schema(&self, definition: &Definition) -> Value {
        let known = DESCRIPTIONS.get(definition.name);
        let mut schema = self.shape(definition.shape);
        if let Some(text) = known.and_then(|known| known.get("description")) {
            schema.insert("description".into(), text.clone());
        }
        let described =
            |field: &Field| known?.get("properties")?.get(field.name)?.get("description");
        let properties: Map<String, Value> = definition
            .fields()
            .iter()
            .map(|field| (field.name.to_owned(), self.property(field, described(field))))
            .collect();
        if !properties.is_empty() {
            schema.insert("properties".into(), Value::Object(properties));
        }
        let required: Vec<&str> =
            definition.fields().iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        if definition.map_type == MapType::Atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if !definition.kinds.is_empty() {
            let kinds: Vec<Value> = definition
                .kinds
                .iter()
                .map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind}))
                .collect();
            schema.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
        }
        Value::Object(schema)
    }

    fn shape(&self, shape: Shape) -> Map<String, Value> {
        let schema = match (shape, self.dialect) {
            (Shape::Struct | Shape::Raw, _) => json!({"type": "object"}),
            (Shape::Quantity, Dialect::V2) => json!({"type": "string"}),
            (Shape::Quantity, Dialect::V3) => {
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
            }
            (Shape::IntOrString, Dialect::V2) => {
                json!({"type": "string", "format": "int-or-string"})
            }
            (Shape::IntOrString, Dialect::V3) => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}],
                    "format": "int-or-string"})
            }
            (Shape::Time | Shape::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
            _ => json!({}),
        };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn property(&self, field: &Field, description: Option<&Value>) -> Value {
        let mut property = match (field.ty.definition(), self.dialect) {
            // Beside a `$ref` version 3 ignores everything; version 2's readers do not.
            (Some(definition), Dialect::V3) => {
                Map::from_iter([("allOf".into(), json!([{"$ref": self.target(definition)}]))])
            }
            _ => self.of_type(&field.ty),
        };
        if let Some(description) = description {
            property.insert("description".into(), description.clone());
        }
        if let Some(default) = field.default.filter(|_| self.dialect == Dialect::V3) {
            property.insert("default".into(), default.into());
        }
        extensions(field, &mut property);
        Value::Object(property)
    }

    fn of_type(&self, ty: &Type) -> Map<String, Value> {
        let schema = match ty {
            Type::String => json!({"type": "string"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Boolean => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Array(item) => json!({"type": "array", "items": self.of_type(item)}),
            Type::Map(item) => {
                json!({"type": "object", "additionalProperties": self.of_type(item)})
            }
            Type::Reference(reference) => json!({"$ref": self.target(reference.definition())}),
            _ => json!({"type": "object"}),
        };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// What the schema-or-something shapes hold.
fn schema_inside(shape: Shape) -> Option<&'static Definition> {
    let holds =
        matches!(shape, Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings);
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    holds.then(|| schema::definition(name)).flatten()
}

fn extensions(field: &Field, property: &mut Map<String, Value>) {
    let mut extend = |name: &str, value: Value| {
        property.insert(format!("x-kubernetes-{name}"), value);
    };
    match &field.list {
        ListType::Map(keys) => {
            extend("list-type", "map".into());
            extend("list-map-keys", json!(keys));
        }
        ListType::Set => extend("list-type", "set".into()),
        ListType::Atomic if field.atomic_list => extend("list-type", "atomic".into()),
        ListType::Atomic => {}
    }
    match field.map {
        Some(MapType::Atomic) => extend("map-type", "atomic".into()),
        Some(MapType::Granular) => extend("map-type", "granular".into()),
        None => {}
    }
    let strategies: Vec<&str> = [
        (field.patch.merge, "merge"),
        (field.patch.replace, "replace"),
        (field.patch.retain_keys, "retainKeys"),
    ]
    .into_iter()
    .filter_map(|(is, name)| is.then_some(name))
    .collect();
    if !strategies.is_empty() {
        extend("patch-strategy", strategies.join(",").into());
    }
    if let Some(key) = field.patch.key {
        extend("patch-merge-key", key.into());
    }
}
