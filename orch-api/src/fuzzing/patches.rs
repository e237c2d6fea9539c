//! The four patches over an object.

use orch_core::{
    client::PatchKind,
    patch::{self, FieldSet, Writer},
    schema,
};
use serde_json::Value;

use crate::http::fuzzing as http;

/// Parts the object from its patch.
pub(super) const SEPARATOR: u8 = 0x1e;
const KINDS: [PatchKind; 4] =
    [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];

/// An object as JSON, the separator, a patch. The first byte chooses the kind of the patch.
///
/// # Panics
/// If a merge patch or an apply does something the second time.
pub(super) fn patches(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let Some(at) = rest.iter().position(|byte| *byte == SEPARATOR) else { return };
    let object = [&[0], &rest[..at]].concat();
    let Some(object) = http::body(&object).filter(Value::is_object) else { return };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let Some(mut patch) = http::patch(kind, &rest[at + 1..]) else { return };
    if let (PatchKind::Apply, Value::Object(config)) = (kind, &mut patch) {
        // The server refuses a configuration of another kind before it is applied.
        for name in ["apiVersion", "kind"] {
            config.insert(name.to_owned(), object[name].clone());
        }
    }
    let Ok(once) = patched(kind, &object, &patch) else { return };
    if matches!(kind, PatchKind::Merge | PatchKind::Apply) {
        let twice = patched(kind, &once, &patch).expect("a patch fits what it made");
        assert_eq!(twice, once, "the same patch changed the object again");
    }
}

fn patched(kind: PatchKind, object: &Value, patch: &Value) -> Result<Value, String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let definition = schema::of_api_version(text("apiVersion"), text("kind"));
    let mut new = object.clone();
    match kind {
        PatchKind::Json => patch::json_patch(&mut new, patch).map_err(|e| e.to_string())?,
        PatchKind::Merge => patch::merge_patch(&mut new, patch).map_err(|e| e.to_string())?,
        PatchKind::Strategic => {
            let merged = patch::strategic_merge_patch(definition, &mut new, patch);
            merged.map_err(|error| error.to_string())?;
        }
        _ => {
            let ignored = FieldSet::of_names(&["status"]);
            let writer = Writer {
                manager: "fuzzer",
                api_version: text("apiVersion"),
                subresource: None,
                time: jiff::Timestamp::UNIX_EPOCH,
                ignored: &ignored,
            };
            let applied = patch::apply(definition, Some(object), patch, &writer, true);
            return applied.map_err(|error| error.to_string());
        }
    }
    Ok(new)
}
