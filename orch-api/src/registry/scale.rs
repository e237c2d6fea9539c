//! The `scale` subresource: a small window on kinds that run replicas.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/apps/deployment/storage`, `ScaleREST`.

use std::sync::Arc;

use orch_core::{ApiError, Object, status::FieldError};
use serde_json::{Map, Value, json};

use super::Addressed;
use crate::strategy::ScaleFields;

fn fields(at: &Addressed) -> Result<ScaleFields, ApiError> {
    at.strategy.scale().ok_or_else(ApiError::no_such_path)
}

/// The scale of an object.
pub(super) fn read(at: &Addressed, object: &Object) -> Result<Arc<Object>, ApiError> {
    let scale = of(&fields(at)?, &object.to_value());
    Ok(Arc::new(Object::from_value(&scale).map_err(ApiError::internal)?))
}

pub(super) fn of(fields: &ScaleFields, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let meta = &object["metadata"];
    let mut kept = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            kept.insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": number(&fields.status_replicas)});
    if let Some(selector) = object.pointer(&fields.selector).and_then(selector_text) {
        status["selector"] = selector.into();
    }
    let mut spec = Map::new();
    let replicas = number(&fields.spec_replicas);
    if replicas != 0 {
        spec.insert("replicas".into(), replicas.into());
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": kept, "spec": spec, "status": status,
    })
}

/// Puts a number where there is none yet, and what leads there.
fn put(object: &mut Value, pointer: &str, number: i64) {
    let mut place = object;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name.replace("~1", "/").replace("~0", "~")];
    }
    *place = number.into();
}

/// A selector in its string form.
fn selector_text(selector: &Value) -> Option<String> {
    use orch_core::selector::Selector;
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        let selector = serde_json::from_value(selector.clone()).ok()?;
        return Some(Selector::from_label_selector(Some(&selector)).ok()?.to_string());
    }
    let labels = serde_json::from_value(selector.clone()).ok()?;
    Some(Selector::from_labels(&labels).to_string())
}

/// Puts the wanted number of a scale into its object.
pub(super) fn write(at: &Addressed, object: &mut Value, scale: &Value) -> Result<(), ApiError> {
    let fields = fields(at)?;
    let invalid = |error| ApiError::invalid("autoscaling", "Scale", at.name(), &[error]);
    let replicas = match scale["spec"].get("replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            invalid(FieldError::invalid("spec.replicas", value.clone(), "must be an integer"))
        })?,
    };
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        return Err(invalid(FieldError::invalid("spec.replicas", replicas, why)));
    }
    set(&fields, object, replicas);
    Ok(())
}

/// Puts a wanted number into an object.
pub(super) fn set(fields: &ScaleFields, object: &mut Value, replicas: i64) {
    match object.pointer_mut(&fields.spec_replicas) {
        Some(value) => *value = replicas.into(),
        None => put(object, &fields.spec_replicas, replicas),
    }
}
