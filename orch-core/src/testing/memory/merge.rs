//! Patches, without a schema.

use serde_json::{Map, Value};

/// Lists that a strategic merge patch merges by a key. A server knows them from the types; a fake
/// knows those that components patch.
const MERGED: &[(&str, &str)] = &[
    ("addresses", "type"),
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("taints", "key"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: Value) {
    apply(target, patch, false);
}

/// A merge patch that merges well-known lists by their key and understands `$patch: delete`.
pub(super) fn strategic(target: &mut Value, patch: Value) {
    apply(target, patch, true);
}

fn apply(target: &mut Value, patch: Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (field, change) in patch {
        // Directives order lists; the order does not matter to a fake.
        if strategic && field.starts_with("$setElementOrder/") {
            continue;
        }
        let list = strategic.then(|| MERGED.iter().find(|(name, _)| *name == field)).flatten();
        match (change, list) {
            (Value::Null, _) => {
                target.remove(&field);
            }
            (Value::Array(items), Some((_, key))) => {
                let merged = target.entry(field).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(merged, items, key);
            }
            (change, _) => apply(target.entry(field).or_insert(Value::Null), change, strategic),
        }
    }
}

fn merge_list(target: &mut Value, items: Vec<Value>, key: &str) {
    let Value::Array(target) = target else {
        *target = Value::Array(items);
        return;
    };
    for mut item in items {
        let at = target.iter().position(|have| have.get(key) == item.get(key));
        let directive = item.as_object_mut().and_then(|item| item.remove("$patch"));
        match (at, directive) {
            (Some(at), Some(delete)) if delete == "delete" => {
                target.remove(at);
            }
            (None, Some(delete)) if delete == "delete" => {}
            (Some(at), _) => apply(&mut target[at], item, true),
            (None, _) => target.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_replaced_or_merged() {
        let object = json!({"a": 1, "conditions": [{"type": "A", "status": "False"}]});
        let patch = json!({"a": null, "conditions": [{"type": "B"}]});
        let mut merged = object.clone();
        merge(&mut merged, patch.clone());
        assert_eq!(merged, json!({"conditions": [{"type": "B"}]}));
        let mut merged = object;
        strategic(&mut merged, patch);
        assert_eq!(
            merged,
            json!({"conditions": [{"type": "A", "status": "False"}, {"type": "B"}]})
        );
        strategic(&mut merged, json!({"conditions": [{"type": "A", "$patch": "delete"}]}));
        assert_eq!(merged, json!({"conditions": [{"type": "B"}]}));
    }
}
