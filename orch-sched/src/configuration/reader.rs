//! Reads objects strictly: what nobody asked for is complained about.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Complaints, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Complaints(pub(super) Vec<String>);

/// One object, field by field.
pub(super) struct Reader<'a> {
    path: String,
    fields: Option<&'a Map<String, Value>>,
    asked: BTreeSet<&'static str>,
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl<'a> Reader<'a> {
    /// An object at a path; an absent one has no fields.
    pub(super) fn new(path: &str, value: Option<&'a Value>, complaints: &mut Complaints) -> Self {
        let fields = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) => Some(fields),
            Some(other) => {
                let found = go_type(other);
                complaints.0.push(format!("json: cannot unmarshal {found} into {path:?}"));
                None
            }
        };
        Self { path: path.to_owned(), fields, asked: BTreeSet::new() }
    }

    /// The path of a field.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field as it is; null is absent.
    pub(super) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.insert(name);
        self.fields?.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there.
    pub(super) fn has(&mut self, name: &'static str) -> bool {
        self.value(name).is_some()
    }

    /// A field of a type.
    pub(super) fn get<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        complaints: &mut Complaints,
    ) -> Option<T> {
        let value = self.value(name)?;
        let read = serde_json::from_value(value.clone());
        if read.is_err() {
            let (found, path) = (go_type(value), self.path_of(name));
            complaints.0.push(format!("json: cannot unmarshal {found} into {path:?}"));
        }
        read.ok()
    }

    /// A field that is an object.
    pub(super) fn object(&mut self, name: &'static str, complaints: &mut Complaints) -> Self {
        let value = self.value(name);
        Self::new(&self.path_of(name), value, complaints)
    }

    /// A field that is a list of objects.
    pub(super) fn objects(&mut self, name: &'static str, complaints: &mut Complaints) -> Vec<Self> {
        let path = self.path_of(name);
        match self.value(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                let item = |(at, item)| Self::new(&format!("{path}[{at}]"), Some(item), complaints);
                items.map(item).collect()
            }
            Some(other) => {
                let found = go_type(other);
                complaints.0.push(format!("json: cannot unmarshal {found} into {path:?}"));
                Vec::new()
            }
        }
    }

    /// Complains about the fields that nobody asked for.
    pub(super) fn finish(self, complaints: &mut Complaints) {
        for name in self.fields.into_iter().flat_map(Map::keys) {
            if !self.asked.contains(name.as_str()) {
                complaints.0.push(format!("unknown field {:?}", self.path_of(name)));
            }
        }
    }
}
