//! Admission policies and their bindings.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/admissionregistration/validation/validation.go`,
//! `pkg/apis/admissionregistration/v1/defaults.go`.

use std::collections::BTreeSet;

use orch_core::status::FieldError;
use serde_json::{Map, Value};

use super::{
    Field,
    field::{Errors, child, child_opt, children, default_to, spec_of},
    metadata,
    plain::{Plain, empty_status},
    webhooks::rule_with_operations,
};
use crate::{
    admission::policy::expression::{Composed, Expression, Gives, Uses},
    names, printers,
};

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const CONDITIONS_MAX: usize = 64;

pub(super) static VALIDATING_POLICIES: Plain = Plain {
    defaults: policy_defaults,
    validate: |object| {
        let mut errors = Vec::new();
        let environment = check_policy(object, false, &mut errors);
        check_validations(object, &environment, &mut errors);
        errors
    },
    status: Some(empty_status),
    columns: &printers::policy::ADMISSION_POLICIES,
    row: printers::policy::admission_policy,
    ..Plain::ANY
};

pub(super) static MUTATING_POLICIES: Plain = Plain {
    defaults: policy_defaults,
    validate: |object| {
        let mut errors = Vec::new();
        let environment = check_policy(object, true, &mut errors);
        check_mutations(object, &environment, &mut errors);
        errors
    },
    generation: true,
    columns: &printers::policy::ADMISSION_POLICIES,
    row: printers::policy::admission_policy,
    ..Plain::DATA
};

pub(super) static VALIDATING_BINDINGS: Plain = Plain {
    defaults: binding_defaults,
    validate: |object| {
        let mut errors = check_binding(object);
        check_actions(&Field::root(object).get("spec"), &mut errors);
        errors
    },
    generation: true,
    columns: &printers::policy::ADMISSION_BINDINGS,
    row: printers::policy::admission_binding,
    ..Plain::DATA
};

pub(super) static MUTATING_BINDINGS: Plain = Plain {
    defaults: binding_defaults,
    validate: check_binding,
    generation: true,
    columns: &printers::policy::ADMISSION_BINDINGS,
    row: printers::policy::admission_binding,
    ..Plain::DATA
};

fn match_defaults(resources: &mut Map<String, Value>) {
    default_to(resources, "matchPolicy", "Equivalent");
    child(resources, "namespaceSelector");
    child(resources, "objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in children(resources, list) {
            default_to(rule, "scope", "*");
        }
    }
}

fn policy_defaults(object: &mut Value) {
    let Some(spec) = spec_of(object) else { return };
    default_to(spec, "failurePolicy", "Fail");
    if let Some(resources) = child_opt(spec, "matchConstraints") {
        match_defaults(resources);
    }
}

fn binding_defaults(object: &mut Value) {
    let Some(spec) = spec_of(object) else { return };
    if let Some(resources) = child_opt(spec, "matchResources") {
        match_defaults(resources);
    }
    if let Some(params) = child_opt(spec, "paramRef") {
        default_to(params, "parameterNotFoundAction", "Deny");
    }
}

/// Checks what policies of both kinds have; gives what their expressions may name.
fn check_policy(object: &Value, patches: bool, errors: &mut Errors) -> orch_cel::Environment {
    let spec = Field::root(object).get("spec");
    spec.one_of("failurePolicy", &["Fail", "Ignore"], false, errors);
    if let Some(kind) = spec.opt("paramKind") {
        check_param_kind(&kind, errors);
    }
    match spec.opt("matchConstraints") {
        None => errors.push(spec.required("matchConstraints", "")),
        Some(constraints) => {
            match_resources(&constraints, errors);
            if constraints.len("resourceRules") == 0 {
                errors.push(constraints.required("resourceRules", ""));
            }
        }
    }
    let uses = Uses { params: spec.has("paramKind"), authorizer: true, patches: false };
    match_conditions(&spec, uses, errors);
    check_variables(&spec, Uses { patches, ..uses }, errors)
}

fn check_param_kind(kind: &Field<'_>, errors: &mut Errors) {
    let version = kind.str("apiVersion");
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    if kind.str("apiVersion").is_empty() {
        errors.push(kind.required("apiVersion", ""));
    } else {
        let mut wrong = |text: &str, why: Vec<String>| {
            if !why.is_empty() {
                errors.push(FieldError::invalid(kind.at("apiVersion"), text, why.join(",")));
            }
        };
        if !group.is_empty() {
            wrong(group, names::dns_subdomain(group));
        }
        wrong(kind.str("apiVersion"), names::dns1035_label(version));
    }
    let name = kind.str("kind");
    let wrong = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(kind.required("kind", ""));
    } else if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(kind.invalid("kind", why));
    }
}

