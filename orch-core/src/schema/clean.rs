//! Whether an object is already what decoding it would make of it: most are, and need to be looked
//! at once instead of once for each way in which they might not be.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    check::{is_left_out, json_schema},
    types::{Definition, Shape, Type},
};
use crate::quantity::Amount;

/// Whether every value has the type of its field, no field is unknown and
/// [`prune`](super::prune) would change nothing.
pub fn is_clean(definition: &Definition, value: &Value) -> bool {
    match (definition.shape, value) {
        (_, Value::Null) => false,
        (Shape::Any, _)
        | (Shape::SchemaOrBool, Value::Bool(_))
        | (Shape::SchemaOrArray | Shape::SchemaOrStrings, Value::Array(_))
        | (Shape::Raw, Value::Object(_))
        | (Shape::IntOrString, Value::String(_)) => true,
        (Shape::Struct, Value::Object(map)) => map.iter().all(|(key, value)| {
            definition
                .field(key)
                .is_some_and(|field| is_clean_type(&field.ty, value) && !is_left_out(field, value))
        }),
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, Value::Object(_)) => {
            json_schema().is_some_and(|schema| is_clean(schema, value))
        }
        (Shape::IntOrString, value) => is_int32(value),
        (Shape::Quantity, Value::String(text)) => {
            text.parse::<Amount>().is_ok_and(|amount| amount.to_string() == *text)
        }
        (Shape::Time, Value::String(text)) => text.parse::<Timestamp>().is_ok_and(|time| {
            Timestamp::from_second(time.as_second()).is_ok_and(|time| time.to_string() == *text)
        }),
        (Shape::MicroTime, Value::String(text)) => {
            text.parse::<Timestamp>().is_ok_and(|time| format!("{time:.6}") == *text)
        }
        _ => false,
    }
}

fn is_clean_type(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (Type::Reference(reference), value) => is_clean(reference.definition(), value),
        (Type::Bytes, Value::String(text)) => {
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Double, Value::Number(_))
        | (Type::Object, Value::Object(_)) => true,
        (Type::Int32, value) => is_int32(value),
        (Type::Int64, value) => value.is_i64(),
        (Type::Array(item), Value::Array(list)) => {
            list.iter().all(|value| is_clean_type(item, value))
        }
        (Type::Map(item), Value::Object(map)) => {
            map.values().all(|value| is_clean_type(item, value))
        }
        _ => false,
    }
}

fn is_int32(value: &Value) -> bool {
    value.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{check_types, of, prune, unknown_fields};

    /// What the three looks say together.
    fn is_left_as_it_is(definition: &Definition, value: &Value) -> bool {
        let mut pruned = value.clone();
        prune(definition, &mut pruned);
        check_types(definition, value).is_ok()
            && unknown_fields(definition, value).is_empty()
            && pruned == *value
    }

    #[test]
    fn one_look_says_what_three_say() {
        let pod = of("", "v1", "Pod").unwrap();
        let clean = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"app": ""},
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {
                "priority": 7, "terminationGracePeriodSeconds": 0, "nodeSelector": {"a": "b"},
                "containers": [{"name": "a", "args": ["x"], "resources": {"limits": {"cpu": "1"}},
                    "livenessProbe": {"httpGet": {"port": "http"}}, "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert!(is_clean(pod, &clean) && is_left_as_it_is(pod, &clean));
        let spoilt = [
            ("/metadata/labels", json!({})),
            ("/metadata/labels/app", json!(1)),
            ("/metadata/labels/app", json!(null)),
            ("/metadata/creationTimestamp", json!(null)),
            ("/metadata/creationTimestamp", json!("2026-01-02T05:04:05+02:00")),
            ("/metadata/creationTimestamp", json!("yesterday")),
            ("/metadata/managedFields/0/fieldsV1", json!([])),
            ("/spec/priority", json!(1.5)),
            ("/spec/priority", json!(1_u64 << 40)),
            ("/spec/terminationGracePeriodSeconds", json!("0")),
            ("/spec/containers/0/args", json!([null])),
            ("/spec/containers/0/args", json!([])),
            ("/spec/containers/0/args", json!("x")),
            ("/spec/containers/0/resources/limits/cpu", json!("1000m")),
            ("/spec/containers/0/resources/limits/cpu", json!("1 core")),
            ("/spec/containers/0/resources/limits/cpu", json!(1)),
            ("/spec/containers/0/livenessProbe/httpGet/port", json!(1.5)),
            ("/spec/containers/0/ports/0", json!({"containerPorts": 80})),
            ("/spec/containers/0/ports/0/containerPort", json!(0)),
            ("/spec/volumes/0/emptyDir", json!(null)),
            ("/spec", json!(null)),
            ("/spec", json!([])),
            ("/status/conditions", json!({})),
        ];
        for (path, value) in spoilt {
            let mut object = clean.clone();
            *object.pointer_mut(path).unwrap() = value;
            assert_eq!(is_clean(pod, &object), is_left_as_it_is(pod, &object), "{path}: {object}");
        }
        let event = of("events.k8s.io", "v1", "Event").unwrap();
        for (time, is) in [("2026-01-02T03:04:05.000000Z", true), ("2026-01-02T03:04:05Z", false)] {
            let object = json!({"eventTime": time});
            assert_eq!((is_clean(event, &object), is_left_as_it_is(event, &object)), (is, is));
        }
        let secret = of("", "v1", "Secret").unwrap();
        for (data, is) in [("eA==", true), ("%", false)] {
            let object = json!({"data": {"key": data}});
            assert_eq!((is_clean(secret, &object), is_left_as_it_is(secret, &object)), (is, is));
        }
    }
}
