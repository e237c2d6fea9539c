//! PersistentVolumes.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidatePersistentVolume`.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, child, child_opt, default_to, same, spec_of},
    persistent_volume_claim::access_modes,
    pod_spec::{named, node_selector, resources, volumes},
};
use crate::{
    names, printers,
    strategy::{Column, Strategy},
};

/// How a volume may be mounted.
pub(crate) const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// The strategy of `persistentvolumes`.
#[derive(Debug)]
pub(crate) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            super::pod_spec::volume_source_defaults(spec);
            if let Some(capacity) = child_opt(spec, "capacity") {
                resources::canonicalize(capacity);
            }
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
        let spec = Field::root(object).get("spec");
        if spec.len("accessModes") == 0 {
            errors.push(spec.required("accessModes", ""));
        }
        access_modes(&spec, &mut errors);
        capacity(&spec, &mut errors);
        node_affinity(&spec, &mut errors);
        source(&spec, &mut errors);
        let policies = ["Delete", "Recycle", "Retain"];
        spec.one_of("persistentVolumeReclaimPolicy", &policies, true, &mut errors);
        let path = spec.get("hostPath");
        if path.str("path") == "/" && spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
            let why = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(spec.forbidden("persistentVolumeReclaimPolicy", why));
        }
        if !spec.str("storageClassName").is_empty() {
            named(&spec, "storageClassName", names::dns_subdomain, &mut errors);
        }
        spec.one_of("volumeMode", &["Block", "Filesystem"], true, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        let (spec, before) = (Field::new(&new["spec"], "spec"), Field::root(&old["spec"]));
        if SOURCES.iter().any(|name| !same(spec.raw(name), before.raw(name))) {
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", why));
        }
        spec.immutable(before.value, "volumeMode", &mut errors);
        if before.has("nodeAffinity") {
            spec.immutable(before.value, "nodeAffinity", &mut errors);
        }
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let policy = |object: &Value| object["spec"]["persistentVolumeReclaimPolicy"].clone();
        if policy(new) == "Recycle" && old.is_none_or(|old| policy(old) != "Recycle") {
            return vec!["spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into()];
        }
        Vec::new()
    }

    fn columns(&self) -> &'static [Column] {
        &printers::storage::VOLUMES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::storage::volume(object, now)
    }
}

fn capacity(spec: &Field<'_>, errors: &mut Errors) {
    let path = spec.at("capacity");
    if spec.raw("capacity").as_object().is_none_or(|c| c.is_empty()) {
        errors.push(spec.required("capacity", ""));
        return;
    }
    if spec.raw("capacity").get("storage").is_none()
        || spec.raw("capacity").as_object().is_some_and(|c| c.len() > 1)
    {
        let value = spec.raw("capacity").clone();
        errors.push(FieldError::not_supported(path, value, &["storage"]));
    }
    for (name, value) in spec.entries("capacity") {
        let path = spec.at_key("capacity", name);
        resources::quantity(&path, name, value, errors);
        if resources::amount(value).is_some_and(|a| a.is_zero() || a.is_negative()) {
            errors.push(FieldError::invalid(path, value.clone(), "must be greater than zero"));
        }
    }
}

fn node_affinity(spec: &Field<'_>, errors: &mut Errors) {
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        match affinity.opt("required") {
            Some(required) => node_selector(&required, errors),
            None => {
                errors
                    .push(affinity.required("required", "must specify required node constraints"));
            }
        }
    } else if spec.has("local") {
        errors.push(FieldError::required(affinity.path, "Local volume requires node affinity"));
    }
}

fn source(spec: &Field<'_>, errors: &mut Errors) {
    let mut given = SOURCES.iter().filter(|name| spec.has(name));
    let Some(first) = given.next() else {
        errors.push(FieldError::required(&spec.path, "must specify a volume type"));
        return;
    };
    volumes::persistent_source(first, &spec.get(first), errors);
    for more in given {
        errors.push(spec.forbidden(more, "may not specify more than 1 volume type"));
    }
    if spec.has("csi") {
        spec.get("csi").not_empty("volumeHandle", errors);
    }
}
