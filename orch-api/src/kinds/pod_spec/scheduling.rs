//! Where a pod may run: affinity, tolerations and spreading.

use orch_core::status::FieldError;
use serde_json::Value;

use super::named;
use crate::{
    kinds::{
        field::{Errors, Field},
        metadata,
    },
    names,
};

/// The effects that a taint may have.
pub(crate) const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks the effect of a taint or toleration.
pub(crate) fn taint_effects(parent: &Field<'_>, optional: bool, errors: &mut Errors) {
    parent.one_of("effect", &TAINT_EFFECTS, optional, errors);
}

/// Checks a list of tolerations.
pub(crate) fn tolerations(spec: &Field<'_>, list: &str, errors: &mut Errors) {
    for toleration in spec.items(list) {
        let (key, operator) = (toleration.str("key"), toleration.str("operator"));
        if !key.is_empty() {
            metadata::label_name(&toleration.at("key"), key, errors);
        }
        if key.is_empty() && operator != "Exists" {
            errors.push(toleration.invalid(
                "operator",
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if toleration.has("tolerationSeconds") && toleration.str("effect") != "NoExecute" {
            errors.push(
                toleration.invalid(
                    "effect",
                    "effect must be 'NoExecute' when `tolerationSeconds` is set",
                ),
            );
        }
        let value = toleration.str("value");
        match operator {
            "" | "Equal" => errors.extend(
                names::label_value(value)
                    .into_iter()
                    .map(|why| FieldError::invalid(toleration.at("operator"), value, why)),
            ),
            "Exists" if !value.is_empty() => errors.push(FieldError::invalid(
                toleration.at("operator"),
                toleration.value.clone(),
                "value must be empty when `operator` is 'Exists'",
            )),
            "Exists" => {}
            other => errors.push(FieldError::not_supported(
                toleration.at("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        taint_effects(&toleration, true, errors);
    }
}

/// Checks a `NodeSelector`.
pub(crate) fn node_selector(selector: &Field<'_>, errors: &mut Errors) {
    if selector.len("nodeSelectorTerms") == 0 {
        let why = "must have at least one node selector term";
        errors.push(selector.required("nodeSelectorTerms", why));
    }
    for term in selector.items("nodeSelectorTerms") {
        node_selector_term(&term, errors);
    }
}

fn node_selector_term(term: &Field<'_>, errors: &mut Errors) {
    for requirement in term.items("matchExpressions") {
        let count = requirement.len("values");
        match requirement.str("operator") {
            "In" | "NotIn" if count == 0 => errors.push(
                requirement
                    .required("values", "must be specified when `operator` is 'In' or 'NotIn'"),
            ),
            "Exists" | "DoesNotExist" if count > 0 => errors.push(requirement.forbidden(
                "values",
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if count != 1 => errors.push(requirement.required(
                "values",
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.push(requirement.invalid("operator", "not a valid selector operator")),
        }
        metadata::label_name(&requirement.at("key"), requirement.str("key"), errors);
    }
    for requirement in term.items("matchFields") {
        match requirement.str("operator") {
            "In" | "NotIn" => {
                if requirement.len("values") != 1 {
                    errors.push(requirement.required(
                        "values",
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                    ));
                }
            }
            _ => errors.push(requirement.invalid("operator", "not a valid selector operator")),
        }
        if requirement.str("key") != "metadata.name" {
            errors.push(requirement.invalid("key", "not a valid field selector key"));
        }
    }
}

fn weight(term: &Field<'_>, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        let path = term.at("weight");
        errors.push(FieldError::invalid(path, weight, "must be in the range 1-100"));
    }
}

/// Checks all of `affinity`.
pub(super) fn affinity(spec: &Field<'_>, errors: &mut Errors) {
    let affinity = spec.get("affinity");
    let node = affinity.get("nodeAffinity");
    if let Some(required) = node.opt("requiredDuringSchedulingIgnoredDuringExecution") {
        node_selector(&required, errors);
    }
    for term in node.items("preferredDuringSchedulingIgnoredDuringExecution") {
        weight(&term, errors);
        node_selector_term(&term.get("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = affinity.get(kind);
        for term in affinity.items("requiredDuringSchedulingIgnoredDuringExecution") {
            pod_affinity_term(&term, errors);
        }
        for term in affinity.items("preferredDuringSchedulingIgnoredDuringExecution") {
            weight(&term, errors);
            pod_affinity_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn pod_affinity_term(term: &Field<'_>, errors: &mut Errors) {
    metadata::label_selector(&term.get("labelSelector"), errors);
    metadata::label_selector(&term.get("namespaceSelector"), errors);
    for name in term.strs("namespaces") {
        let wrong = names::dns_label(name);
        let path = term.at("namespaces");
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, name, why)));
    }
    if term.str("topologyKey").is_empty() {
        errors.push(term.required("topologyKey", "can not be empty"));
    } else {
        named(term, "topologyKey", names::qualified_name, errors);
    }
}

/// Checks `topologySpreadConstraints`.
pub(super) fn topology_spread(spec: &Field<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for constraint in spec.items("topologySpreadConstraints") {
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            let path = constraint.at("maxSkew");
            errors.push(FieldError::invalid(path, skew, "must be greater than zero"));
        }
        let key = constraint.str("topologyKey");
        if key.is_empty() {
            errors.push(constraint.required("topologyKey", "can not be empty"));
        } else {
            named(&constraint, "topologyKey", names::qualified_name, errors);
        }
        let action = constraint.str("whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            let path = constraint.at("whenUnsatisfiable");
            errors.push(FieldError::not_supported(path, action, &actions));
        }
        if seen.contains(&(key, action)) {
            let pair = Value::from(format!("{{{key}, {action}}}"));
            errors.push(FieldError::duplicate(
                format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path),
                pair,
            ));
        }
        seen.insert((key, action));
        if constraint.int("minDomains").is_some_and(|n| n <= 0) {
            errors.push(constraint.invalid("minDomains", "must be greater than zero"));
        } else if constraint.has("minDomains") && action != "DoNotSchedule" {
            let why = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ".to_owned();
            errors.push(constraint.invalid("minDomains", why + action));
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.one_of(name, &["Honor", "Ignore"], true, errors);
        }
        metadata::label_selector(&constraint.get("labelSelector"), errors);
    }
}
