//! PersistentVolumeClaims.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidatePersistentVolumeClaim`.

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{
    field::{Errors, Field, child, child_opt, default_to, same, spec_of},
    metadata,
    persistent_volume::ACCESS_MODES,
    pod_spec::{named, resources},
};
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

/// Where claims named their class before they had a field for it.
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// The strategy of `persistentvolumeclaims`.
#[derive(Debug)]
pub(crate) struct PersistentVolumeClaim;

/// Fills in a claim's spec.
pub(crate) fn spec_defaults(fields: &mut Map<String, Value>) {
    default_to(fields, "volumeMode", "Filesystem");
    if let Some(held) = child(fields, "resources") {
        for list in ["requests", "limits"] {
            if let Some(list) = child_opt(held, list) {
                resources::canonicalize(list);
            }
        }
    }
    // The two names of a data source say the same, unless the new one leads elsewhere.
    let source = fields.get("dataSource").filter(|s| !s.is_null()).cloned();
    let newer = fields.get("dataSourceRef").filter(|s| !s.is_null()).cloned();
    match (source, newer) {
        (Some(source), None) => {
            fields.insert("dataSourceRef".into(), source);
        }
        (None, Some(newer)) if newer.get("namespace").is_none_or(Value::is_null) => {
            fields.insert("dataSource".into(), newer);
        }
        _ => {}
    }
}

/// Checks a claim's spec.
pub(crate) fn spec(spec: &Field<'_>, errors: &mut Errors) {
    if spec.len("accessModes") == 0 {
        errors.push(spec.required("accessModes", "at least 1 access mode is required"));
    }
    metadata::label_selector(&spec.get("selector"), errors);
    access_modes(spec, errors);
    let requests = spec.get("resources").get("requests");
    match requests.raw("storage") {
        Value::Null => errors.push(FieldError::required(format!("{}[storage]", requests.path), "")),
        value => {
            let path = format!("{}[storage]", requests.path);
            resources::quantity(&path, "storage", value, errors);
            if resources::amount(value).is_some_and(|a| a.is_zero() || a.is_negative()) {
                errors.push(FieldError::invalid(path, value.clone(), "must be greater than zero"));
            }
        }
    }
    if !spec.str("storageClassName").is_empty() {
        named(spec, "storageClassName", names::dns_subdomain, errors);
    }
    spec.one_of("volumeMode", &["Block", "Filesystem"], true, errors);
    let source = spec.get("dataSource");
    if source.is_set() {
        for name in ["name", "kind"] {
            source.not_empty(name, errors);
        }
    }
}

/// Checks a list of access modes.
pub(crate) fn access_modes(spec: &Field<'_>, errors: &mut Errors) {
    let path = spec.at("accessModes");
    let mut single = false;
    for mode in spec.strs("accessModes") {
        if !ACCESS_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(&path, mode, &ACCESS_MODES));
        }
        single |= mode == "ReadWriteOncePod";
    }
    if single && spec.len("accessModes") > 1 {
        let why = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, why));
    }
}

/// A claim that names no class may get one once: the default of a cluster that has one only later.
///
/// Source: `validateStorageClassUpgradeFromNil` of `k8s.io/kubernetes/pkg/apis/core/validation`.
fn may_get_class(new: &Value, old: &Value) -> bool {
    let class = |claim: &Value| claim["spec"]["storageClassName"].as_str().map(str::to_owned);
    let annotated = old["metadata"]["annotations"][CLASS_BETA].as_str();
    let Some(wanted) = class(new).filter(|_| class(old).is_none()) else { return false };
    annotated.is_none_or(|annotated| annotated == wanted)
}

impl Strategy for PersistentVolumeClaim {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(fields) = spec_of(object) {
            spec_defaults(fields);
        }
        if let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) {
            default_to(status, "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        spec(&Field::root(object).get("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        let (after, before) = (Field::new(&new["spec"], "spec"), Field::root(&old["spec"]));
        let mut munged = new["spec"].clone();
        // A claim is bound once: until then its volume may be named.
        if before.str("volumeName").is_empty() {
            carry(&mut munged, before.value, "volumeName");
        }
        if may_get_class(new, old) {
            carry(&mut munged, before.value, "storageClassName");
        }
        let asked =
            |spec: &Value| spec.pointer("/resources/requests/storage").and_then(resources::amount);
        let bound = new.pointer("/status/phase") == Some(&json!("Bound"));
        let (wanted, had) = (asked(&new["spec"]), asked(&old["spec"]));
        if bound && wanted != had {
            if wanted < had {
                // Going back is allowed as long as an expansion is not complete.
                let capacity = new.pointer("/status/capacity/storage").and_then(resources::amount);
                if wanted <= capacity {
                    let path = "spec.resources.requests.storage";
                    let why = "field can not be less than status.capacity";
                    errors.push(FieldError::forbidden(path, why));
                }
            }
            munged["resources"] = old["spec"]["resources"].clone();
        }
        carry(&mut munged, before.value, "volumeAttributesClassName");
        if !same(&munged, before.value) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(FieldError::forbidden("spec", why));
        }
        after.immutable(before.value, "volumeMode", &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        let status = Field::new(&new["status"], "status");
        for (name, value) in status.entries("capacity") {
            resources::quantity(&status.at_key("capacity", name), name, value, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &printers::storage::CLAIMS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::storage::claim(object, now)
    }
}
