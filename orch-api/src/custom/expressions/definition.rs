//! Whether the rules of a definition are well formed and cheap enough.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` and
//! `cel_validation.go`.

use orch_cel::Declared;
use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    compile::{Rule, compile},
    field_path, is_embedded,
};
use crate::kinds::Field;

/// What one expression may cost at most, as often as its value can be there.
const COST_MAX: u64 = 10_000_000;
/// What all expressions of a schema may cost together.
const TOTAL_COST_MAX: u64 = 100_000_000;
/// So many of the most expensive rules are named.
const NAMED_MAX: usize = 4;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is wrong with the texts of a value's rules, without looking into the expressions.
pub(in crate::custom) fn check_texts(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    for rule in schema.items("x-kubernetes-validations") {
        let (text, message) = (rule.str("rule"), rule.str("message"));
        let breaks = |text: &str| text.trim().contains(['\n', '\r']);
        if text.trim().is_empty() {
            errors.push(rule.required("rule", "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(rule.invalid("message", "must be non-empty if specified"));
        } else if breaks(message) {
            errors.push(rule.invalid("message", "must not contain line breaks"));
        } else if breaks(text) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(rule.required("message", why));
        }
        let expression = rule.str("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(rule.required("messageExpression", why));
        }
        if rule.has("reason") && !REASONS.contains(&rule.str("reason")) {
            let reason = rule.str("reason");
            errors.push(FieldError::not_supported(rule.at("reason"), reason, &REASONS));
        }
        check_field_path(schema.value, &rule, errors);
    }
}

fn check_field_path(schema: &Value, rule: &Field<'_>, errors: &mut Vec<FieldError>) {
    let path = rule.str("fieldPath");
    if path.is_empty() {
        return;
    }
    if path.trim().is_empty() {
        errors.push(rule.invalid("fieldPath", "must be non-empty if specified"));
    }
    if path.contains(['\n', '\r']) {
        errors.push(rule.invalid("fieldPath", "must not contain line breaks"));
    }
    if field_path::normalized(path, schema).is_none() {
        errors.push(rule.invalid("fieldPath", "must be a valid path"));
    }
}

/// What the walk through a schema has found.
struct Costs<'e> {
    errors: &'e mut Vec<FieldError>,
    total: u64,
    most: Vec<(String, u64)>,
}

/// A place in a schema.
#[derive(Clone)]
struct Place {
    /// How often the value can be in an object; `None` is as often as it fits.
    cardinality: Option<u64>,
    /// What keeps a value from being found again in the old object.
    uncorrelated: Option<String>,
    root: bool,
}

/// What is wrong with the expressions of a schema whose structure is right.
///
/// Differs: with an error of the structure anywhere, no expression is compiled; upstream leaves
/// out those around the error.
pub(in crate::custom) fn check_definition(schema: &Field<'_>, errors: &mut Vec<FieldError>) {
    let mut costs = Costs { errors, total: 0, most: Vec::new() };
    let place = Place { cardinality: Some(1), uncorrelated: None, root: true };
    costs.walk(schema, &place);
    if costs.total <= TOTAL_COST_MAX {
        return;
    }
    let Costs { errors, total, most } = costs;
    for (path, _) in most {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire \
                   OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, why));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.push(FieldError::forbidden(&*schema.path, exceeds(what, total, TOTAL_COST_MAX)));
}

/// How often what is inside can be there for each of the values; `None` without a bound.
fn elements_max(schema: &Field<'_>) -> Option<u64> {
    let bound = |name: &str| schema.raw(name).as_i64().map(|bound| bound.max(0) as u64);
    match schema.str("type") {
        "object" if schema.raw("additionalProperties").is_object() => bound("maxProperties"),
        "array" => bound("maxItems"),
        _ => Some(1),
    }
}

