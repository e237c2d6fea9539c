//! Volumes and their sources.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidateVolumes`.

use std::collections::BTreeSet;

use orch_core::status::FieldError;

use super::{
    environment::{descending_path, field_ref, resource_field_ref},
    named, resources,
};
use crate::{
    kinds::field::{Errors, Field},
    names,
};

/// The names of a pod's volumes.
pub(crate) type Volumes<'a> = BTreeSet<&'a str>;

const DOWNWARD_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// The names of a pod's volumes.
pub(super) fn names_of<'a>(spec: &Field<'a>) -> Volumes<'a> {
    spec.items("volumes").map(|volume| volume.str("name")).collect()
}

/// Checks all volumes; gives their names.
pub(super) fn validate<'a>(spec: &Field<'a>, errors: &mut Errors) -> Volumes<'a> {
    let mut seen = Volumes::new();
    for volume in spec.items("volumes") {
        pod_source(&volume, errors);
        let name = volume.str("name");
        if name.is_empty() {
            errors.push(volume.required("name", ""));
        } else {
            named(&volume, "name", names::dns_label, errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(volume.at("name"), name));
            }
        }
    }
    seen
}

fn pod_source(volume: &Field<'_>, errors: &mut Errors) {
    let sources: Vec<&str> = volume
        .value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| *k != "name" && !v.is_null())
        .map(|(k, _)| k.as_str())
        .collect();
    let Some((first, more)) = sources.split_first() else {
        errors.push(FieldError::required(&volume.path, "must specify a volume type"));
        return;
    };
    for more in more {
        errors.push(volume.forbidden(more, "may not specify more than 1 volume type"));
    }
    let source = volume.get(first);
    match *first {
        "emptyDir" => {
            let limit = resources::amount(source.raw("sizeLimit"));
            if limit.is_some_and(|amount| amount.is_negative()) {
                let why = "SizeLimit field must be a valid resource quantity";
                errors.push(source.forbidden("sizeLimit", why));
            }
        }
        "secret" => {
            source.not_empty("secretName", errors);
            files(&source, errors);
        }
        "configMap" => {
            source.not_empty("name", errors);
            files(&source, errors);
        }
        "downwardAPI" => downward(&source, errors),
        "projected" => projected(&source, errors),
        "persistentVolumeClaim" => source.not_empty("claimName", errors),
        "image" => source.one_of("pullPolicy", &["Always", "IfNotPresent", "Never"], true, errors),
        "ephemeral" => {
            if let Some(template) = source.opt("volumeClaimTemplate") {
                let path = template.get("spec");
                crate::kinds::persistent_volume_claim::spec(&path, errors);
            } else {
                errors.push(source.required("volumeClaimTemplate", ""));
            }
        }
        other => persistent_source(other, &source, errors),
    }
}

/// Checks a source that PersistentVolumes have as well.
pub(crate) fn persistent_source(kind: &str, source: &Field<'_>, errors: &mut Errors) {
    let required: &[&str] = match kind {
        "hostPath" => {
            host_path(source, errors);
            &[]
        }
        "nfs" => {
            let path = source.str("path");
            source.not_empty("server", errors);
            source.not_empty("path", errors);
            if !path.is_empty() && !path.starts_with('/') {
                errors.push(source.invalid("path", "must be an absolute path"));
            }
            &[]
        }
        "gcePersistentDisk" => {
            partition(source, errors);
            &["pdName"]
        }
        "awsElasticBlockStore" => {
            partition(source, errors);
            &["volumeID"]
        }
        "cinder" | "portworxVolume" => &["volumeID"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "csi" => &["driver"],
        "iscsi" => &["targetPortal", "iqn"],
        "flexVolume" => &["driver"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["image"],
        "quobyte" => &["registry", "volume"],
        "flocker" => &["datasetName"],
        "local" => {
            source.not_empty("path", errors);
            if source.str("path").split('/').any(|part| part == "..") {
                errors.push(source.invalid("path", "must not contain '..'"));
            }
            &[]
        }
        _ => &[],
    };
    for name in required {
        source.not_empty(name, errors);
    }
}

fn partition(source: &Field<'_>, errors: &mut Errors) {
    if source.int("partition").is_some_and(|n| !(0..=255).contains(&n)) {
        errors.push(source.invalid("partition", "must be between 0 and 255, inclusive"));
    }
}

fn host_path(source: &Field<'_>, errors: &mut Errors) {
    const TYPES: [&str; 7] = [
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if source.str("path").is_empty() {
        errors.push(source.required("path", ""));
        return;
    }
    if source.str("path").split('/').any(|part| part == "..") {
        errors.push(source.invalid("path", "must not contain '..'"));
    }
    source.one_of("type", &TYPES, true, errors);
}

fn mode(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    if parent.int(name).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(parent.invalid(name, why));
    }
}

/// Checks `defaultMode` and `items` of a source that projects keys to files.
fn files(source: &Field<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", errors);
    for item in source.items("items") {
        item.not_empty("key", errors);
        if item.str("path").is_empty() {
            errors.push(item.required("path", ""));
        } else {
            descending_path(&item, "path", errors);
        }
        mode(&item, "mode", errors);
    }
}

fn downward(source: &Field<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", errors);
    for file in source.items("items") {
        if file.str("path").is_empty() {
            errors.push(file.required("path", ""));
        } else {
            descending_path(&file, "path", errors);
        }
        match (file.opt("fieldRef"), file.opt("resourceFieldRef")) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &file.path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
            (Some(field), None) => field_ref(&field, &DOWNWARD_FIELDS, errors),
            (None, Some(resource)) => {
                if resource.str("containerName").is_empty() {
                    errors.push(resource.required("containerName", ""));
                }
                resource_field_ref(&resource, errors);
            }
            (None, None) => errors.push(FieldError::required(
                &file.path,
                "one of fieldRef and resourceFieldRef is required",
            )),
        }
        mode(&file, "mode", errors);
    }
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    const TOKEN_LIFETIME_S_MIN: i64 = 600;
    mode(source, "defaultMode", errors);
    for part in source.items("sources") {
        for name in ["secret", "configMap"] {
            if let Some(part) = part.opt(name) {
                part.not_empty("name", errors);
                files(&part, errors);
            }
        }
        if let Some(part) = part.opt("downwardAPI") {
            downward(&part, errors);
        }
        if let Some(token) = part.opt("serviceAccountToken") {
            let seconds = token.int("expirationSeconds").unwrap_or(3600);
            if seconds < TOKEN_LIFETIME_S_MIN {
                let why = "may not specify a duration less than 10 minutes";
                errors.push(token.invalid("expirationSeconds", why));
            }
            token.not_empty("path", errors);
        }
    }
}
