//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use super::PatchError;

/// Source: `maxJSONPatchOperations` of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
const OPERATIONS_MAX: usize = 10_000;
/// Without a limit a few hundred bytes of `copy` operations would double an object for ever.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Deeper values are refused before a recursion could exhaust the stack.
pub(super) const DEPTH_MAX: usize = 512;

/// Applies a JSON patch: all of it, or nothing.
///
/// # Errors
/// [`PatchError::Malformed`] if it is not a list of operations, [`PatchError::TooManyOperations`]
/// past 10,000 of them, [`PatchError::TooMuchCopied`] past 3 MiB of copies,
/// [`PatchError::TooDeep`] for what would nest values more than 512 levels deep, and
/// [`PatchError::DoesNotFit`] where an operation fails.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if let Some(list) = patch.as_array()
        && list.len() > OPERATIONS_MAX
    {
        return Err(PatchError::TooManyOperations { max: OPERATIONS_MAX, found: list.len() });
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let fits = |error: json_patch::PatchError, operation: &json_patch::PatchOperation| {
        PatchError::DoesNotFit(described(&error, operation))
    };
    if operations.iter().any(|operation| operation.path().tokens().count() > DEPTH_MAX) {
        return Err(PatchError::TooDeep(DEPTH_MAX));
    }
    let alone = |one: &json_patch::PatchOperation| source(one).is_some() || tests_for_null(one);
    if !operations.iter().any(alone) {
        return json_patch::patch(target, &operations).map_err(|error| {
            match operations.get(error.operation) {
                Some(failed) => fits(error, failed),
                None => PatchError::DoesNotFit(error.to_string()),
            }
        });
    }
    let mut copied = 0usize;
    let mut result = target.clone();
    for operation in operations.iter() {
        if let Some(from) = source(operation)
            && let Some(source) = result.pointer(from)
        {
            // Put into itself a value would become twice as deep with every operation.
            let above = operation.path().tokens().count();
            check_depth_below(above, std::iter::once(source))?;
            if matches!(operation, json_patch::PatchOperation::Copy(_)) {
                copied = copied.saturating_add(source.to_string().len());
            }
            if copied > COPIED_BYTES_MAX {
                return Err(PatchError::TooMuchCopied { max: COPIED_BYTES_MAX, bytes: copied });
            }
        }
        if tests_for_null(operation) && is_absent(&result, operation.path().as_str()) {
            continue;
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation))
            .map_err(|error| fits(error, operation))?;
    }
    *target = result;
    Ok(())
}

/// Where an operation takes its value from, if that is the object itself.
fn source(operation: &json_patch::PatchOperation) -> Option<&str> {
    match operation {
        json_patch::PatchOperation::Copy(copy) => Some(copy.from.as_str()),
        json_patch::PatchOperation::Move(moved) => Some(moved.from.as_str()),
        _ => None,
    }
}

/// To the library that upstream uses, an absent field is null: clients test so that a field is not
/// there before they add it. The RFC would have such a test fail.
///
/// Source: `Patch.test` of `gopkg.in/evanphx/json-patch.v4`.
fn tests_for_null(operation: &json_patch::PatchOperation) -> bool {
    matches!(operation, json_patch::PatchOperation::Test(test) if test.value.is_null())
}

/// Whether there is an object at the path's parent, and nothing at the path.
fn is_absent(value: &Value, path: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    value.pointer(path).is_none() && value.pointer(parent).is_some_and(Value::is_object)
}

/// What failed, in the words of the library that upstream uses.
///
/// Source: `gopkg.in/evanphx/json-patch.v4`.
fn described(error: &json_patch::PatchError, operation: &json_patch::PatchOperation) -> String {
    use json_patch::{PatchErrorKind, PatchOperation};
    let path = operation.path();
    if matches!(error.kind, PatchErrorKind::TestFailed) {
        return format!("testing value {path} failed: test failed");
    }
    match operation {
        PatchOperation::Test(_) => format!("testing value {path} failed: test failed"),
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) => {
            format!(
                "remove operation does not apply: doc is missing path: \"{path}\": missing value"
            )
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        PatchOperation::Move(moved) => {
            let from = &moved.from;
            format!(
                "move operation does not apply: doc is missing from path: {from}: missing value"
            )
        }
        PatchOperation::Copy(copied) => {
            let from = &copied.from;
            format!(
                "copy operation does not apply: doc is missing from path: {from}: missing value"
            )
        }
    }
}

/// Applies a JSON merge patch: objects merge, null removes, everything else replaces.
///
/// # Errors
/// [`PatchError::Malformed`] if the patch is not an object, [`PatchError::TooDeep`] if it is nested
/// more than 512 levels deep.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("error decoding patch: expected an object".into()));
    };
    check_depth(patch.values())?;
    merge(target, patch);
    Ok(())
}

fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, change) in patch {
        match change {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(change) => {
                merge(target.entry(key.as_str()).or_insert(Value::Null), change);
            }
            change => {
                target.insert(key.clone(), change.clone());
            }
        }
    }
}

/// Refuses values that are nested deeper than the patch functions recurse.
pub(super) fn check_depth<'a>(values: impl Iterator<Item = &'a Value>) -> Result<(), PatchError> {
    check_depth_below(0, values)
}

/// The same for values that will lie that many levels deep themselves.
fn check_depth_below<'a>(
    above: usize,
    values: impl Iterator<Item = &'a Value>,
) -> Result<(), PatchError> {
    let mut stack: Vec<(&Value, usize)> = values.map(|value| (value, above + 1)).collect();
    while let Some((value, depth)) = stack.pop() {
        if depth > DEPTH_MAX {
            return Err(PatchError::TooDeep(DEPTH_MAX));
        }
        match value {
            Value::Array(list) => stack.extend(list.iter().map(|value| (value, depth + 1))),
            Value::Object(map) => stack.extend(map.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::ApiError;

    #[test]
    fn a_merge_patch_merges_replaces_and_removes() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge_patch(&mut value, &json!({"a": {"b": null, "e": {"f": null}}, "d": [2]})).unwrap();
        assert_eq!(value, json!({"a": {"c": 2, "e": {}}, "d": [2]}));
        assert!(matches!(merge_patch(&mut value, &json!([])), Err(PatchError::Malformed(_))));
    }

    #[test]
    fn a_json_patch_applies_whole_or_not_at_all() {
        let mut value = json!({"a": [1, 2]});
        let patch = json!([{"op": "add", "path": "/a/-", "value": 3},
            {"op": "copy", "from": "/a", "path": "/b"}, {"op": "remove", "path": "/a/0"}]);
        json_patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a": [2, 3], "b": [1, 2, 3]}));
        let before = value.clone();
        let failing = json!([{"op": "remove", "path": "/a"},
            {"op": "test", "path": "/b", "value": 1}]);
        let error = json_patch(&mut value, &failing).unwrap_err();
        assert_eq!(value, before);
        assert_eq!(error.to_string(), "testing value /b failed: test failed");
        assert_eq!(ApiError::from(error).code(), 422);
        let missing = json!([{"op": "replace", "path": "/x", "value": 1}]);
        assert_eq!(
            json_patch(&mut value, &missing).unwrap_err().to_string(),
            "replace operation does not apply: doc is missing key: /x: missing value"
        );
    }

    #[test]
    fn what_is_absent_is_null_to_a_test() {
        let test = |path: &str| json!({"op": "test", "path": path, "value": null});
        let mut value = json!({"metadata": {"name": "a"}});
        let add = json!({"op": "add", "path": "/metadata/finalizers", "value": ["b"]});
        let patch = json!([test("/metadata/finalizers"), add]);
        json_patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"metadata": {"name": "a", "finalizers": ["b"]}}));
        for there in ["/metadata/finalizers", "/metadata/finalizers/1", "/spec/replicas"] {
            let error = json_patch(&mut value, &json!([test(there)])).unwrap_err();
            assert_eq!(error.to_string(), format!("testing value {there} failed: test failed"));
        }
        json_patch(&mut value, &json!([test("/spec")])).unwrap();
    }

    #[test]
    fn a_json_patch_has_limits() {
        let many = Value::Array(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS_MAX + 1]);
        let error = json_patch(&mut json!({}), &many).unwrap_err();
        assert_eq!(ApiError::from(error).code(), 413);
        let doubling = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let mut value = json!({"a": ["x".repeat(1000)]});
        let error = json_patch(&mut value, &Value::Array(vec![doubling; 100])).unwrap_err();
        assert!(matches!(error, PatchError::TooMuchCopied { .. }), "{error}");
        assert_eq!(value["a"].as_array().unwrap().len(), 1);
        for nesting in [
            json!([{"op": "copy", "from": "", "path": "/a"}]),
            json!([{"op": "add", "path": "/b", "value": {}}, {"op": "move", "from": "/a",
                "path": "/b/a"}, {"op": "move", "from": "/b", "path": "/a"}]),
        ] {
            let mut operations = nesting.as_array().unwrap().clone();
            let again = operations.clone();
            (0..1000).for_each(|_| operations.extend_from_slice(&again));
            let error = json_patch(&mut json!({"a": {}}), &Value::Array(operations)).unwrap_err();
            assert!(matches!(error, PatchError::TooDeep(_)), "{error}");
        }
    }
}
