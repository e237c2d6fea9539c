//! ConfigMaps and Secrets.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidateConfigMap`, `ValidateSecret`.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use orch_core::status::FieldError;
use serde_json::{Map, Value};

use super::{
    field::{Errors, Field, IMMUTABLE, default_to, same},
    select,
};
use crate::{
    names, printers,
    strategy::{Column, Strategy},
};

const TOTAL_BYTES_MAX: usize = 1024 * 1024;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

/// The strategy of `configmaps`.
#[derive(Debug)]
pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn prepare_for_create(&self, _object: &mut Value) {}

    fn prepare_for_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let root = Field::root(object);
        let mut total = 0;
        for (key, value) in root.entries("data") {
            keys(&root, "data", key, &mut errors);
            if root.raw("binaryData").get(key).is_some() {
                let why = format!("duplicate of key present in binaryData: {key:?}");
                let why = why.split(": ").next().unwrap_or_default().to_owned();
                errors.push(FieldError::invalid(root.at_key("data", key), key, why));
            }
            total += value.as_str().map_or(0, str::len);
        }
        for (key, value) in root.entries("binaryData") {
            keys(&root, "binaryData", key, &mut errors);
            total += decoded_len(value);
        }
        if total > TOTAL_BYTES_MAX {
            errors.push(FieldError::too_long("", TOTAL_BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = frozen(new, old, &["data", "binaryData"]);
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &printers::config::CONFIG_MAPS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::config::config_map(object, now)
    }
}

fn keys(root: &Field<'_>, map: &str, key: &str, errors: &mut Errors) {
    let path = || root.at_key(map, key);
    let wrong = names::config_key(key);
    errors.extend(wrong.into_iter().map(|why| FieldError::invalid(path(), key, why)));
}

/// What an object that declared itself immutable does not let change.
fn frozen(new: &Value, old: &Value, fields: &[&str]) -> Errors {
    let mut errors = Vec::new();
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return errors;
    }
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE_SET));
    }
    for field in fields {
        if !same(&new[*field], &old[*field]) {
            errors.push(FieldError::forbidden(*field, IMMUTABLE_SET));
        }
    }
    errors
}

fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).map_or(0, |bytes| bytes.len())
}

/// The strategy of `secrets`.
#[derive(Debug)]
pub(crate) struct Secret;

const SELECTABLE: [&str; 1] = ["type"];

impl Strategy for Secret {
    fn set_defaults(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        default_to(fields, "type", "Opaque");
        // What is written in plain is stored encoded, over what stands there.
        if let Some(Value::Object(plain)) = fields.remove("stringData") {
            default_to(fields, "data", Map::new());
            if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
                for (key, text) in plain {
                    let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
                    data.insert(key, encoded.into());
                }
            }
        }
    }

    fn prepare_for_create(&self, _object: &mut Value) {}

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        // Upstream lets an update leave the type out.
        if new["type"].as_str().unwrap_or_default().is_empty() {
            new["type"] = old["type"].clone();
        }
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let root = Field::root(object);
        let mut total = 0;
        for (key, value) in root.entries("data") {
            keys(&root, "data", key, &mut errors);
            total += decoded_len(value);
        }
        if total > TOTAL_BYTES_MAX {
            errors.push(FieldError::too_long("data", TOTAL_BYTES_MAX));
        }
        well_known(&root, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = Vec::new();
        if new["type"] != old["type"] {
            errors.push(FieldError::invalid("type", new["type"].clone(), IMMUTABLE));
        }
        errors.extend(frozen(new, old, &["data"]));
        errors.extend(self.validate(new));
        errors
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        select(object, field, &SELECTABLE)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        &printers::config::SECRETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::config::secret(object, now)
    }
}

/// What Secrets of the types that upstream knows must hold.
fn well_known(root: &Field<'_>, errors: &mut Errors) {
    let missing = |key: &str| root.raw("data").get(key).is_none();
    let mut require = |key: &str| {
        if missing(key) {
            errors.push(FieldError::required(root.at_key("data", key), ""));
        }
    };
    match root.str("type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let annotations = root.get("metadata").get("annotations");
            if annotations.str(key).is_empty() {
                errors.push(FieldError::required(format!("metadata.annotations[{key}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => docker(root, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(root, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            for key in ["username", "password"] {
                errors.push(FieldError::required(root.at_key("data", key), ""));
            }
        }
        "kubernetes.io/ssh-auth" => require("ssh-privatekey"),
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
}

fn docker(root: &Field<'_>, key: &str, errors: &mut Errors) {
    let path = root.at_key("data", key);
    match root.raw("data").get(key).and_then(Value::as_str) {
        None => errors.push(FieldError::required(path, "")),
        Some(text) => {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
                let why = error.to_string();
                errors.push(FieldError::invalid(path, "<secret contents redacted>", why));
            }
        }
    }
}