impl Costs<'_> {
    fn walk(&mut self, schema: &Field<'_>, place: &Place) {
        let elements = elements_max(schema);
        let cardinality = place.cardinality.zip(elements).map(|(a, b)| a.saturating_mul(b));
        let inside = Place { cardinality, root: false, ..place.clone() };
        for (name, value) in schema.entries("properties") {
            let path = format!("{}[{name}]", schema.at("properties"));
            self.walk(&Field::new(value, path), &inside);
        }
        if let Some(values) = schema.opt("additionalProperties").filter(|v| v.value.is_object()) {
            self.walk(&values, &inside);
        }
        if let Some(items) = schema.opt("items").filter(|items| items.value.is_object()) {
            let mut inside = inside;
            if schema.str("x-kubernetes-list-type") != "map" {
                inside.uncorrelated.get_or_insert_with(|| schema.path.clone());
            }
            self.walk(&items, &inside);
        }
        self.check(schema, place);
    }

    fn check(&mut self, schema: &Field<'_>, place: &Place) {
        if schema.len("x-kubernetes-validations") == 0 {
            return;
        }
        let root = place.root || is_embedded(schema.value);
        let Some(declared) = Declared::of_schema(schema.value, root) else {
            let why = "internal error: failed to retrieve type information for \
                       x-kubernetes-validations";
            self.errors.push(FieldError::invalid(schema.at("x-kubernetes-validations"), "", why));
            return;
        };
        let times = place.cardinality.unwrap_or_else(|| declared.cardinality_max());
        let rules = compile(schema.value, schema.value, &declared);
        for (at, rule) in rules.iter().enumerate() {
            let path = format!("{}[{at}]", schema.at("x-kubernetes-validations"));
            let value = &schema.raw("x-kubernetes-validations")[at];
            self.check_rule(&Field::new(value, path), rule, place, times);
        }
    }

    fn check_rule(&mut self, field: &Field<'_>, rule: &Rule, place: &Place, times: u64) {
        let (path, message_path) = (field.at("rule"), field.at("messageExpression"));
        let cost = rule.cost.saturating_mul(times);
        if cost > COST_MAX {
            let why = exceeds("estimated rule cost", cost, COST_MAX);
            self.errors.push(FieldError::forbidden(&*path, why));
        }
        self.observe(&path, cost);
        if let Err(error) = &rule.program {
            self.errors.push(about(&path, field.value, error));
        }
        match &rule.message_error {
            Some(error) => self.errors.push(about(&message_path, field.value, error)),
            None if rule.message_program.is_some() => {
                if rule.message_cost > COST_MAX {
                    let what = "estimated messageExpression cost";
                    let why = exceeds(what, rule.message_cost, COST_MAX);
                    self.errors.push(FieldError::forbidden(&*message_path, why));
                }
                self.observe(&message_path, rule.message_cost);
            }
            None => {}
        }
        if let (true, Some(within)) = (rule.uses_old, &place.uncorrelated) {
            let why = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
            );
            self.errors.push(FieldError::invalid(path, &*rule.text, why));
        } else if !rule.uses_old && field.has("optionalOldSelf") {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(field.invalid("optionalOldSelf", why));
        }
    }

    fn observe(&mut self, path: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost < TOTAL_COST_MAX / 100 {
            return;
        }
        self.most.push((path.to_owned(), cost));
        self.most.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        self.most.truncate(NAMED_MAX);
    }
}

/// The complaint about an expression. Upstream shows the whole rule, in the names of its own type.
fn about(path: &str, rule: &Value, why: &str) -> FieldError {
    let text = |name: &str| rule[name].as_str().unwrap_or_default();
    let shown = json!([
        ["Rule", text("rule")],
        ["Message", text("message")],
        ["MessageExpression", text("messageExpression")],
        ["Reason", rule["reason"]],
        ["FieldPath", text("fieldPath")],
        ["OptionalOldSelf", rule["optionalOldSelf"]],
    ]);
    let fields = shown.as_array().into_iter().flatten();
    let fields: Vec<String> = fields.map(|pair| format!("{}:{}", pair[0], pair[1])).collect();
    let value = Some(format!("{{{}}}", fields.join(",")));
    FieldError { value, ..FieldError::invalid(path, "", why) }
}

/// Source: `getCostErrorMessage`.
fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding \
         maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
