//! Rules that hold for many kinds: labels, selectors, ports, quantities, percentages.

use orch_core::status::FieldError;
use serde_json::Value;

use super::field::{Errors, Field};
use crate::names;

/// Checks a map of labels.
///
/// Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `ValidateLabels`.
pub(crate) fn labels(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    for (key, value) in parent.entries(name) {
        label_name(&parent.at(name), key, errors);
        let text = value.as_str().unwrap_or_default();
        for why in names::label_value(text) {
            errors.push(FieldError::invalid(parent.at(name), text, why));
        }
    }
}

/// Checks the key of a label.
pub(crate) fn label_name(path: &str, key: &str, errors: &mut Errors) {
    errors
        .extend(names::qualified_name(key).into_iter().map(|w| FieldError::invalid(path, key, w)));
}

/// Checks a map of annotations: keys and the total size.
pub(crate) fn annotations(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    const TOTAL_BYTES_MAX: usize = 256 * 1024;
    let mut total = 0;
    for (key, value) in parent.entries(name) {
        total += key.len() + value.as_str().map_or(0, str::len);
        label_name(&parent.at(name), &key.to_lowercase(), errors);
    }
    if total > TOTAL_BYTES_MAX {
        errors.push(FieldError::too_long(parent.at(name), TOTAL_BYTES_MAX));
    }
}

/// Checks a `LabelSelector`. Nothing is wrong with one that is not there.
///
/// Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `ValidateLabelSelector`.
pub(crate) fn label_selector(selector: &Field<'_>, errors: &mut Errors) {
    labels(selector, "matchLabels", errors);
    for expression in selector.items("matchExpressions") {
        let values = expression.len("values");
        match expression.str("operator") {
            "In" | "NotIn" if values == 0 => errors.push(
                expression
                    .required("values", "must be specified when `operator` is 'In' or 'NotIn'"),
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if values > 0 => errors.push(expression.forbidden(
                "values",
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            _ => errors.push(expression.invalid("operator", "not a valid selector operator")),
        }
        label_name(&expression.at("key"), expression.str("key"), errors);
        for (i, value) in expression.strs("values").enumerate() {
            for why in names::label_value(value) {
                let path = format!("{}[{i}]", expression.at("values"));
                errors.push(FieldError::invalid(path, value, why));
            }
        }
    }
}

/// Whether a selector has no requirement at all.
pub(crate) fn selector_is_empty(selector: &Value) -> bool {
    let none = |name: &str| match selector.get(name) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    none("matchLabels") && none("matchExpressions")
}

/// Whether a `LabelSelector` matches a map of labels. An ill-formed requirement matches nothing.
pub(crate) fn selector_matches(selector: &Value, labels: &Value) -> bool {
    let selector = Field::root(selector);
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    selector.entries("matchLabels").all(|(key, value)| label(key) == value.as_str())
        && selector.items("matchExpressions").all(|requirement| {
            let found = label(requirement.str("key"));
            let listed = || found.is_some_and(|f| requirement.strs("values").any(|v| v == f));
            match requirement.str("operator") {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// Checks a port number.
pub(crate) fn port_number(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    if !parent.int(name).is_some_and(|n| (1..=65535).contains(&n)) {
        let value = parent.int(name).unwrap_or_default();
        errors.push(FieldError::invalid(parent.at(name), value, PORT_RANGE));
    }
}

/// Upstream's words for a port out of range.
pub(crate) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

/// Checks a port given as a number or a name.
pub(crate) fn port_number_or_name(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    match parent.raw(name) {
        Value::String(text) => errors.extend(
            names::port_name(text)
                .into_iter()
                .map(|why| FieldError::invalid(parent.at(name), text.as_str(), why)),
        ),
        _ => port_number(parent, name, errors),
    }
}

/// Checks a number or percentage that must not be negative.
///
/// Source: `pkg/apis/apps/validation`, `ValidatePositiveIntOrPercent`.
pub(crate) fn int_or_percent(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    match parent.raw(name) {
        Value::String(text) if percent(text).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' \
                       (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(parent.at(name), text.as_str(), why));
        }
        _ => parent.non_negative(name, errors),
    }
}

/// Refuses a percentage above 100.
pub(crate) fn not_more_than_100_percent(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    if let Some(text) = parent.raw(name).as_str()
        && percent(text).is_some_and(|p| p > 100)
    {
        errors.push(FieldError::invalid(parent.at(name), text, "must not be greater than 100%"));
    }
}

/// Whether a number or percentage is nothing.
pub(crate) fn is_none_of_anything(value: &Value) -> bool {
    match value {
        Value::String(text) => percent(text) == Some(0),
        value => value.as_i64().unwrap_or_default() == 0,
    }
}

/// The number before the `%`.
pub(crate) fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Checks a time that must not be negative, given in seconds; same as any number.
pub(crate) fn non_negative_all(parent: &Field<'_>, names: &[&str], errors: &mut Errors) {
    for name in names {
        parent.non_negative(name, errors);
    }
}

/// Copies the labels of an object's template to the object itself if it has none.
pub(crate) fn inherit_template_labels(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) else {
        return;
    };
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let has = meta.get("labels").and_then(Value::as_object).is_some_and(|l| !l.is_empty());
        if !has {
            meta.insert("labels".into(), labels);
        }
    }
}
