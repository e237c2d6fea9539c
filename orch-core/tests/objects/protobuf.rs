//! The protobuf encoding of objects.

use orch_core::{
    protobuf::{ProtobufError, decode, encode},
    schema,
};
use proptest::prelude::*;
use serde_json::{Value, json};

#[track_caller]
fn round_trips(object: &Value) {
    assert_eq!(decode(&encode(object).unwrap()).unwrap(), *object);
}

#[test]
fn objects_round_trip() {
    round_trips(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"a": "", "b": "c"}, "managedFields": [{"manager": "m", "operation": "Update",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"terminationGracePeriodSeconds": 0, "priority": -5, "containers": [{"name": "a",
            "resources": {"limits": {"cpu": "500m"}},
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
            "readinessProbe": {"tcpSocket": {"port": 80}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]},
        "status": {"phase": "Running"}}));
    round_trips(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "data": {"a": "aGVsbG8=", "empty": ""}, "type": "Opaque"}));
    round_trips(&json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {},
        "data": {"any": ["thing", 1]}, "revision": 7}));
    round_trips(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
        "spec": {"renewTime": "2026-01-02T03:04:05.123456Z", "leaseTransitions": 0}}));
    round_trips(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {},
        "spec": {"storageClassName": ""}}));
    round_trips(&json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "metadata": {}, "spec": {"user": "u", "extra": {"a": ["x", "y"]}},
        "status": {"allowed": false}}));
    round_trips(&json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "metadata": {"name": "x"},
        "spec": {"group": "g", "names": {"plural": "xs", "kind": "X"}, "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema":
            {"openAPIV3Schema": {"type": "object", "default": {"a": 1}, "properties": {
            "list": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "map": {"additionalProperties": true}}}}}]}}));
}

/// The bytes that client-go sends for `kubectl auth can-i get pods`.
#[test]
fn a_typed_clients_review_is_understood() {
    let mut bytes = b"k8s\x00\
        \x0a\x32\x0a\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview"
        .to_vec();
    // metadata (empty), spec { resourceAttributes { verb: get, resource: pods } }, status.
    let attributes = b"\x0a\x07default\x12\x03get\x1a\x00\x22\x00\x2a\x04pods\x32\x00\x3a\x00";
    let mut spec = vec![0x0a, u8::try_from(attributes.len()).unwrap()];
    spec.extend_from_slice(attributes);
    let mut raw = vec![0x0a, 0x02, 0x0a, 0x00, 0x12, u8::try_from(spec.len()).unwrap()];
    raw.extend_from_slice(&spec);
    raw.extend_from_slice(b"\x1a\x08\x08\x00\x12\x00\x1a\x00\x20\x00");
    bytes.extend_from_slice(&[0x12, u8::try_from(raw.len()).unwrap()]);
    bytes.extend_from_slice(&raw);
    bytes.extend_from_slice(b"\x1a\x00\x22\x00");
    assert_eq!(
        decode(&bytes).unwrap(),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "metadata": {}, "spec": {"resourceAttributes":
                {"namespace": "default", "verb": "get", "resource": "pods"}},
            "status": {"allowed": false}})
    );
}

#[test]
fn what_is_no_object_is_refused() {
    assert!(matches!(decode(b"{}"), Err(ProtobufError::NoMagic)));
    assert!(matches!(decode(b"k8s\0\xff"), Err(ProtobufError::Malformed(_))));
    assert!(matches!(decode(b"k8s\0"), Err(ProtobufError::UnknownKind { .. })));
    let huge = vec![0; 4 * 1024 * 1024];
    assert!(matches!(decode(&huge), Err(ProtobufError::TooLarge(_))));
    let custom = json!({"apiVersion": "x.io/v1", "kind": "X"});
    assert!(matches!(encode(&custom), Err(ProtobufError::UnknownKind { .. })));
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": 1});
    assert!(matches!(encode(&wrong), Err(ProtobufError::WrongType("spec"))));
}

#[test]
fn nesting_is_limited() {
    let mut schema = json!({"type": "string"});
    for _ in 0..100 {
        schema = json!({"not": schema});
    }
    let object = json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "spec": {"versions": [
            {"schema": {"openAPIV3Schema": schema}}]}});
    assert!(matches!(encode(&object), Err(ProtobufError::TooDeep(_))));
}

/// Values that fit a definition, field by field, to a few levels.
fn fitting(definition: &'static schema::Definition, depth: u32) -> BoxedStrategy<Value> {
    use schema::Shape;
    match definition.shape {
        Shape::Struct if depth == 0 => Just(json!({})).boxed(),
        Shape::Struct => {
            let fields: Vec<_> =
                definition.fields().iter().filter(|f| !f.path.is_empty()).collect();
            if fields.is_empty() {
                return Just(json!({})).boxed();
            }
            prop::sample::subsequence(fields.clone(), 0..=fields.len().min(4))
                .prop_flat_map(move |chosen| {
                    chosen
                        .into_iter()
                        .map(|field| {
                            of_type(&field.ty, depth - 1).prop_map(|v| (field.name.to_owned(), v))
                        })
                        .collect::<Vec<_>>()
                })
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
                .boxed()
        }
        Shape::Quantity => Just(json!("5Gi")).boxed(),
        Shape::IntOrString => prop_oneof![Just(json!(7)), Just(json!("50%"))].boxed(),
        Shape::Time => Just(json!("2026-01-02T03:04:05Z")).boxed(),
        Shape::MicroTime => Just(json!("2026-01-02T03:04:05.000001Z")).boxed(),
        Shape::SchemaOrBool => Just(json!(true)).boxed(),
        _ => Just(json!({"type": "x"})).boxed(),
    }
}

fn of_type(ty: &'static schema::Type, depth: u32) -> BoxedStrategy<Value> {
    use schema::Type;
    match ty {
        Type::String => Just(json!("text")).boxed(),
        Type::Bytes => Just(json!("aGVsbG8=")).boxed(),
        Type::Boolean => Just(json!(true)).boxed(),
        Type::Int32 | Type::Int64 => prop_oneof![Just(json!(-1)), Just(json!(300))].boxed(),
        Type::Double => Just(json!(0.5)).boxed(),
        Type::Array(item) => {
            prop::collection::vec(of_type(item, depth), 1..3).prop_map(Value::Array).boxed()
        }
        Type::Map(item) => of_type(item, depth).prop_map(|value| json!({"key": value})).boxed(),
        Type::Reference(reference) => fitting(reference.definition(), depth),
        _ => Just(json!({})).boxed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: orch_core::testing::rounds(256), failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let mut enveloped = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        enveloped.push(u8::try_from(bytes.len().min(127)).unwrap());
        enveloped.extend_from_slice(&bytes[..bytes.len().min(127)]);
        let _ = decode(&enveloped);
    }

    #[test]
    fn no_object_makes_encoding_panic(object in super::properties::object()) {
        let _ = encode(&object);
    }

    #[test]
    fn what_fits_its_schema_round_trips(
        object in prop::sample::select(
            schema::definitions().iter().filter(|d| !d.kinds.is_empty()).collect::<Vec<_>>(),
        )
        .prop_flat_map(|definition| {
            let gvk = definition.kinds[0];
            fitting(definition, 5).prop_map(move |mut value| {
                value["apiVersion"] = match gvk.group {
                    "" => json!(gvk.version),
                    group => json!(format!("{group}/{}", gvk.version)),
                };
                value["kind"] = json!(gvk.kind);
                value
            })
        })
    ) {
        prop_assert_eq!(decode(&encode(&object).unwrap()).unwrap(), object);
    }
}
