//! The table of a custom resource: the columns that its definition asks for.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::JsonPath;
use crate::printers;

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The columns after the name.
#[derive(Debug)]
pub(super) struct Columns(Vec<Column>);

#[derive(Debug)]
struct Column {
    definition: Value,
    kind: String,
    path: Option<JsonPath>,
}

impl Columns {
    /// Those of a version of a definition; the age alone if it names none.
    pub(super) fn of(version: &Value) -> Self {
        let listed = version.get("additionalPrinterColumns").and_then(Value::as_array);
        let listed = listed.filter(|listed| !listed.is_empty());
        let age = [json!({
            "name": "Age", "type": "date", "description": CREATED,
            "jsonPath": ".metadata.creationTimestamp",
        })];
        let columns = listed.map_or(&age[..], Vec::as_slice);
        Self(columns.iter().map(Column::of).collect())
    }

    /// The columns as a table has them.
    pub(super) fn definitions(&self) -> Value {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "description": NAME,
            "priority": 0,
        });
        std::iter::once(name).chain(self.0.iter().map(|c| c.definition.clone())).collect()
    }

    /// The cells of a row.
    pub(super) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        std::iter::once(name).chain(self.0.iter().map(|column| column.cell(object, now))).collect()
    }
}

impl Column {
    fn of(column: &Value) -> Self {
        let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = text("jsonPath");
        let described = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            described => described.to_owned(),
        };
        let priority = column.get("priority").and_then(Value::as_i64).unwrap_or_default();
        let definition = json!({
            "name": text("name"), "type": text("type"), "format": text("format"),
            "description": described, "priority": priority,
        });
        Self { definition, kind: text("type").to_owned(), path: JsonPath::parse(path).ok() }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.as_ref().and_then(|path| path.first(object)) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            ("string", Value::String(_)) => value.clone(),
            ("string", value) => value.to_string().into(),
            ("integer", Value::Number(number)) => {
                let whole = number.as_i64().or_else(|| number.as_f64().map(|n| n as i64));
                whole.map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(then) => printers::since(then, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}
