//! What a container sees: environment variables and mounts.

use orch_core::status::FieldError;

use super::{named, volumes::Volumes};
use crate::{
    kinds::field::{Errors, Field},
    names,
};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const CONTAINER_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks `env` and `envFrom`.
pub(super) fn variables(container: &Field<'_>, errors: &mut Errors) {
    for variable in container.items("env") {
        if variable.str("name").is_empty() {
            errors.push(variable.required("name", ""));
        } else {
            named(&variable, "name", names::env_name, errors);
        }
        value_from(&variable, errors);
    }
    for from in container.items("envFrom") {
        if !from.str("prefix").is_empty() {
            named(&from, "prefix", names::env_name, errors);
        }
        match (from.opt("configMapRef"), from.opt("secretRef")) {
            (None, None) => errors.push(FieldError::invalid(
                &from.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &from.path,
                "",
                "may not have more than one field specified at a time",
            )),
            (Some(source), None) | (None, Some(source)) => source.not_empty("name", errors),
        }
    }
}

fn value_from(variable: &Field<'_>, errors: &mut Errors) {
    let Some(from) = variable.opt("valueFrom") else { return };
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = kinds.into_iter().filter(|kind| from.has(kind)).collect();
    let wrong = |why: &str| FieldError::invalid(&from.path, "", why);
    if given.is_empty() {
        errors.push(wrong(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if !variable.str("value").is_empty() {
        errors.push(wrong("may not be specified when `value` is not empty"));
    } else if given.len() > 1 {
        errors.push(wrong("may not have more than one field specified at a time"));
    }
    for kind in given {
        let source = from.get(kind);
        match kind {
            "fieldRef" => field_ref(&source, &ENV_FIELDS, errors),
            "resourceFieldRef" => resource_field_ref(&source, errors),
            "fileKeyRef" => {
                for name in ["volumeName", "path", "key"] {
                    source.not_empty(name, errors);
                }
            }
            _ => {
                source.not_empty("name", errors);
                if source.str("key").is_empty() {
                    errors.push(source.required("key", ""));
                } else {
                    named(&source, "key", names::config_key, errors);
                }
            }
        }
    }
}

/// Checks a reference to one of a pod's own fields.
pub(super) fn field_ref(source: &Field<'_>, fields: &[&str], errors: &mut Errors) {
    let path = source.str("fieldPath");
    if source.str("apiVersion").is_empty() {
        errors.push(source.required("apiVersion", ""));
    } else if path.is_empty() {
        errors.push(source.required("fieldPath", ""));
    } else if let Some((map, key)) = subscript(path) {
        match map {
            "metadata.annotations" | "metadata.labels" => {
                let wrong = names::qualified_name(&key.to_lowercase());
                errors.extend(wrong.into_iter().map(|why| source.invalid("fieldPath", why)));
            }
            _ => errors
                .push(source.invalid("fieldPath", format!("{path:?} does not support subscript"))),
        }
    } else if !fields.contains(&path) {
        errors.push(FieldError::not_supported(source.at("fieldPath"), path, fields));
    }
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// Checks a reference to one of a container's own resources.
pub(super) fn resource_field_ref(source: &Field<'_>, errors: &mut Errors) {
    let resource = source.str("resource");
    if resource.is_empty() {
        errors.push(source.required("resource", ""));
    } else if !CONTAINER_RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.push(FieldError::not_supported(
            source.at("resource"),
            resource,
            &CONTAINER_RESOURCES,
        ));
    }
}

/// Checks `volumeMounts` and `volumeDevices`.
pub(super) fn mounts(container: &Field<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut paths: Vec<&str> = Vec::new();
    for mount in container.items("volumeMounts") {
        let (name, path) = (mount.str("name"), mount.str("mountPath"));
        if name.is_empty() {
            errors.push(mount.required("name", ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(mount.at("name"), name));
        }
        if path.is_empty() {
            errors.push(mount.required("mountPath", ""));
        } else if paths.contains(&path) {
            errors.push(mount.invalid("mountPath", "must be unique"));
        }
        paths.push(path);
        for name in ["subPath", "subPathExpr"] {
            if !mount.str(name).is_empty() {
                descending_path(&mount, name, errors);
            }
        }
        if !mount.str("subPath").is_empty() && !mount.str("subPathExpr").is_empty() {
            errors.push(
                mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive"),
            );
        }
        let modes = ["Bidirectional", "HostToContainer", "None"];
        mount.one_of("mountPropagation", &modes, true, errors);
    }
    for device in container.items("volumeDevices") {
        let (name, path) = (device.str("name"), device.str("devicePath"));
        if name.is_empty() {
            errors.push(device.required("name", ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(device.at("name"), name));
        }
        if path.is_empty() {
            errors.push(device.required("devicePath", ""));
        } else if paths.contains(&path) {
            errors.push(
                device.invalid("devicePath", "must not already exist as a path in volumeMounts"),
            );
        }
    }
}

/// Refuses a path that is absolute or steps upwards.
pub(super) fn descending_path(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    let path = parent.str(name);
    if path.starts_with('/') {
        errors.push(parent.invalid(name, "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        errors.push(parent.invalid(name, "must not contain '..'"));
    }
}