fn match_resources(resources: &Field<'_>, errors: &mut Errors) {
    resources.one_of("matchPolicy", &["Equivalent", "Exact"], false, errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        metadata::label_selector(&resources.get(selector), errors);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.items(list) {
            let mut seen = BTreeSet::new();
            for (at, name) in rule.strs("resourceNames").enumerate() {
                let path = format!("{}[{at}]", rule.at("resourceNames"));
                for why in names::path_segment(name) {
                    errors.push(FieldError::invalid(path.clone(), name, why));
                }
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(path, name));
                }
            }
            rule_with_operations(&rule, errors);
        }
    }
}

/// Conditions that all have to hold.
pub(super) fn match_conditions(of: &Field<'_>, uses: Uses, errors: &mut Errors) {
    let count = of.len("matchConditions");
    if count > CONDITIONS_MAX {
        errors.push(FieldError::too_many(of.at("matchConditions"), count, CONDITIONS_MAX));
        return;
    }
    if count == 0 {
        return;
    }
    let (environment, mut seen) = (uses.environment(), BTreeSet::new());
    for condition in of.items("matchConditions") {
        let source = condition.str("expression").trim();
        if source.is_empty() {
            errors.push(condition.required("expression", ""));
        } else {
            expression(&condition, "expression", (&environment, Gives::Truth), errors);
        }
        let name = condition.str("name");
        if name.is_empty() {
            errors.push(condition.required("name", ""));
            continue;
        }
        let wrong = names::qualified_name(name).into_iter();
        errors.extend(wrong.map(|why| condition.invalid("name", why)));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(condition.at("name"), name));
        }
    }
}

/// An expression that has to compile, and to give what is wanted.
fn expression(
    of: &Field<'_>,
    name: &str,
    (environment, gives): (&orch_cel::Environment, Gives),
    errors: &mut Errors,
) {
    let compiled = Expression::compile(environment, of.str(name), gives);
    if let Err(why) = compiled.program {
        errors.push(of.invalid(name, why));
    }
}

fn check_variables(spec: &Field<'_>, uses: Uses, errors: &mut Errors) -> orch_cel::Environment {
    let mut known = Vec::new();
    for variable in spec.items("variables") {
        let (name, source) = (variable.str("name"), variable.str("expression"));
        if name.trim().is_empty() {
            errors.push(variable.required("name", "name is not specified"));
        } else if !orch_cel::is_identifier(name) {
            errors.push(variable.invalid("name", "name is not a valid CEL identifier"));
        }
        if source.trim().is_empty() {
            errors.push(variable.required("expression", "expression is not specified"));
        }
        known.push((name, source));
    }
    let (composed, environment) = Composed::compile(uses, &known);
    for (variable, compiled) in spec.items("variables").zip(composed.expressions()) {
        if let Err(why) = &compiled.program
            && !compiled.source.trim().is_empty()
        {
            errors.push(variable.invalid("expression", why.clone()));
        }
    }
    environment
}

fn check_validations(object: &Value, environment: &orch_cel::Environment, errors: &mut Errors) {
    let spec = Field::root(object).get("spec");
    if spec.len("validations") == 0 && spec.len("auditAnnotations") == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.push(spec.required("validations", why));
        errors.push(spec.required("auditAnnotations", why));
        return;
    }
    for validation in spec.items("validations") {
        if validation.str("expression").trim().is_empty() {
            errors.push(validation.required("expression", "expression is not specified"));
        } else {
            expression(&validation, "expression", (environment, Gives::Truth), errors);
        }
        let message = validation.str("messageExpression");
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(validation.invalid("messageExpression", "must be non-empty if specified"));
        } else if !message.is_empty() {
            expression(&validation, "messageExpression", (environment, Gives::Text), errors);
        }
        let message = validation.str("message");
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(validation.invalid("message", "message must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(validation.invalid("message", "message must not contain line breaks"));
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        validation.one_of("reason", &reasons, true, errors);
    }
    check_annotations(object, &spec, environment, errors);
}

