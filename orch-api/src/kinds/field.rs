//! An object under inspection: a JSON value that knows the path that leads to it.
//!
//! A missing field, a `null` and (for strings, lists and maps) an empty value mean the same in
//! upstream's typed structs, so the readers here give the zero value for all of them. Where
//! presence matters there is [`Field::has`].

use orch_core::status::FieldError;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// What validation collects.
pub(crate) type Errors = Vec<FieldError>;

/// A value and its path. Paths are built for objects and list items on the way down, and for
/// leaves only when there is something to complain about.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

impl<'a> Field<'a> {
    /// The whole object.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// A value at a path.
    pub(crate) fn new(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    /// The path of a child.
    pub(crate) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The path of an entry of a map-valued child.
    pub(crate) fn at_key(&self, name: &str, key: &str) -> String {
        format!("{}[{key}]", self.at(name))
    }

    /// A child's value, `null` if it is missing.
    pub(crate) fn raw(&self, name: &str) -> &'a Value {
        self.value.get(name).unwrap_or(&NULL)
    }

    /// A child, to go on from.
    pub(crate) fn get(&self, name: &str) -> Self {
        Self { value: self.raw(name), path: self.at(name) }
    }

    /// A child if it is there.
    pub(crate) fn opt(&self, name: &str) -> Option<Self> {
        self.has(name).then(|| self.get(name))
    }

    /// Whether a child is there and not `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.raw(name).is_null()
    }

    /// Whether the value itself is there.
    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// A child as text, empty if missing.
    pub(crate) fn str(&self, name: &str) -> &'a str {
        self.raw(name).as_str().unwrap_or_default()
    }

    /// A child as a number, if it is there.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.raw(name).as_i64()
    }

    /// A child as a truth value, `false` if missing.
    pub(crate) fn bool(&self, name: &str) -> bool {
        self.raw(name).as_bool().unwrap_or_default()
    }

    /// A child list's items, each with its path.
    pub(crate) fn items(&self, name: &str) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let base = self.at(name);
        let items = self.raw(name).as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(i, value)| Self { value, path: format!("{base}[{i}]") })
    }

    /// How many items a child list has.
    pub(crate) fn len(&self, name: &str) -> usize {
        self.raw(name).as_array().map_or(0, Vec::len)
    }

    /// How many entries a child map has.
    pub(crate) fn len_of(&self, name: &str) -> usize {
        self.raw(name).as_object().map_or(0, Map::len)
    }

    /// A child list's strings.
    pub(crate) fn strs(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.raw(name).as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// A child map's entries.
    pub(crate) fn entries(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.raw(name).as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
    }

    /// The child's value as upstream would print it in a complaint: text where text was missing.
    fn shown(&self, name: &str) -> Value {
        match self.raw(name) {
            Value::Null => Value::String(String::new()),
            value => value.clone(),
        }
    }

    /// A complaint about a child's value.
    pub(crate) fn invalid(&self, name: &str, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(self.at(name), self.shown(name), detail)
    }

    /// A complaint about a missing child.
    pub(crate) fn required(&self, name: &str, detail: impl Into<String>) -> FieldError {
        FieldError::required(self.at(name), detail)
    }

    /// A complaint about a child that may not be there.
    pub(crate) fn forbidden(&self, name: &str, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.at(name), detail)
    }

    /// A child must be one of these words; a missing one is `Required` or, if `optional`, fine.
    pub(crate) fn one_of(&self, name: &str, words: &[&str], optional: bool, errors: &mut Errors) {
        let text = self.str(name);
        if text.is_empty() {
            if !optional {
                errors.push(self.required(name, ""));
            }
        } else if !words.contains(&text) {
            errors.push(FieldError::not_supported(self.at(name), text, words));
        }
    }

    /// A child number must not be negative.
    pub(crate) fn non_negative(&self, name: &str, errors: &mut Errors) {
        if self.int(name).is_some_and(|n| n < 0) {
            errors.push(self.invalid(name, NEGATIVE));
        }
    }

    /// A child must be there and not empty.
    pub(crate) fn not_empty(&self, name: &str, errors: &mut Errors) {
        if self.str(name).is_empty() {
            errors.push(self.required(name, ""));
        }
    }

    /// A child must be as it was.
    pub(crate) fn immutable(&self, old: &Value, name: &str, errors: &mut Errors) {
        if !same(self.raw(name), old.get(name).unwrap_or(&NULL)) {
            let value = self.raw(name).clone();
            errors.push(FieldError::invalid(self.at(name), value, IMMUTABLE));
        }
    }
}

/// Upstream's words for a number below zero.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's words for a change that is not allowed.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Whether two values mean the same: `null`, missing and empty are alike at every depth.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(k, v)| same(v, b.get(k).unwrap_or(&NULL)))
                && b.iter().all(|(k, v)| a.contains_key(k) || is_zero(v))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b || (is_zero(a) && is_zero(b)),
    }
}

/// Whether a value says nothing.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_zero),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Sets a field that is missing, `null` or an empty string.
pub(crate) fn default_to(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    match fields.get(name) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    fields.insert(name.to_owned(), value.into());
}

/// Sets a number that is missing, `null` or zero (where upstream's type has no pointer).
pub(crate) fn default_nonzero(fields: &mut Map<String, Value>, name: &str, value: i64) {
    if fields.get(name).and_then(Value::as_i64).unwrap_or_default() == 0 {
        fields.insert(name.to_owned(), value.into());
    }
}

/// A child object, put there if it is missing; `None` if something else is in its place.
pub(crate) fn child<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    default_to(fields, name, Map::new());
    fields.get_mut(name)?.as_object_mut()
}

/// A child object if it is there.
pub(crate) fn child_opt<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(name)?.as_object_mut()
}

/// The objects of a child list.
pub(crate) fn children<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    fields
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The object's `spec`, put there if it is missing.
pub(crate) fn spec_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    child(object.as_object_mut()?, "spec")
}
