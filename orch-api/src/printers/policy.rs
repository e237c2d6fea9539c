//! The tables of policies, classes and registrations.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, UNSET, age_cell, int, name, number, or_none, str_at, text, wide};
use crate::{kinds::Field, strategy::Column};

const CREATED_AT: Column = text("Created At", "When it was created.");

pub(crate) const CREATED: [Column; 2] = [NAME, CREATED_AT];

pub(crate) fn created(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), object["metadata"]["creationTimestamp"].clone()]
}

pub(crate) const BINDINGS: [Column; 6] = [
    NAME,
    text("Role", "What is granted."),
    AGE,
    wide("Users", "Users that it is granted to."),
    wide("Groups", "Groups that it is granted to."),
    wide("ServiceAccounts", "Service accounts that it is granted to."),
];

pub(crate) fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let binding = Field::root(object);
    let subjects = |kind: &str| {
        let found: Vec<String> = binding
            .items("subjects")
            .filter(|subject| subject.str("kind") == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", subject.str("namespace"), subject.str("name")),
                _ => subject.str("name").to_owned(),
            })
            .collect();
        Value::from(found.join(", "))
    };
    let role = binding.get("roleRef");
    vec![
        name(object),
        format!("{}/{}", role.str("kind"), role.str("name")).into(),
        age_cell(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(crate) const CERTIFICATE_REQUESTS: [Column; 6] = [
    NAME,
    AGE,
    text("SignerName", "Who shall sign."),
    text("Requestor", "Who asks."),
    text("RequestedDuration", "How long the certificate shall be valid."),
    text("Condition", "How far the request came."),
];

pub(crate) fn certificate_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (Field::root(&object["spec"]), Field::root(&object["status"]));
    let has = |kind: &str| status.items("conditions").any(|c| c.str("type") == kind);
    let mut state = String::from(match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    });
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.str("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let wanted = spec.int("expirationSeconds");
    let duration = wanted.map_or(NONE.to_owned(), super::human_duration);
    vec![
        name(object),
        age_cell(object, now),
        or_none(spec.str("signerName")),
        spec.str("username").into(),
        duration.into(),
        state.into(),
    ]
}

pub(crate) const DISRUPTION_BUDGETS: [Column; 5] = [
    NAME,
    text("Min Available", "How many pods must stay."),
    text("Max Unavailable", "How many pods may go."),
    number("Allowed Disruptions", "How many may go now."),
    AGE,
];

/// A number or percentage as text, `N/A` if there is none.
fn number_or_percent(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

pub(crate) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        number_or_percent(&object["spec"]["minAvailable"]),
        number_or_percent(&object["spec"]["maxUnavailable"]),
        int(object, "/status/disruptionsAllowed").into(),
        age_cell(object, now),
    ]
}

pub(crate) const API_SERVICES: [Column; 4] = [
    NAME,
    text("Service", "Who serves the group version."),
    text("Available", "Whether it can be used."),
    AGE,
];

pub(crate) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (Field::root(&object["spec"]), Field::root(&object["status"]));
    let service = match spec.opt("service") {
        Some(service) => format!("{}/{}", service.str("namespace"), service.str("name")),
        None => "Local".into(),
    };
    let available = status.items("conditions").find(|c| c.str("type") == "Available");
    let available = match available {
        Some(condition) if condition.str("status") == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", condition.str("status"), condition.str("reason")),
        None => "Unknown".into(),
    };
    vec![name(object), service.into(), available.into(), age_cell(object, now)]
}

pub(crate) const RUNTIME_CLASSES: [Column; 3] =
    [NAME, text("Handler", "Which of the node's runtimes is meant."), AGE];

pub(crate) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object["handler"].clone(), age_cell(object, now)]
}

pub(crate) const PRIORITY_CLASSES: [Column; 5] = [
    NAME,
    number("Value", "The priority."),
    text("Global-Default", "Whether pods without a class get it."),
    AGE,
    text("PreemptionPolicy", "Whether its pods push others out."),
];

pub(crate) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let default = object["globalDefault"].as_bool().unwrap_or_default();
    vec![
        name(object),
        int(object, "/value").into(),
        default.into(),
        age_cell(object, now),
        object["preemptionPolicy"].clone(),
    ]
}

pub(crate) const QUOTAS: [Column; 4] = [
    NAME,
    text("Request", "What is used of what may be requested."),
    text("Limit", "What is used of what limits may add up to."),
    AGE,
];

pub(crate) fn quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = Field::root(&object["status"]);
    let shown = |limits: bool| {
        let parts: Vec<String> = status
            .entries("hard")
            .filter(|(name, _)| name.starts_with("limits.") == limits)
            .map(|(name, hard)| {
                let used = status.raw("used").get(name).and_then(Value::as_str).unwrap_or("0");
                format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
            })
            .collect();
        Value::from(parts.join(", "))
    };
    vec![name(object), shown(false), shown(true), age_cell(object, now)]
}

pub(crate) const AUTOSCALERS: [Column; 7] = [
    NAME,
    text("Reference", "What is scaled."),
    text("Targets", "Measured and wanted values."),
    text("MinPods", "Least pods."),
    text("MaxPods", "Most pods."),
    text("Replicas", "Pods as last counted."),
    AGE,
];

