//! The tables of volumes, claims and what provides them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, UNSET, age_cell, name, or, str_at, text, wide};
use crate::{kinds::Field, strategy::Column};

const MODES: Column = text("Access Modes", "How it may be mounted.");
const CLASS: Column = text("StorageClass", "Which class it is of.");
const ATTRIBUTES: Column = text("VolumeAttributesClass", "Which class its attributes are of.");
const MODE: Column = wide("VolumeMode", "A file system or a raw block device.");

pub(crate) const CLAIMS: [Column; 9] = [
    NAME,
    text("Status", "Whether it is bound."),
    text("Volume", "What it is bound to."),
    text("Capacity", "How much there is."),
    MODES,
    CLASS,
    ATTRIBUTES,
    AGE,
    MODE,
];

pub(crate) const VOLUMES: [Column; 11] = [
    NAME,
    text("Capacity", "How much there is."),
    MODES,
    text("Reclaim Policy", "What happens to it when its claim goes."),
    text("Status", "Whether it is bound."),
    text("Claim", "What it is bound to."),
    CLASS,
    ATTRIBUTES,
    text("Reason", "Why it is in that state."),
    AGE,
    MODE,
];

/// Access modes in kubectl's abbreviations, each once, in upstream's order.
fn modes(spec: &Field<'_>, list: &str) -> String {
    let has = |mode: &str| spec.strs(list).any(|m| m == mode);
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .iter()
    .filter(|(mode, _)| has(mode))
    .map(|(_, short)| *short)
    .collect::<Vec<_>>()
    .join(",")
}

fn class_of(object: &Value) -> Value {
    const OLD: &str = "volume.beta.kubernetes.io/storage-class";
    let annotation = object["metadata"]["annotations"][OLD].as_str();
    annotation.unwrap_or_else(|| str_at(object, "/spec/storageClassName")).into()
}

pub(crate) fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = Field::root(&object["status"]);
    let deleted = object["metadata"].get("deletionTimestamp").is_some_and(|t| !t.is_null());
    let volume = str_at(object, "/spec/volumeName");
    let (mut capacity, mut access) = (String::new(), String::new());
    if !volume.is_empty() {
        access = modes(&status, "accessModes");
        capacity = status.get("capacity").str("storage").to_owned();
    }
    vec![
        name(object),
        if deleted { "Terminating".into() } else { status.str("phase").into() },
        volume.into(),
        capacity.into(),
        access.into(),
        class_of(object),
        or(str_at(object, "/spec/volumeAttributesClassName"), UNSET),
        age_cell(object, now),
        or(str_at(object, "/spec/volumeMode"), UNSET),
    ]
}

pub(crate) fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let deleted = object["metadata"].get("deletionTimestamp").is_some_and(|t| !t.is_null());
    let claim = spec
        .opt("claimRef")
        .map_or(String::new(), |claim| format!("{}/{}", claim.str("namespace"), claim.str("name")));
    let phase = if deleted { "Terminating" } else { str_at(object, "/status/phase") };
    vec![
        name(object),
        spec.get("capacity").str("storage").into(),
        modes(&spec, "accessModes").into(),
        spec.str("persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class_of(object),
        or(spec.str("volumeAttributesClassName"), UNSET),
        str_at(object, "/status/reason").into(),
        age_cell(object, now),
        or(spec.str("volumeMode"), UNSET),
    ]
}

pub(crate) const CLASSES: [Column; 6] = [
    NAME,
    text("Provisioner", "Who makes the volumes."),
    text("ReclaimPolicy", "What happens to a volume when its claim goes."),
    text("VolumeBindingMode", "Whether volumes wait for a pod."),
    text("AllowVolumeExpansion", "Whether claims may grow."),
    AGE,
];

pub(crate) fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = &object["metadata"]["annotations"];
    let default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| annotations[*key] == "true");
    let mut shown = str_at(object, "/metadata/name").to_owned();
    if default {
        shown.push_str(" (default)");
    }
    vec![
        shown.into(),
        object["provisioner"].clone(),
        or(str_at(object, "/reclaimPolicy"), "Delete"),
        or(str_at(object, "/volumeBindingMode"), "Immediate"),
        object["allowVolumeExpansion"].as_bool().unwrap_or_default().into(),
        age_cell(object, now),
    ]
}

pub(crate) const DRIVERS: [Column; 8] = [
    NAME,
    text("AttachRequired", "Whether volumes are attached before they are mounted."),
    text("PodInfoOnMount", "Whether the driver is told about the pod."),
    text("StorageCapacity", "Whether the driver reports its capacity."),
    text("TokenRequests", "The audiences of tokens that the driver gets."),
    text("RequiresRepublish", "Whether mounts are renewed."),
    text("Modes", "The life cycles of its volumes."),
    AGE,
];

pub(crate) fn driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let tokens: Vec<&str> =
        spec.items("tokenRequests").map(|token| token.str("audience")).collect();
    let modes: Vec<&str> = spec.strs("volumeLifecycleModes").collect();
    vec![
        name(object),
        spec.bool("attachRequired").into(),
        spec.bool("podInfoOnMount").into(),
        spec.bool("storageCapacity").into(),
        or(&tokens.join(","), UNSET),
        spec.bool("requiresRepublish").into(),
        or(&modes.join(","), super::NONE),
        age_cell(object, now),
    ]
}

pub(crate) const DRIVER_NODES: [Column; 3] =
    [NAME, super::number("Drivers", "How many drivers the node has."), AGE];

pub(crate) fn driver_node(object: &Value, now: Timestamp) -> Vec<Value> {
    let drivers = Field::root(&object["spec"]).len("drivers");
    vec![name(object), drivers.into(), age_cell(object, now)]
}

pub(crate) const ATTACHMENTS: [Column; 6] = [
    NAME,
    text("Attacher", "Who attaches."),
    text("PV", "What is attached."),
    text("Node", "Where to."),
    text("Attached", "Whether it is."),
    AGE,
];

pub(crate) fn attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let attached = object.pointer("/status/attached").and_then(Value::as_bool);
    vec![
        name(object),
        str_at(object, "/spec/attacher").into(),
        str_at(object, "/spec/source/persistentVolumeName").into(),
        str_at(object, "/spec/nodeName").into(),
        attached.unwrap_or_default().into(),
        age_cell(object, now),
    ]
}
