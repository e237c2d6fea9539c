//! The rules of custom resources that are expressions (`x-kubernetes-validations`).
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

mod compile;
mod definition;
mod field_path;
mod ratchet;

use std::collections::BTreeMap;

use orch_cel::{Budget, Declared, Error, PER_CALL_LIMIT, Value as CelValue, Variables};
use orch_core::status::{FieldError, FieldErrorType};
use serde_json::Value;

use super::rules::{Keys, below};
use compile::{Rule, compile};
pub(super) use definition::{check_definition, check_texts};
use ratchet::Ratchet;

/// Upstream has no path for what is wrong with the whole object.
const NOWHERE: &str = "<nil>";
/// Source: `k8s.io/apiserver/pkg/apis/cel/config.go`, `MaxEvaluatedMessageExpressionSizeBytes`.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules of a schema, compiled; nothing if it has none.
#[derive(Debug, Default)]
pub(super) struct Expressions(Option<Node>);

/// What was found wrong with an object.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What refuses the write.
    pub(super) errors: Vec<FieldError>,
    /// What was wrong before and was not touched.
    pub(super) warnings: Vec<String>,
}

/// The rules of one value and of what is inside it.
#[derive(Debug)]
struct Node {
    /// The type, as messages have it.
    type_name: String,
    declared: Declared,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    keys: Keys,
    all_of: Vec<Node>,
}

/// Where an evaluation stands.
struct Walk {
    budget: Budget,
    findings: Findings,
    /// The budget is used up: nothing more is evaluated.
    stopped: bool,
}

impl Expressions {
    /// Compiles the rules of a schema of a whole object.
    pub(super) fn of(schema: &Value) -> Self {
        let declared = Declared::of_schema(schema, true);
        Self(declared.and_then(|declared| Node::of(schema, schema, declared)))
    }

    /// Compiles the rules of the schema of a value inside an object.
    pub(super) fn of_value(schema: &Value) -> Self {
        let declared = Declared::of_schema(schema, is_embedded(schema));
        Self(declared.and_then(|declared| Node::of(schema, schema, declared)))
    }

    /// What is wrong with an object (or a value at a path) by these rules, after what the schema
    /// says otherwise.
    pub(super) fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        before: &[FieldError],
    ) -> Findings {
        let Some(node) = &self.0 else { return Findings::default() };
        if before.iter().any(is_blocking) {
            let why = "some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation";
            let error = FieldError::invalid(NOWHERE, Value::Null, why);
            return Findings { errors: vec![error], warnings: Vec::new() };
        }
        let mut walk =
            Walk { budget: Budget::default(), findings: Findings::default(), stopped: false };
        node.check(value, old, path, Ratchet::root(value, old), &mut walk);
        walk.findings
    }
}

/// Source: `pkg/registry/customresource/validator.go`, `hasBlockingErr`.
fn is_blocking(error: &FieldError) -> bool {
    matches!(
        error.kind,
        FieldErrorType::NotSupported
            | FieldErrorType::Required
            | FieldErrorType::TooLong
            | FieldErrorType::TooMany
            | FieldErrorType::TypeInvalid
    )
}

fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

impl Node {
    /// The rules of `validation`, about values that `schema` describes: the two differ inside
    /// `allOf`, where rules stand and types do not.
    fn of(validation: &Value, schema: &Value, declared: Declared) -> Option<Self> {
        let child = |name: &str| {
            let inner = Some(&validation[name]).filter(|inner| inner.is_object())?;
            let described = Some(&schema[name]).filter(|inner| inner.is_object())?;
            let declared = Declared::of_schema(described, is_embedded(described))?;
            Self::of(inner, described, declared).map(Box::new)
        };
        let (additional, items) = (child("additionalProperties"), child("items"));
        let properties = validation["properties"].as_object().into_iter().flatten();
        let property = |(name, inner): (&String, &Value)| {
            let described = &schema["properties"][name];
            let declared = Declared::of_schema(described, is_embedded(described))?;
            Some((name.clone(), Self::of(inner, described, declared)?))
        };
        let properties: BTreeMap<String, Self> = properties.filter_map(property).collect();
        let all = validation["allOf"].as_array().into_iter().flatten();
        let all_of: Vec<Self> =
            all.filter_map(|inner| Self::of(inner, schema, declared.clone())).collect();
        let rules = compile(validation, schema, &declared);
        let is_something = !rules.is_empty()
            || !properties.is_empty()
            || !all_of.is_empty()
            || additional.is_some()
            || items.is_some();
        is_something.then(|| Self {
            type_name: schema["type"].as_str().unwrap_or_default().to_owned(),
            keys: Keys::of(schema),
            declared,
            rules,
            properties,
            additional,
            items,
            all_of,
        })
    }

    fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        ratchet: Ratchet<'_>,
        walk: &mut Walk,
    ) {
        // Rules about nulls are for what surrounds them.
        if value.is_null() || walk.stopped {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        self.check_rules(value, old, path, ratchet, walk);
        for node in &self.all_of {
            node.check(value, old, path, ratchet.forgotten(), walk);
        }
        match value {
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (at, item) in list.iter().enumerate() {
                    let old = self.keys.same_item(item, old);
                    let ratchet = ratchet.inside(item, old);
                    items.check(item, old, &format!("{path}[{at}]"), ratchet, walk);
                }
            }
            Value::Object(fields) => {
                for (name, inner) in fields {
                    let old = old.and_then(|old| old.get(name));
                    let ratchet = ratchet.field(name, inner, old);
                    if let Some(node) = &self.additional {
                        node.check(inner, old, &format!("{path}[{name}]"), ratchet, walk);
                    }
                    if let Some(node) = self.properties.get(name) {
                        node.check(inner, old, &below(path, name), ratchet, walk);
                    }
                }
            }
            _ => {}
        }
    }

    fn check_rules(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        ratchet: Ratchet<'_>,
        walk: &mut Walk,
    ) {
        if self.rules.is_empty() || walk.stopped {
            return;
        }
        let field = field(path);
        let here = match CelValue::declared(value, &self.declared) {
            Ok(here) => here,
            Err(error) => {
                let why = format!("{error} evaluating rule: {}", self.rules[0].shown());
                walk.refuse(FieldError::invalid(field, &*self.type_name, why));
                return;
            }
        };
        let before = old.and_then(|old| CelValue::declared(old, &self.declared).ok());
        for rule in &self.rules {
            if walk.stopped {
                return;
            }
            let before = match (&before, rule.optional_old) {
                (Some(before), true) => Some(CelValue::some(before.clone())),
                (None, true) => Some(CelValue::Optional(None)),
                (before, false) => before.clone(),
            };
            // A transition needs something that it starts from.
            if rule.uses_old && before.is_none() {
                continue;
            }
            let mut variables = Variables::new().with("self", here.clone());
            if let Some(before) = before {
                variables = variables.with("oldSelf", before);
            }
            self.check_rule(rule, value, &variables, field, ratchet, walk);
        }
    }

    fn check_rule(
        &self,
        rule: &Rule,
        value: &Value,
        variables: &Variables<'_>,
        path: &str,
        ratchet: Ratchet<'_>,
        walk: &mut Walk,
    ) {
        let invalid = |why: String| FieldError::invalid(path, &*self.type_name, why);
        let program = match &rule.program {
            Ok(program) => program,
            Err(error) => {
                walk.refuse(invalid(format!("rule compile error: {error}")));
                return;
            }
        };
        let (outcome, cost) = program.measure(variables, None, PER_CALL_LIMIT);
        if walk.budget.charge(cost).is_err() {
            walk.stop(invalid(OUT_OF_BUDGET.to_owned()));
            return;
        }
        match outcome {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => {
                let place = match &rule.field_path {
                    Some(own) if path == NOWHERE => own.clone(),
                    Some(own) => format!("{path}.{own}"),
                    None => path.to_owned(),
                };
                let detail = match self.message(rule, variables, walk) {
                    Ok(message) => message,
                    Err(why) => {
                        let error = FieldError::invalid(&*place, &*self.type_name, why);
                        walk.tell(error, rule, ratchet);
                        walk.stopped = true;
                        return;
                    }
                };
                walk.tell(self.refusal(rule, place, value, detail), rule, ratchet);
            }
            Err(Error::CostLimit) => {
                let why = "no further validation rules will be run due to call cost exceeds \
                           limit for rule";
                walk.stop(invalid(format!("'{}': {why}: {}", Error::CostLimit, rule.shown())));
            }
            Err(error) if error.to_string().starts_with("no such overload") => {
                let why = "call arguments did not match a supported operator, function or macro \
                           signature for rule";
                walk.refuse(invalid(format!("'{error}': {why}: {}", rule.shown())));
            }
            Err(error) => {
                walk.refuse(invalid(format!("{error} evaluating rule: {}", rule.shown())));
            }
        }
    }

    fn refusal(&self, rule: &Rule, path: String, value: &Value, detail: String) -> FieldError {
        let whole = matches!(&*self.type_name, "object" | "array");
        let shown = |error: FieldError| {
            let value = error.value.clone().filter(|_| !whole);
            FieldError { value, ..error }
        };
        match rule.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(path, detail),
            Some("FieldValueRequired") => FieldError::required(path, detail),
            Some("FieldValueDuplicate") => shown(FieldError::duplicate(path, value.clone())),
            _ => shown(FieldError::invalid(path, value.clone(), detail)),
        }
    }

    /// What a rule that does not hold tells. The inner error ends everything.
    fn message(
        &self,
        rule: &Rule,
        variables: &Variables<'_>,
        walk: &mut Walk,
    ) -> Result<String, String> {
        let Some(program) = &rule.message_program else { return Ok(rule.message_or_default()) };
        let (outcome, cost) = program.measure(variables, None, PER_CALL_LIMIT);
        if walk.budget.charge(cost).is_err() {
            let why = "messageExpression evaluation failed due to running out of cost budget, no \
                       further validation rules will be run";
            return Err(why.to_owned());
        }
        if let Err(Error::CostLimit) = outcome {
            return Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for \
                 messageExpression: {:?}",
                rule.message_expression
            ));
        }
        let message = outcome.ok().and_then(|value| value.as_str().map(|m| m.trim().to_owned()));
        let fits = |message: &String| {
            !message.is_empty() && message.len() <= MESSAGE_BYTES_MAX && !message.contains('\n')
        };
        Ok(message.filter(fits).unwrap_or_else(|| rule.message_or_default()))
    }
}

impl Walk {
    fn refuse(&mut self, error: FieldError) {
        self.findings.errors.push(error);
    }

    fn stop(&mut self, error: FieldError) {
        self.refuse(error);
        self.stopped = true;
    }

    /// What was wrong before, and not touched, is only told.
    fn tell(&mut self, error: FieldError, rule: &Rule, ratchet: Ratchet<'_>) {
        if !rule.uses_old && ratchet.is_unchanged() {
            self.findings.warnings.push(error.to_string());
        } else {
            self.refuse(error);
        }
    }
}

fn field(path: &str) -> &str {
    if path.is_empty() { NOWHERE } else { path }
}
