//! The tables that the server prints for `kubectl get`: columns, and the cells of a row.
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion/printers.go`.

use serde_json::Value;

use crate::{kinds::Field, strategy::Column};

mod age;
pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod network;
pub(crate) mod pods;
pub(crate) mod policy;
pub(crate) mod storage;
pub(crate) mod workloads;

pub use age::{age, human_duration, since};

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

const fn column(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
    priority: i32,
) -> Column {
    Column { name, kind, format: "", description, priority }
}

/// The first column of nearly every table.
const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique among its kind in its namespace.",
    priority: 0,
};

/// The age column of every table.
const AGE: Column = column("Age", "string", "Time since the object was created.", 0);

const fn text(name: &'static str, description: &'static str) -> Column {
    column(name, "string", description, 0)
}

const fn number(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", description, 0)
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    column(name, "string", description, 1)
}

/// The table of kinds that have no better one.
pub(crate) const NAME_AND_AGE: [Column; 2] = [NAME, AGE];

pub(crate) fn name_and_age(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![name(object), age_cell(object, now)]
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn age_cell(object: &Value, now: jiff::Timestamp) -> Value {
    Value::String(age(object, now))
}

fn or_none(text: &str) -> Value {
    Value::from(if text.is_empty() { NONE } else { text })
}

fn or(text: &str, otherwise: &str) -> Value {
    Value::from(if text.is_empty() { otherwise } else { text })
}

fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A map of labels as `a=b,c=d`.
fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A `LabelSelector` in its string form.
fn selector(selector: &Value) -> String {
    let field = Field::root(selector);
    let mut terms: Vec<(String, String)> = field
        .entries("matchLabels")
        .map(|(key, value)| {
            (key.to_owned(), format!("{key}={}", value.as_str().unwrap_or_default()))
        })
        .collect();
    for requirement in field.items("matchExpressions") {
        let key = requirement.str("key");
        let mut values: Vec<&str> = requirement.strs("values").collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match requirement.str("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    if terms.is_empty() {
        return NONE.to_owned();
    }
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}

/// The names and the images of a pod spec's containers.
fn containers_and_images(spec: &Value) -> [Value; 2] {
    let spec = Field::root(spec);
    let all = |name: &str| {
        let texts: Vec<&str> = spec.items("containers").map(|c| c.str(name)).collect();
        Value::from(texts.join(","))
    };
    [all("name"), all("image")]
}