fn check_annotations(
    object: &Value,
    spec: &Field<'_>,
    environment: &orch_cel::Environment,
    errors: &mut Errors,
) {
    if spec.len("auditAnnotations") > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(spec.invalid("auditAnnotations", why));
        return;
    }
    let (name, mut seen) =
        (object["metadata"]["name"].as_str().unwrap_or_default(), BTreeSet::new());
    for annotation in spec.items("auditAnnotations") {
        let key = annotation.str("key");
        for why in names::qualified_name(&format!("{name}/{key}")) {
            let told = format!("{name}/{key}");
            errors.push(FieldError::invalid(annotation.at("key"), told, why));
        }
        let source = annotation.str("valueExpression").trim();
        if source.is_empty() {
            errors.push(annotation.required("valueExpression", "valueExpression is not specified"));
        } else if source.len() > ANNOTATION_BYTES_MAX {
            let why = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
            errors.push(annotation.required("valueExpression", why));
        } else {
            let gives = (environment, Gives::TextOrNull);
            expression(&annotation, "valueExpression", gives, errors);
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(annotation.at("key"), key));
        }
    }
}

fn check_mutations(object: &Value, environment: &orch_cel::Environment, errors: &mut Errors) {
    let spec = Field::root(object).get("spec");
    if spec.len("mutations") == 0 {
        errors.push(spec.required("mutations", "mutations must contain at least one item"));
    }
    for mutation in spec.items("mutations") {
        let kinds = ["ApplyConfiguration", "JSONPatch"];
        mutation.one_of("patchType", &kinds, false, errors);
        let (own, other, gives) = match mutation.str("patchType") {
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Gives::Patches),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Gives::Object),
            _ => continue,
        };
        if mutation.has(other) {
            let why = format!("must be unset when patchType is {}", mutation.str("patchType"));
            errors.push(mutation.invalid(other, why));
        }
        let patch = mutation.get(own);
        if !patch.is_set() {
            let why = format!("must be specified when patchType is {}", mutation.str("patchType"));
            errors.push(mutation.required(own, why));
        } else if patch.str("expression").trim().is_empty() {
            errors.push(patch.required("expression", "expression is not specified"));
        } else {
            expression(&patch, "expression", (environment, gives), errors);
        }
    }
    spec.one_of("reinvocationPolicy", &["IfNeeded", "Never"], false, errors);
}

fn check_binding(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    let policy = spec.str("policyName");
    if policy.is_empty() {
        errors.push(spec.required("policyName", ""));
    } else {
        let wrong = names::dns_subdomain(policy).into_iter();
        errors.extend(wrong.map(|why| spec.invalid("policyName", why)));
    }
    if let Some(params) = spec.opt("paramRef") {
        check_params(&params, &mut errors);
    }
    if let Some(resources) = spec.opt("matchResources") {
        // Upstream misspells the path of these.
        let told = Field::new(resources.value, spec.at("matchResouces"));
        match_resources(&told, &mut errors);
    }
    errors
}

fn check_params(params: &Field<'_>, errors: &mut Errors) {
    let (name, selects) = (params.str("name"), params.has("selector"));
    let wrong = names::path_segment(name).into_iter().filter(|_| !name.is_empty());
    errors.extend(wrong.map(|why| params.invalid("name", why)));
    metadata::label_selector(&params.get("selector"), errors);
    if !name.is_empty() && selects {
        let why = "name and selector are mutually exclusive";
        errors.push(params.forbidden("name", why));
        errors.push(params.forbidden("selector", why));
    }
    if name.is_empty() && !selects {
        let why = "one of name or selector must be specified";
        errors.push(FieldError::required(params.path.clone(), why));
    }
    params.one_of("parameterNotFoundAction", &["Deny", "Allow"], false, errors);
}

fn check_actions(spec: &Field<'_>, errors: &mut Errors) {
    let actions: Vec<&str> = spec.strs("validationActions").collect();
    for (at, action) in actions.iter().enumerate() {
        let path = format!("{}[{at}]", spec.at("validationActions"));
        let known = ["Audit", "Deny", "Warn"];
        if !known.contains(action) {
            errors.push(FieldError::not_supported(path.clone(), *action, &known));
        }
        if actions[..at].contains(action) {
            errors.push(FieldError::duplicate(path, *action));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(spec.invalid("validationActions", why));
    }
    if actions.is_empty() {
        let why = "at least one validation action is required";
        errors.push(spec.required("validationActions", why));
    }
}
