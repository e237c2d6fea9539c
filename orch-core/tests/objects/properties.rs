//! Properties that hold for any object.

use orch_core::{
    patch::{self, FieldSet, Writer},
    schema,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that the schemas know and names that they do not, so that values often fit halfway.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "spec",
        "metadata",
        "labels",
        "finalizers",
        "containers",
        "name",
        "env",
        "ports",
        "port",
        "containerPort",
        "protocol",
        "replicas",
        "template",
        "$patch",
        "$retainKeys",
        "volumes",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "managedFields",
        "resources",
        "limits",
        "ownerReferences",
        "uid",
        "x",
        "data",
        "creationTimestamp",
    ])
    .prop_map(str::to_owned)
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec!["a", "b", "replace", "delete", "1Gi", "TCP", ""])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(crate) fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(name(), value(), 0..6).prop_map(|map| {
        let mut map: Map<String, Value> = map.into_iter().collect();
        map.insert("apiVersion".into(), json!("v1"));
        map.insert("kind".into(), json!("Pod"));
        if !map.get("metadata").is_some_and(Value::is_object) {
            map.insert("metadata".into(), json!({"name": "a"}));
        }
        Value::Object(map)
    })
}

fn writer<'a>(manager: &'a str, ignored: &'a FieldSet) -> Writer<'a> {
    let time = jiff::Timestamp::UNIX_EPOCH;
    Writer { manager, api_version: "v1", subresource: None, time, ignored }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: orch_core::testing::rounds(512), failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_value_makes_a_patch_panic(target in value(), change in value()) {
        let pod = schema::of("", "v1", "Pod");
        let _ = patch::json_patch(&mut target.clone(), &change);
        let _ = patch::merge_patch(&mut target.clone(), &change);
        let _ = patch::strategic_merge_patch(pod, &mut target.clone(), &change);
        let none = FieldSet::default();
        for definition in [pod, None] {
            let me = writer("me", &none);
            let _ = patch::apply(definition, Some(&target), &change, &me, true);
            patch::update(definition, Some(&target), &mut change.clone(), &me);
            patch::update(definition, None, &mut change.clone(), &me);
        }
        let pod = pod.unwrap();
        let _ = schema::check_types(pod, &target);
        let _ = schema::unknown_fields(pod, &target);
        schema::prune(pod, &mut target.clone());
    }

    #[test]
    fn a_pruned_object_has_no_unknown_fields(mut target in object()) {
        let pod = schema::of("", "v1", "Pod").unwrap();
        schema::prune(pod, &mut target);
        prop_assert!(schema::unknown_fields(pod, &target).is_empty());
    }

    #[test]
    fn a_merge_patch_does_what_its_naive_model_does(target in object(), change in object()) {
        let mut merged = target.clone();
        patch::merge_patch(&mut merged, &change).unwrap();
        // RFC 7386's own pseudocode.
        fn model(target: &Value, change: &Value) -> Value {
            let Some(change) = change.as_object() else { return change.clone() };
            let mut result = target.as_object().cloned().unwrap_or_default();
            for (key, change) in change {
                if change.is_null() {
                    result.remove(key);
                } else {
                    let old = result.get(key).cloned().unwrap_or(Value::Null);
                    result.insert(key.clone(), model(&old, change));
                }
            }
            Value::Object(result)
        }
        prop_assert_eq!(&merged, &model(&target, &change));
        let once = merged.clone();
        patch::merge_patch(&mut merged, &change).unwrap();
        prop_assert_eq!(once, merged);
    }

    #[test]
    fn applying_twice_changes_nothing(live in object(), change in object()) {
        let none = FieldSet::default();
        let me = writer("me", &none);
        let config = |mut change: Value| {
            change["metadata"].as_object_mut().unwrap().remove("managedFields");
            change
        };
        let (live, change) = (config(live), config(change));
        for definition in [schema::of("", "v1", "Pod"), None] {
            let mut live = live.clone();
            patch::update(definition, None, &mut live, &writer("you", &none));
            if let Ok(once) = patch::apply(definition, Some(&live), &change, &me, true) {
                let twice = patch::apply(definition, Some(&once), &change, &me, false);
                prop_assert_eq!(&once, &twice.unwrap());
            }
        }
    }

    #[test]
    fn field_sets_are_sets(a in fields(), b in fields()) {
        let (union, both) = (a.union(&b), a.intersection(&b));
        prop_assert_eq!(union.difference(&b).union(&both), a.clone());
        prop_assert_eq!(&a.union(&b), &b.union(&a));
        prop_assert_eq!(FieldSet::from_fields_v1(&union.to_fields_v1()), Some(union));
    }
}

fn fields() -> impl Strategy<Value = FieldSet> {
    let element = prop::sample::select(vec!["f:a", "f:b", "k:{\"name\":\"a\"}", "v:1", "."]);
    let leaf = Just(json!({}));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop::collection::btree_map(element.clone().prop_map(str::to_owned), inner, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    })
    .prop_map(|fields| FieldSet::from_fields_v1(&fields).unwrap())
}
