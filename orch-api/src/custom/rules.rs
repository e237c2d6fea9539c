//! The rules for values that a schema states: types, ranges, patterns, lengths.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/validate`, and
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/validation/validation.go`.

use std::collections::BTreeMap;

use orch_core::status::{FieldError, FieldErrorType};
use regex::Regex;
use serde_json::{Map, Value};

use super::{formats, patterns::Patterns};

mod bounds;
mod keys;

use bounds::Bounds;
use keys::Keys;

/// Upstream names the place of what several schemas together refuse in the message only.
const NOWHERE: &str = "<nil>";

/// More than this nobody reads, and an object of wrong values would make a message of hundreds of
/// megabytes.
///
/// Differs: upstream tells all of them.
const ERRORS_MAX: usize = 1000;

/// The compiled rules for one value.
#[derive(Debug, Default)]
pub(super) struct Rules {
    ty: Option<String>,
    int_or_string: bool,
    nullable: bool,
    embedded: bool,
    format: Option<String>,
    allowed: Vec<Value>,
    pattern: Option<(String, Regex)>,
    bounds: Bounds,
    required: Vec<String>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    keys: Keys,
    combined: Combined,
}

#[derive(Debug, Default)]
struct Combined {
    all_of: Vec<Rules>,
    any_of: Vec<Rules>,
    one_of: Vec<Rules>,
    not: Option<Box<Rules>>,
}

impl Rules {
    /// Compiles a schema. A pattern that is none holds nobody up: the definition's validation
    /// refused it before.
    pub(super) fn of(schema: &Value) -> Self {
        Self::compiled(schema, &mut Patterns::default())
    }

    fn compiled(schema: &Value, patterns: &mut Patterns) -> Self {
        let text = |name: &str| schema.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let mut one = |name: &str| {
            let value = schema.get(name).filter(|value| value.is_object())?;
            Some(Box::new(Self::compiled(value, patterns)))
        };
        let (additional, items) = (one("additionalProperties"), one("items"));
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let pattern = text("pattern");
        Self {
            ty: text("type").filter(|ty| !ty.is_empty()),
            int_or_string: flag("x-kubernetes-int-or-string"),
            nullable: flag("nullable"),
            embedded: flag("x-kubernetes-embedded-resource"),
            format: text("format").filter(|format| !format.is_empty()),
            allowed: list(schema, "enum").cloned().collect(),
            pattern: pattern.and_then(|text| Some((text.clone(), patterns.compile(&text).ok()?))),
            bounds: Bounds::of(schema),
            required: list(schema, "required")
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            properties: fields
                .map(|(name, value)| (name.clone(), Self::compiled(value, patterns)))
                .collect(),
            additional,
            items,
            keys: Keys::of(schema),
            combined: Combined::of(schema, patterns),
        }
    }

    /// What is wrong with a whole object. Its metadata is the server's to check, and what an
    /// update leaves as it was may be wrong: the schema may be younger.
    ///
    /// Source: KEP-4008, `k8s.io/apiextensions-apiserver/pkg/apiserver/validation/ratcheting.go`.
    pub(super) fn check_object(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check(object, old, "", &mut errors);
        errors
    }

    /// What is wrong with a value at a path.
    pub(super) fn check_value(&self, value: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check(value, None, path, &mut errors);
        errors
    }

    fn check(&self, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
        if old == Some(value) || errors.len() >= ERRORS_MAX {
            return;
        }
        if value.is_null() && (self.nullable || self.ty.is_none() && !self.int_or_string) {
            return;
        }
        if !self.check_type(value, path, errors) {
            return;
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            errors.push(unsupported(path, value, &self.allowed));
        }
        match value {
            Value::String(text) => self.check_text(text, path, errors),
            Value::Number(number) => self.bounds.check_number(number, path, errors),
            Value::Array(items) => self.check_list(items, old, path, errors),
            Value::Object(fields) => self.check_fields(fields, old, path, errors),
            _ => {}
        }
        self.combined.check(value, path, errors);
    }

    fn check_type(&self, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
        let is = type_of(value);
        let fits = match self.ty.as_deref() {
            _ if self.int_or_string => matches!(is, "integer" | "string"),
            None => true,
            Some("number") => matches!(is, "integer" | "number"),
            Some(ty) => ty == is,
        };
        if !fits {
            let wanted = self.ty.as_deref().filter(|_| !self.int_or_string);
            let wanted = wanted.unwrap_or("integer,string");
            let why = format!("{path} in body must be of type {wanted}: \"{is}\"");
            errors.push(mistyped(path, Value::from(is), why));
        }
        fits
    }

    fn check_text(&self, text: &str, path: &str, errors: &mut Vec<FieldError>) {
        let (least, most) = self.bounds.length;
        let length = text.chars().count() as u64;
        if let Some(most) = most.filter(|most| length > *most) {
            errors.push(FieldError::too_long(field(path), usize::try_from(most).unwrap_or(0)));
        }
        if let Some(least) = least.filter(|least| length < *least) {
            let why = format!("{path} in body should be at least {least} chars long");
            errors.push(FieldError::invalid(field(path), text, why));
        }
        if let Some((source, pattern)) = &self.pattern
            && !pattern.is_match(text)
        {
            let why = format!("{path} in body should match '{source}'");
            errors.push(FieldError::invalid(field(path), text, why));
        }
        if let Some(format) = &self.format
            && !formats::fits(format, text)
        {
            let why = format!("{path} in body must be of type {format}: {text:?}");
            errors.push(mistyped(path, Value::from(text), why));
        }
    }

    fn check_list(
        &self,
        items: &[Value],
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        check_length(self.bounds.items, items.len(), "items", path, errors);
        self.keys.check(items, path, errors);
        let Some(rules) = &self.items else { return };
        for (at, item) in items.iter().enumerate() {
            let old = self.keys.same_item(item, old);
            rules.check(item, old, &format!("{path}[{at}]"), errors);
        }
    }

    fn check_fields(
        &self,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        check_length(self.bounds.properties, fields.len(), "properties", path, errors);
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            errors.push(FieldError::required(below(path, name), ""));
        }
        let unsaid =
            |name: &&str| fields.get(*name).and_then(Value::as_str).is_none_or(str::is_empty);
        for name in ["apiVersion", "kind"].iter().filter(|name| self.embedded && unsaid(name)) {
            errors.push(FieldError::required(below(path, name), "must not be empty"));
        }
        for (name, value) in fields {
            if path.is_empty() && name == "metadata" {
                continue;
            }
            if let Some(rules) = self.properties.get(name).or(self.additional.as_deref()) {
                let old = old.and_then(|old| old.get(name));
                rules.check(value, old, &below(path, name), errors);
            }
        }
    }

    fn accepts(&self, value: &Value, path: &str) -> bool {
        self.check_value(value, path).is_empty()
    }
}

impl Combined {
    fn of(schema: &Value, patterns: &mut Patterns) -> Self {
        let mut one = |schema: &Value| Rules::compiled(schema, patterns);
        let mut all = |name: &str| list(schema, name).map(&mut one).collect();
        Self {
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(one(not))),
        }
    }

    fn check(&self, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let mut refuse = |why: &str| {
            let why = format!("\"{path}\" must {why}");
            errors.push(FieldError::invalid(NOWHERE, "", why));
        };
        let fits = |rules: &&Rules| rules.accepts(value, path);
        if !self.any_of.is_empty() && !self.any_of.iter().any(|rules| fits(&rules)) {
            refuse("validate at least one schema (anyOf)");
        }
        if !self.one_of.is_empty() {
            match self.one_of.iter().filter(fits).count() {
                0 => refuse("validate one and only one schema (oneOf). Found none valid"),
                1 => {}
                many => refuse(&format!(
                    "validate one and only one schema (oneOf). Found {many} valid alternatives"
                )),
            }
        }
        if self.not.as_deref().is_some_and(|rules| fits(&rules)) {
            refuse("not validate the schema (not)");
        }
        // Each is asked once: twice would be twice as often on every level of nested schemas.
        let wrong: Vec<FieldError> =
            self.all_of.iter().flat_map(|rules| rules.check_value(value, path)).collect();
        if !wrong.is_empty() {
            refuse("validate all the schemas (allOf)");
            errors.extend(wrong);
        }
    }
}

fn list<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) => {
            let whole = number.is_i64() || number.is_u64();
            let whole = whole || number.as_f64().is_some_and(|number| number.fract() == 0.0);
            if whole { "integer" } else { "number" }
        }
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path as a field error has it: upstream's of the whole object is nothing.
fn field(path: &str) -> &str {
    if path.is_empty() { NOWHERE } else { path }
}

fn mistyped(path: &str, value: Value, detail: String) -> FieldError {
    let kind = FieldErrorType::TypeInvalid;
    FieldError { kind, ..FieldError::invalid(field(path), value, detail) }
}

fn unsupported(path: &str, value: &Value, allowed: &[Value]) -> FieldError {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let allowed: Vec<String> = allowed.iter().map(text).collect();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    FieldError::not_supported(field(path), value.clone(), &allowed)
}

/// Whether there are as many items or properties as there may be.
fn check_length(
    (least, most): (Option<u64>, Option<u64>),
    found: usize,
    what: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let length = found as u64;
    if let Some(most) = most.filter(|most| length > *most) {
        let most = usize::try_from(most).unwrap_or(0);
        errors.push(FieldError::too_many(field(path), found, most));
    }
    if let Some(least) = least.filter(|least| length < *least) {
        let why = format!("{path} in body should have at least {least} {what}");
        errors.push(FieldError::invalid(field(path), length, why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_held_to_their_schema_in_upstreams_words() {
        let schema = json!({"type": "object", "properties": {"v": {
            "type": "object", "required": ["must"], "properties": {
                "must": {"type": "string", "pattern": "^a+$", "maxLength": 3, "minLength": 2},
                "n": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
                "e": {"type": "string", "enum": ["x", "y"]},
                "port": {"x-kubernetes-int-or-string": true},
                "nil": {"type": "string", "nullable": true},
                "time": {"type": "string", "format": "date-time"},
                "set": {"type": "array", "items": {"type": "integer"}, "maxItems": 2,
                        "x-kubernetes-list-type": "set"},
                "one": {"type": "object", "properties": {"a": {}, "b": {}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            },
        }}});
        let rules = Rules::of(&schema);
        let check = |value: Value, expected: &[&str]| {
            let object = json!({"metadata": {"name": 7}, "v": value});
            let found: Vec<_> =
                rules.check_object(&object, None).iter().map(|e| e.to_string()).collect();
            assert_eq!(found, expected);
        };
        check(json!({"must": "aa", "n": 4, "e": "x", "port": "http", "nil": null}), &[]);
        check(json!({}), &["v.must: Required value"]);
        check(
            json!({"must": 7}),
            &["v.must: Invalid value: \"integer\": v.must in body must be of type string: \
               \"integer\""],
        );
        check(
            json!({"must": "b"}),
            &[
                "v.must: Invalid value: \"b\": v.must in body should be at least 2 chars long",
                "v.must: Invalid value: \"b\": v.must in body should match '^a+$'",
            ],
        );
        check(
            json!({"must": "aa", "n": 11}),
            &[
                "v.n: Invalid value: 11: v.n in body should be less than or equal to 10",
                "v.n: Invalid value: 11: v.n in body should be a multiple of 2",
            ],
        );
        check(
            json!({"must": "aa", "e": "z"}),
            &["v.e: Unsupported value: \"z\": supported values: \"x\", \"y\""],
        );
        check(
            json!({"must": "aa", "set": [1, 1, 2]}),
            &["v.set: Too many: 3: must have at most 2 items", "v.set[1]: Duplicate value: 1"],
        );
        check(
            json!({"must": "aa", "one": {}}),
            &["<nil>: Invalid value: \"\": \"v.one\" must validate one and only one schema \
               (oneOf). Found none valid"],
        );
        check(
            json!({"must": "aa", "time": "noon"}),
            &["v.time: Invalid value: \"noon\": v.time in body must be of type date-time: \
               \"noon\""],
        );
    }
}
