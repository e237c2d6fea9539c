//! Amounts of resources: requests, limits and what may be asked for.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidateContainerResourceRequirements`.

use orch_core::{quantity::Amount, status::FieldError};
use serde_json::{Map, Value};

use crate::{
    kinds::field::{Errors, Field, NEGATIVE},
    names,
};

/// A quantity, which JSON may also give as a number.
pub(crate) fn amount(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Writes a quantity in its canonical form, as upstream does when it decodes one.
pub(crate) fn canonicalize_value(value: &mut Value) {
    if let Some(amount) = amount(value) {
        *value = Value::String(amount.to_string());
    }
}

/// Writes every quantity of a resource list in its canonical form.
pub(crate) fn canonicalize(list: &mut Map<String, Value>) {
    for value in list.values_mut() {
        canonicalize_value(value);
    }
}

/// Resources that containers have by nature.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Extended resources and huge pages: what was promised is there, so a request is its limit.
fn may_overcommit(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    native && !name.starts_with("hugepages-")
}

fn is_whole(name: &str) -> bool {
    !matches!(name, "cpu" | "memory" | "ephemeral-storage")
        && (name.contains('/') || name.starts_with("hugepages-"))
}

/// Checks the name of a container's resource.
pub(crate) fn container_resource(path: &str, name: &str, errors: &mut Errors) {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(path, name, why)));
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        ));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

/// Checks one amount.
pub(crate) fn quantity(path: &str, name: &str, value: &Value, errors: &mut Errors) {
    let Some(amount) = amount(value) else {
        let why = "quantities must match the regular expression \
                   '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        errors.push(FieldError::invalid(path, value.clone(), why));
        return;
    };
    if amount.is_negative() {
        errors.push(FieldError::invalid(path, amount.to_string(), NEGATIVE));
    }
    if is_whole(name) && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// Checks the amounts of a resource list, such as a pod's overhead or a node's capacity.
pub(crate) fn quantities(list: &Field<'_>, errors: &mut Errors) {
    for (name, value) in list.value.as_object().into_iter().flatten() {
        let path = format!("{}[{name}]", list.path);
        container_resource(&path, name, errors);
        quantity(&path, name, value, errors);
    }
}

/// Checks requests, limits and claims. `claims` are the claims that the pod has.
pub(crate) fn requirements(resources: &Field<'_>, claims: &[&str], errors: &mut Errors) {
    for list in ["limits", "requests"] {
        for (name, value) in resources.entries(list) {
            let path = resources.at_key(list, name);
            container_resource(&path, name, errors);
            quantity(&path, name, value, errors);
        }
    }
    let limits = resources.raw("limits");
    for (name, request) in resources.entries("requests") {
        let Some(wanted) = amount(request) else { continue };
        match limits.get(name).and_then(amount) {
            Some(limit) if !may_overcommit(name) && wanted != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                let path = resources.at("requests");
                errors.push(FieldError::invalid(path, wanted.to_string(), why));
            }
            Some(limit) if may_overcommit(name) && wanted > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                let path = resources.at("requests");
                errors.push(FieldError::invalid(path, wanted.to_string(), why));
            }
            None if !may_overcommit(name) => errors.push(FieldError::required(
                resources.at("limits"),
                "Limit must be set for non overcommitable resources",
            )),
            _ => {}
        }
    }
    for claim in resources.items("claims") {
        let name = claim.str("name");
        if name.is_empty() {
            errors.push(claim.required("name", ""));
        } else if !claims.contains(&name) {
            errors.push(FieldError::not_found(claim.at("name"), name));
        }
    }
}
