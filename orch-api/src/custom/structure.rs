//! Whether a definition's schema is structural.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`, and
//! `pkg/apis/apiextensions/validation/validation.go`,
//! `ValidateCustomResourceDefinitionOpenAPISchema`.

use std::collections::BTreeSet;

use orch_core::{schema::Structural, status::FieldError};
use serde_json::Value;

use super::{
    patterns::{PATTERNS_MAX, compile},
    rules::Rules,
};
use crate::kinds::Field;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const FORBIDDEN: [(&str, &str); 6] = [
    ("$ref", "$ref is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("id", "id is not supported"),
    ("patternProperties", "patternProperties is not supported"),
];
/// What belongs to the structure, and may not stand inside `allOf` and its kin.
const STRUCTURE: [&str; 9] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
];

const PATTERN_ERRORS_MAX: usize = 20;

/// What is wrong with the schema of a version.
pub(super) fn check(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    match schema.str("type") {
        "object" => {}
        "" => errors.push(schema.required("type", "must not be empty at the root")),
        _ => errors.push(schema.invalid("type", "must be object at the root")),
    }
    if flag(schema, "nullable") {
        errors.push(schema.forbidden("nullable", "nullable cannot be true at the root"));
    }
    let mut found = BTreeSet::new();
    patterns(schema.value, &mut found);
    if found.len() > PATTERNS_MAX {
        errors.push(FieldError::too_many(&*schema.path, found.len(), PATTERNS_MAX));
        return;
    }
    node(schema, errors);
    if errors.is_empty() {
        defaults(schema, errors);
    }
}

fn flag(schema: &Field<'_>, name: &str) -> bool {
    schema.bool(name)
}

fn node(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    for (name, why) in FORBIDDEN.iter().filter(|(name, _)| schema.has(name)) {
        errors.push(schema.forbidden(name, *why));
    }
    if schema.has("x-kubernetes-validations") {
        let why = "CEL validation rules are not supported by this server yet";
        errors.push(schema.forbidden("x-kubernetes-validations", why));
    }
    let ty = schema.str("type");
    if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.push(FieldError::not_supported(schema.at("type"), ty, &TYPES));
    }
    if flag(schema, "uniqueItems") {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(schema.forbidden("uniqueItems", why));
    }
    pattern(schema, errors);
    extensions(schema, ty, errors);
    fields(schema, errors);
    items(schema, ty, errors);
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.items(name).for_each(|inner| junctor(&inner, errors));
    }
    if let Some(not) = schema.opt("not") {
        junctor(&not, errors);
    }
}

/// The different patterns in a schema.
fn patterns<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Object(fields) => {
            found.extend(fields.get("pattern").and_then(Value::as_str));
            fields.values().for_each(|value| patterns(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| patterns(value, found)),
        _ => {}
    }
}

fn pattern(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    // To find a pattern too large takes a moment; who has that many wrong ones need not know all.
    if errors.len() < PATTERN_ERRORS_MAX
        && schema.has("pattern")
        && let Err(error) = compile(schema.str("pattern"))
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(schema.invalid("pattern", why));
    }
}

/// A specified value must say its type, unless an extension says it.
fn typed(schema: &Field<'_>, what: &str, errors: &mut Vec<FieldError>) {
    let said = flag(schema, "x-kubernetes-int-or-string")
        || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if schema.str("type").is_empty() && !said {
        errors.push(schema.required("type", format!("must not be empty for specified {what}")));
    }
    node(schema, errors);
}

fn fields(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    let properties = schema.get("properties");
    for (name, value) in schema.entries("properties") {
        let inner = Field::new(value, format!("{}[{name}]", properties.path));
        typed(&inner, "object fields", errors);
    }
    let additional = schema.get("additionalProperties");
    match additional.value {
        Value::Bool(false) => {
            let why = "additionalProperties cannot be set to false";
            errors.push(schema.forbidden("additionalProperties", why));
        }
        Value::Object(_) | Value::Bool(true) if schema.len_of("properties") > 0 => {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(schema.forbidden("additionalProperties", why));
        }
        Value::Object(_) => typed(&additional, "object fields", errors),
        _ => {}
    }
}

fn items(schema: &Field<'_>, ty: &str, errors: &mut Vec<FieldError>) {
    let items = schema.get("items");
    match items.value {
        Value::Array(_) => {
            let why = "items must be a schema object and not an array";
            errors.push(schema.forbidden("items", why));
        }
        Value::Object(_) => typed(&items, "array items", errors),
        _ if ty == "array" => errors.push(schema.required("items", "must be specified")),
        _ => {}
    }
}

