//! The tables of what keeps pods running.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, age_cell, column, containers_and_images, int, labels, name, number, or_none,
    selector, text, wide,
};
use crate::strategy::Column;

const CONTAINERS: Column = wide("Containers", "Names of the template's containers.");
const IMAGES: Column = wide("Images", "Images of the template's containers.");
const SELECTOR: Column = wide("Selector", "Which pods belong to it.");

pub(crate) const DEPLOYMENTS: [Column; 8] = [
    NAME,
    text("Ready", "Ready pods and wanted pods."),
    text("Up-to-date", "Pods of the newest template."),
    text("Available", "Pods that have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const REPLICA_SETS: [Column; 8] = [
    NAME,
    number("Desired", "Wanted pods."),
    number("Current", "Existing pods."),
    number("Ready", "Ready pods."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const REPLICATION_CONTROLLERS: [Column; 8] = REPLICA_SETS;

pub(crate) const DAEMON_SETS: [Column; 11] = [
    NAME,
    number("Desired", "Nodes that should run the pod."),
    number("Current", "Nodes that run it."),
    number("Ready", "Nodes where it is ready."),
    number("Up-to-date", "Nodes that run the newest template."),
    number("Available", "Nodes where it has been ready for long enough."),
    text("Node Selector", "Which nodes should run the pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const STATEFUL_SETS: [Column; 5] =
    [NAME, text("Ready", "Ready pods and wanted pods."), AGE, CONTAINERS, IMAGES];

pub(crate) const TEMPLATES: [Column; 4] = [
    NAME,
    column("Containers", "string", "Names of the template's containers.", 0),
    column("Images", "string", "Images of the template's containers.", 0),
    column("Pod Labels", "string", "Labels of the pods.", 0),
];

fn with_template(mut cells: Vec<Value>, object: &Value) -> Vec<Value> {
    let spec = object.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    cells.extend(containers_and_images(spec));
    cells
}

fn selected(object: &Value) -> Value {
    or_none(&selector(&object["spec"]["selector"]))
}

pub(crate) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = int(object, "/status/readyReplicas");
    let cells = vec![
        name(object),
        format!("{ready}/{}", int(object, "/spec/replicas")).into(),
        int(object, "/status/updatedReplicas").into(),
        int(object, "/status/availableReplicas").into(),
        age_cell(object, now),
    ];
    let mut cells = with_template(cells, object);
    cells.push(selected(object));
    cells
}

pub(crate) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let cells = vec![
        name(object),
        int(object, "/spec/replicas").into(),
        int(object, "/status/replicas").into(),
        int(object, "/status/readyReplicas").into(),
        age_cell(object, now),
    ];
    let mut cells = with_template(cells, object);
    let chosen = &object["spec"]["selector"];
    // A ReplicationController's selector is a plain map.
    let plain = object["kind"] == "ReplicationController";
    cells.push(if plain { labels(chosen).into() } else { selected(object) });
    cells
}

pub(crate) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![name(object)];
    for count in [
        "/status/desiredNumberScheduled",
        "/status/currentNumberScheduled",
        "/status/numberReady",
        "/status/updatedNumberScheduled",
        "/status/numberAvailable",
    ] {
        cells.push(int(object, count).into());
    }
    let nodes = object.pointer("/spec/template/spec/nodeSelector").unwrap_or(&Value::Null);
    cells.push(labels(nodes).into());
    cells.push(age_cell(object, now));
    let mut cells = with_template(cells, object);
    cells.push(selected(object));
    cells
}

pub(crate) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = int(object, "/status/readyReplicas");
    let cells = vec![
        name(object),
        format!("{ready}/{}", int(object, "/spec/replicas")).into(),
        age_cell(object, now),
    ];
    with_template(cells, object)
}

pub(crate) fn template(object: &Value) -> Vec<Value> {
    let spec = object.pointer("/template/spec").unwrap_or(&Value::Null);
    let mut cells = vec![name(object)];
    cells.extend(containers_and_images(spec));
    let pod_labels = object.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    cells.push(labels(pod_labels).into());
    cells
}
