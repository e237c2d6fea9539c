//! What the server itself keeps in an object's metadata, and what a client may change there.
//!
//! Source: `k8s.io/apiserver/pkg/registry/rest/create.go`, `update.go`,
//! `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use orch_core::{ApiError, Environment, clock::to_seconds, status::FieldError};
use serde_json::{Map, Value};

use super::{Addressed, meta_str};
use crate::kinds::{self, Field};

/// A name that is generated leaves room for five characters.
const GENERATED_BASE_MAX: usize = 58;
const SUFFIX: usize = 5;

/// The metadata, made an object if there was none.
pub(super) fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let object =
        object.as_object_mut().ok_or_else(|| ApiError::bad_request("expected an object"))?;
    let meta = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if meta.is_null() {
        *meta = Value::Object(Map::new());
    }
    meta.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata must be an object"))
}

/// Checks that the body is of the kind that was addressed, and fills in what it left out.
pub(super) fn check_kind(body: &mut Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    let Some(object) = body.as_object_mut() else {
        return Err(ApiError::bad_request(format!("the body is not a {kind}: expected an object")));
    };
    for (field, expected) in [("apiVersion", api_version), ("kind", kind)] {
        match object.get(field) {
            None | Some(Value::Null) => {
                object.insert(field.into(), expected.into());
            }
            Some(Value::String(text)) if text.is_empty() => {
                object.insert(field.into(), expected.into());
            }
            Some(Value::String(text)) if text == expected => {}
            Some(other) => return Err(other_kind(field, other, api_version, kind)),
        }
    }
    Ok(())
}

/// The refusal of a body that says to be something else.
///
/// Source: `k8s.io/apiserver/pkg/endpoints/handlers`, `create.go` and `transformDecodeError`.
fn other_kind(field: &str, found: &Value, api_version: &str, kind: &str) -> ApiError {
    let Some(found) = found.as_str() else {
        let why = "couldn't get version/kind; json parse error";
        return ApiError::bad_request(format!("{why}: {field} must be a string"));
    };
    if field == "apiVersion" {
        return ApiError::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({api_version})"
        ));
    }
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let why = match orch_core::schema::of_api_version(api_version, found) {
        Some(_) => format!("converting {version}.{found} to {kind}: unknown conversion"),
        None => format!("no kind {found:?} is registered for version {api_version:?}"),
    };
    ApiError::bad_request(format!(
        "{found} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

/// Brings the namespace of the body and of the path together.
pub(super) fn settle_namespace(at: &Addressed, body: &mut Value) -> Result<(), ApiError> {
    let namespace = at.namespace().map(str::to_owned);
    let found = meta_str(body, "namespace").map(str::to_owned);
    let meta = metadata(body)?;
    match (namespace, found) {
        (Some(path), Some(found)) if path != found => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        (Some(_), Some(_)) => Ok(()),
        (Some(path), None) => {
            meta.insert("namespace".into(), path.into());
            Ok(())
        }
        (None, Some(_)) if at.resource.is_namespaced() => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        (None, Some(_)) => {
            let kind = &at.of().kind;
            let why = "not allowed on this type";
            let error = FieldError::forbidden("metadata.namespace", why);
            Err(ApiError::invalid(&at.of().group, kind, at.name(), &[error]))
        }
        (None, None) if at.resource.is_namespaced() => {
            Err(ApiError::bad_request("an empty namespace may not be set during creation"))
        }
        _ => {
            meta.remove("namespace");
            Ok(())
        }
    }
}

/// Brings the name of the body and of the path together, for updates.
pub(super) fn settle_name(at: &Addressed, body: &mut Value) -> Result<(), ApiError> {
    let found = meta_str(body, "name").map(str::to_owned);
    match found {
        Some(found) if found != at.name() => Err(ApiError::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({})",
            at.name()
        ))),
        Some(_) => Ok(()),
        None => {
            metadata(body)?.insert("name".into(), at.name().into());
            Ok(())
        }
    }
}

/// Gives a new object what the server decides: uid, times, generation.
pub(super) fn stamp_new(
    object: &mut Value,
    environment: &Environment,
    has_generation: bool,
) -> Result<(), ApiError> {
    let meta = metadata(object)?;
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".into(), environment.random.uuid().into());
    meta.insert("creationTimestamp".into(), now(environment).into());
    if has_generation {
        meta.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// The time as objects carry it.
pub(super) fn now(environment: &Environment) -> String {
    to_seconds(environment.clock.now()).to_string()
}

/// A name from `generateName`.
pub(super) fn generate_name(base: &str, environment: &Environment) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], environment.random.name_suffix(SUFFIX))
}

/// Restores in an update what belongs to the server; gives what the client tried to change.
pub(super) fn settle_update(new: &mut Value, old: &Value) -> Result<Vec<FieldError>, ApiError> {
    let mut errors = Vec::new();
    let old_meta = &old["metadata"];
    let meta = metadata(new)?;
    meta.remove("selfLink");
    for field in ["generation", "deletionTimestamp"] {
        restore(meta, old_meta, field);
    }
    for field in ["uid", "creationTimestamp", "deletionGracePeriodSeconds"] {
        match (meta.get(field).filter(|value| !value.is_null()), old_meta.get(field)) {
            (None, _) => restore(meta, old_meta, field),
            (Some(new), old) if Some(new) != old => {
                let path = format!("metadata.{field}");
                errors.push(FieldError::invalid(path, new.clone(), "field is immutable"));
            }
            _ => {}
        }
    }
    if old_meta.get("deletionTimestamp").is_some() {
        let names = |meta: &Value| -> Vec<String> {
            let list = meta.as_array().into_iter().flatten();
            list.filter_map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let before = names(&old_meta["finalizers"]);
        let after = names(meta.get("finalizers").unwrap_or(&Value::Null));
        let added: Vec<String> = after.into_iter().filter(|name| !before.contains(name)).collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|name| format!("\"{name}\"")).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", why));
        }
    }
    Ok(errors)
}

fn restore(meta: &mut Map<String, Value>, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => meta.insert(field.into(), value.clone()),
        None => meta.remove(field),
    };
}

/// Raises the generation of what changed in substance.
pub(super) fn raise_generation(new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    metadata(new)?.insert("generation".into(), generation.into());
    Ok(())
}

/// What is wrong with labels, annotations, owners and finalizers.
///
/// Source: `k8s.io/apimachinery/pkg/api/validation`, `ValidateObjectMetaAccessor`;
/// `pkg/apis/core/validation`, `ValidateObjectMeta`, which asks more of finalizers, and which custom
/// objects do not go through.
pub(super) fn validate(object: &Value, custom: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let meta = Field::new(&object["metadata"], "metadata");
    kinds::metadata::labels(&meta, "labels", &mut errors);
    kinds::metadata::annotations(&meta, "annotations", &mut errors);
    let mut controllers = 0;
    for owner in meta.items("ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.str(field).is_empty() {
                errors.push(owner.required(field, "must not be empty"));
            }
        }
        controllers += usize::from(owner.bool("controller"));
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        let list = object["metadata"]["ownerReferences"].clone();
        errors.push(FieldError::invalid("metadata.ownerReferences", list, why));
    }
    for name in meta.strs("finalizers") {
        let known = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        let mut wrong = crate::names::qualified_name(name);
        if wrong.is_empty() && !custom && !known && !name.contains('/') {
            wrong
                .push("name is neither a standard finalizer name nor is it fully qualified".into());
        }
        errors
            .extend(wrong.into_iter().map(|w| FieldError::invalid("metadata.finalizers", name, w)));
    }
    errors
}