fn extensions(schema: &Field<'_>, ty: &str, errors: &mut Vec<FieldError>) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema.raw(preserve) == false {
        errors.push(schema.invalid(preserve, "must be true or undefined"));
    }
    let (embedded, mixed) = ("x-kubernetes-embedded-resource", "x-kubernetes-int-or-string");
    if flag(schema, embedded) {
        if ty != "object" {
            errors.push(schema.invalid("type", format!("must be object if {embedded} is true")));
        }
        if schema.len_of("properties") == 0 && !flag(schema, preserve) {
            let why = format!("must not be empty if {embedded} is true without {preserve}");
            errors.push(schema.required("properties", why));
        }
    }
    if flag(schema, mixed) && !ty.is_empty() {
        errors.push(schema.forbidden("type", format!("must be empty if {mixed} is true")));
    }
    map_type(schema, ty, errors);
    list_type(schema, ty, errors);
}

fn map_type(schema: &Field<'_>, ty: &str, errors: &mut Vec<FieldError>) {
    let name = "x-kubernetes-map-type";
    schema.one_of(name, &["atomic", "granular"], true, errors);
    if schema.has(name) && ty != "object" {
        let why = format!("must be object if {name} is specified");
        errors.push(schema.invalid("type", why));
    }
}

fn list_type(schema: &Field<'_>, ty: &str, errors: &mut Vec<FieldError>) {
    let (name, keys) = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    schema.one_of(name, &["atomic", "map", "set"], true, errors);
    if schema.has(name) && ty != "array" {
        errors.push(schema.invalid("type", format!("must be array if {name} is specified")));
    }
    if schema.str(name) != "map" {
        if schema.len(keys) > 0 {
            errors.push(schema.invalid(name, format!("must be map if {keys} is non-empty")));
        }
        return;
    }
    if schema.len(keys) == 0 {
        errors.push(schema.required(keys, format!("must not be empty if {name} is map")));
    }
    let items = schema.get("items");
    if items.str("type") != "object" {
        let why = format!("must be object if parent array's {name} is map");
        errors.push(items.invalid("type", why));
    }
    let required: Vec<&str> = items.strs("required").collect();
    for (at, key) in schema.strs(keys).enumerate() {
        let property = items.get("properties").get(key);
        if !property.is_set() {
            let why = "entries must all be names of item properties";
            let path = format!("{}[{at}]", schema.at(keys));
            errors.push(FieldError::invalid(path, key, why));
        } else if !required.contains(&key) && !property.has("default") {
            let path = format!("{}[{key}].default", items.at("properties"));
            let why = format!(
                "this property is in {keys}, so it must have a default or be a required property"
            );
            errors.push(FieldError::required(path, why));
        }
    }
}

/// Inside `allOf` and its kin stand rules for values only.
fn junctor(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    let int_or_string = |name: &str| name == "type" && TYPES.contains(&schema.str("type"));
    for name in STRUCTURE.iter().filter(|name| schema.has(name)) {
        // The two types of an int-or-string may be told apart there.
        if int_or_string(name) && matches!(schema.str("type"), "integer" | "string") {
            continue;
        }
        errors.push(schema.forbidden(name, "must be undefined to be structural"));
    }
    for (name, why) in FORBIDDEN.iter().filter(|(name, _)| schema.has(name)) {
        errors.push(schema.forbidden(name, *why));
    }
    pattern(schema, errors);
    for (name, value) in schema.entries("properties") {
        junctor(&Field::new(value, format!("{}[{name}]", schema.at("properties"))), errors);
    }
    for name in ["items", "not"] {
        if let Some(inner) = schema.opt(name) {
            junctor(&inner, errors);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.items(name).for_each(|inner| junctor(&inner, errors));
    }
}

/// Defaults must be what the schema lets through as it is.
fn defaults(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.opt("default") {
        let structural = Structural::of(schema.value);
        let mut pruned = serde_json::json!({"default": default.value});
        let whole = Structural::of(&serde_json::json!({"properties": {"default": schema.value}}));
        if !whole.prune(&mut pruned).is_empty() {
            errors.push(schema.invalid("default", "must not have unknown fields"));
        }
        let mut filled = default.value.clone();
        structural.set_defaults(&mut filled);
        errors.extend(Rules::of(schema.value).check_value(&filled, &default.path));
    }
    for (name, value) in schema.entries("properties") {
        defaults(&Field::new(value, format!("{}[{name}]", schema.at("properties"))), errors);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.opt(name).filter(|inner| inner.value.is_object()) {
            defaults(&inner, errors);
        }
    }
}
