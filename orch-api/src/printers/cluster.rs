//! The tables of namespaces, nodes and events.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, UNKNOWN, age_cell, column, name, or, since, str_at, text, wide};
use crate::{kinds::Field, strategy::Column};

pub(crate) const NAMESPACES: [Column; 3] =
    [NAME, text("Status", "Whether it is in use or being deleted."), AGE];

pub(crate) const NODES: [Column; 10] = [
    NAME,
    text("Status", "Whether the node is ready and takes pods."),
    text("Roles", "The roles that the node's labels give it."),
    AGE,
    text("Version", "Version of the node agent."),
    wide("Internal-IP", "Address in the cluster's network."),
    wide("External-IP", "Address reachable from outside."),
    wide("OS-Image", "Operating system."),
    wide("Kernel-Version", "Kernel."),
    wide("Container-Runtime", "What runs the containers, and its version."),
];

pub(crate) const EVENTS: [Column; 10] = [
    text("Last Seen", "When it was last seen."),
    text("Type", "Normal or Warning."),
    text("Reason", "What happened, in one word."),
    text("Object", "What it is about."),
    wide("Subobject", "Which part of the object it is about."),
    wide("Source", "Who reported it."),
    text("Message", "What happened."),
    wide("First Seen", "When it was first seen."),
    wide("Count", "How often it was seen."),
    Column { priority: 1, ..NAME },
];

pub(crate) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), str_at(object, "/status/phase").into(), age_cell(object, now)]
}

pub(crate) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| or(str_at(object, &format!("/status/nodeInfo/{field}")), UNKNOWN);
    vec![
        name(object),
        node_status(object).into(),
        node_roles(object).into(),
        age_cell(object, now),
        str_at(object, "/status/nodeInfo/kubeletVersion").into(),
        address(object, "InternalIP").into(),
        address(object, "ExternalIP").into(),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn node_status(object: &Value) -> String {
    let status = Field::root(&object["status"]);
    let ready = status.items("conditions").find(|c| c.str("type") == "Ready");
    let mut text = match ready {
        Some(condition) if condition.str("status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn node_roles(object: &Value) -> String {
    let labels = Field::root(&object["metadata"]);
    let mut roles = BTreeSet::new();
    for (key, value) in labels.entries("labels") {
        let value = value.as_str().unwrap_or_default();
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.insert(role);
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.insert(value);
        }
    }
    if roles.is_empty() {
        return NONE.to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    let status = Field::root(&object["status"]);
    status.items("addresses").find(|a| a.str("type") == kind).map_or(NONE, |a| a.str("address"))
}

pub(crate) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let event = Field::root(object);
    let either =
        |a: &str, b: &str| if event.has(a) { event.raw(a).clone() } else { event.raw(b).clone() };
    let time = |name: &str, old: &str| {
        let text = if event.str(name).is_empty() { event.str(old) } else { event.str(name) };
        text.parse::<Timestamp>().ok()
    };
    let happened = event.str("eventTime").parse::<Timestamp>().ok();
    let first = time("firstTimestamp", "deprecatedFirstTimestamp").or(happened);
    let series = event.get("series");
    let last = series.str("lastObservedTime").parse::<Timestamp>().ok();
    let last = last.or(time("lastTimestamp", "deprecatedLastTimestamp")).or(first);
    let ago = |when: Option<Timestamp>| when.map_or(UNKNOWN.to_owned(), |when| since(when, now));
    let about = either("involvedObject", "regarding");
    let about = Field::root(&about);
    let target = format!("{}/{}", about.str("kind").to_lowercase(), about.str("name"));
    let target =
        if about.str("name").is_empty() { about.str("kind").to_lowercase() } else { target };
    let count = event.int("count").or(event.int("deprecatedCount"));
    let count = series.int("count").or(count).filter(|n| *n > 0).unwrap_or(1);
    let message = either("message", "note");
    vec![
        ago(last).into(),
        event.str("type").into(),
        event.str("reason").into(),
        target.into(),
        about.str("fieldPath").into(),
        event_source(&event).into(),
        message.as_str().unwrap_or_default().trim().into(),
        ago(first).into(),
        count.into(),
        name(object),
    ]
}

fn event_source(event: &Field<'_>) -> String {
    let source =
        if event.has("source") { event.get("source") } else { event.get("deprecatedSource") };
    let component = match source.str("component") {
        "" if event.str("reportingController").is_empty() => event.str("reportingComponent"),
        "" => event.str("reportingController"),
        component => component,
    };
    let host = match source.str("host") {
        "" => event.str("reportingInstance"),
        host => host,
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(crate) const LEASES: [Column; 3] =
    [NAME, column("Holder", "string", "Who holds the lease.", 0), AGE];

pub(crate) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    let holder = str_at(object, "/spec/holderIdentity");
    vec![name(object), holder.into(), age_cell(object, now)]
}
