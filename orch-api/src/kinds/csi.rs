//! What CSIDrivers, CSINodes, CSIStorageCapacities and VolumeAttachments may say.
//!
//! Source: `pkg/apis/storage/validation`.

use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    field::{Errors, Field, IMMUTABLE, same},
    metadata,
    pod_spec::resources,
};
use crate::names;

const DRIVER_BYTES_MAX: usize = 63;
const NODE_ID_BYTES_MAX: usize = 192;
const TOKEN_S_MIN: i64 = 600;
const TOKEN_S_MAX: i64 = 1 << 32;

fn driver_name(parent: &Field<'_>, field: &str, errors: &mut Errors) {
    let name = parent.str(field);
    if name.is_empty() {
        errors.push(parent.required(field, ""));
    }
    if name.len() > DRIVER_BYTES_MAX {
        errors.push(FieldError::too_long(parent.at(field), DRIVER_BYTES_MAX));
    }
    if !name.is_empty() {
        let wrong = names::dns_subdomain(&name.to_lowercase());
        errors.extend(wrong.into_iter().map(|why| parent.invalid(field, why)));
    }
}

/// Checks a driver.
pub(super) fn driver(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(object);
    driver_name(&root.get("metadata"), "name", &mut errors);
    let spec = root.get("spec");
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    spec.one_of("fsGroupPolicy", &policies, false, &mut errors);
    for mode in spec.strs("volumeLifecycleModes") {
        if !matches!(mode, "Ephemeral" | "Persistent") {
            let known = ["Ephemeral", "Persistent"];
            let path = spec.at("volumeLifecycleModes");
            errors.push(FieldError::not_supported(path, mode, &known));
        }
    }
    let mut seen = Vec::new();
    for request in spec.items("tokenRequests") {
        let audience = request.str("audience");
        if seen.contains(&audience) {
            errors.push(FieldError::duplicate(request.at("audience"), audience));
        }
        seen.push(audience);
        let why = match request.int("expirationSeconds") {
            Some(seconds) if seconds < TOKEN_S_MIN => {
                "may not specify a duration less than 10 minutes"
            }
            Some(seconds) if seconds > TOKEN_S_MAX => {
                "may not specify a duration larger than 2^32 seconds"
            }
            _ => continue,
        };
        errors.push(request.invalid("expirationSeconds", why));
    }
    errors
}

/// Whether volumes are attached, and how they live, does not change.
pub(super) fn driver_update(new: &Value, old: &Value) -> Errors {
    // Upstream's path of the first one is spelled like this.
    let kept = [
        ("attachRequired", "spec.attachedRequired"),
        ("volumeLifecycleModes", "spec.volumeLifecycleModes"),
    ];
    let changed = kept.iter().filter(|(field, _)| !same(&new["spec"][field], &old["spec"][field]));
    let complain = |(field, path): &(&str, &str)| {
        FieldError::invalid(*path, new["spec"][*field].clone(), IMMUTABLE)
    };
    changed.map(complain).collect()
}

/// Checks what a node says of its drivers.
pub(super) fn node(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    let mut seen = Vec::new();
    for driver in spec.items("drivers") {
        driver_name(&driver, "name", &mut errors);
        let name = driver.str("name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(driver.at("name"), name));
        }
        seen.push(name);
        if driver.str("nodeID").is_empty() {
            errors.push(driver.required("nodeID", ""));
        } else if driver.str("nodeID").len() > NODE_ID_BYTES_MAX {
            let why = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            errors.push(driver.invalid("nodeID", why));
        }
        driver.get("allocatable").non_negative("count", &mut errors);
        let mut keys = Vec::new();
        for key in driver.strs("topologyKeys") {
            let path = driver.at("topologyKeys");
            if keys.contains(&key) {
                errors.push(FieldError::duplicate(&path, key));
            }
            keys.push(key);
            metadata::label_name(&path, key, &mut errors);
        }
    }
    errors
}

/// Checks what a driver says of the room that it has.
pub(super) fn capacity(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(object);
    if root.str("storageClassName").is_empty() {
        errors.push(root.required("storageClassName", ""));
    } else {
        let wrong = names::dns_subdomain(root.str("storageClassName"));
        errors.extend(wrong.into_iter().map(|why| root.invalid("storageClassName", why)));
    }
    metadata::label_selector(&root.get("nodeTopology"), &mut errors);
    for name in ["capacity", "maximumVolumeSize"] {
        if root.has(name) {
            resources::quantity(name, name, root.raw(name), &mut errors);
        }
    }
    errors
}

/// Of which class and where the room is does not change.
pub(super) fn capacity_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(new);
    root.immutable(old, "nodeTopology", &mut errors);
    root.immutable(old, "storageClassName", &mut errors);
    errors
}

/// Checks an attachment.
pub(super) fn attachment(object: &Value) -> Errors {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    driver_name(&spec, "attacher", &mut errors);
    let source = spec.get("source");
    match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (false, false) => errors.push(FieldError::required(&source.path, ONE)),
        (true, true) => errors.push(FieldError::forbidden(&source.path, ONE)),
        (false, true) if source.str("persistentVolumeName").is_empty() => {
            let why = "must specify non empty persistentVolumeName";
            errors.push(source.required("persistentVolumeName", why));
        }
        _ => {}
    }
    spec.not_empty("nodeName", &mut errors);
    errors
}