pub(crate) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let target = spec.get("scaleTargetRef");
    let least = spec.int("minReplicas").map_or(UNSET.to_owned(), |n| n.to_string());
    vec![
        name(object),
        format!("{}/{}", target.str("kind"), target.str("name")).into(),
        targets(object).into(),
        least.into(),
        spec.int("maxReplicas").unwrap_or_default().into(),
        int(object, "/status/currentReplicas").into(),
        age_cell(object, now),
    ]
}

fn targets(object: &Value) -> String {
    const SHOWN_MAX: usize = 2;
    let (spec, status) = (Field::root(&object["spec"]), Field::root(&object["status"]));
    let currents: Vec<Field<'_>> = status.items("currentMetrics").collect();
    let mut shown: Vec<String> = Vec::new();
    for (i, metric) in spec.items("metrics").enumerate() {
        let kind = metric.str("type");
        let field = match kind {
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            "External" => "external",
            _ => {
                shown.push("<unknown type>".into());
                continue;
            }
        };
        let wanted = metric.get(field).get("target");
        let current = currents.get(i).map(|current| current.get(field).get("current"));
        let read = |field: &Field<'_>| {
            if let Some(percent) = field.int("averageUtilization") {
                return Some(format!("{percent}%"));
            }
            ["averageValue", "value"]
                .iter()
                .map(|n| field.str(n))
                .find(|v| !v.is_empty())
                .map(str::to_owned)
        };
        let current = current.and_then(|c| read(&c)).unwrap_or_else(|| "<unknown>".into());
        let wanted_text = read(&wanted).unwrap_or_else(|| "<auto>".into());
        let average = if field == "external" || field == "object" {
            wanted.has("averageValue")
        } else {
            false
        };
        let pair = format!("{current}/{wanted_text}{}", if average { " (avg)" } else { "" });
        shown.push(match kind {
            "Resource" | "ContainerResource" => {
                format!("{}: {pair}", metric.get(field).str("name"))
            }
            _ => pair,
        });
    }
    let more = shown.len().saturating_sub(SHOWN_MAX);
    if shown.is_empty() {
        return NONE.to_owned();
    }
    shown.truncate(SHOWN_MAX);
    let text = shown.join(", ");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

pub(crate) const FLOW_SCHEMAS: [Column; 6] = [
    NAME,
    text("PriorityLevel", "Where matching requests go."),
    number("MatchingPrecedence", "Lower ones are asked first."),
    text("DistinguisherMethod", "What makes a flow of its own."),
    AGE,
    text("MissingPL", "Whether the priority level does not exist."),
];

pub(crate) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = Field::root(&object["status"]);
    let dangling = status.items("conditions").find(|c| c.str("type") == "Dangling");
    vec![
        name(object),
        str_at(object, "/spec/priorityLevelConfiguration/name").into(),
        int(object, "/spec/matchingPrecedence").into(),
        or_none(str_at(object, "/spec/distinguisherMethod/type")),
        age_cell(object, now),
        dangling.map_or("?".into(), |c| c.str("status").into()),
    ]
}

pub(crate) const PRIORITY_LEVELS: [Column; 7] = [
    NAME,
    text("Type", "Whether it is limited."),
    text("NominalConcurrencyShares", "Its share of the server's work."),
    text("Queues", "How many queues it has."),
    text("HandSize", "Among how many queues a flow chooses."),
    text("QueueLengthLimit", "How long a queue gets."),
    AGE,
];

pub(crate) fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let number = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_i64);
        Value::from(value.map_or(NONE.to_owned(), |value| value.to_string()))
    };
    vec![
        name(object),
        str_at(object, "/spec/type").into(),
        number("/spec/limited/nominalConcurrencyShares"),
        number("/spec/limited/limitResponse/queuing/queues"),
        number("/spec/limited/limitResponse/queuing/handSize"),
        number("/spec/limited/limitResponse/queuing/queueLengthLimit"),
        age_cell(object, now),
    ]
}

pub(crate) const WEBHOOKS: [Column; 3] = [NAME, number("Webhooks", "How many there are."), AGE];

pub(crate) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), Field::root(object).len("webhooks").into(), age_cell(object, now)]
}

pub(crate) const ADMISSION_POLICIES: [Column; 4] = [
    NAME,
    number("Validations", "How many expressions it has."),
    text("ParamKind", "What kind its parameters are of."),
    AGE,
];

pub(crate) fn admission_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let kind = spec.opt("paramKind").map_or(UNSET.to_owned(), |kind| {
        format!("{}/{}", kind.str("apiVersion"), kind.str("kind"))
    });
    vec![name(object), spec.len("validations").into(), kind.into(), age_cell(object, now)]
}

pub(crate) const ADMISSION_BINDINGS: [Column; 4] = [
    NAME,
    text("PolicyName", "The policy that is put in force."),
    text("ParamRef", "Where its parameters are."),
    AGE,
];

pub(crate) fn admission_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = Field::root(&object["spec"]);
    let parameters = spec.opt("paramRef").map_or(UNSET.to_owned(), |reference| {
        match (reference.str("namespace"), reference.str("name")) {
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    });
    vec![name(object), spec.str("policyName").into(), parameters.into(), age_cell(object, now)]
}
