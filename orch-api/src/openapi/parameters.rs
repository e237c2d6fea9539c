//! The parameters of operations.

use serde_json::{Value, json};

use super::schemas::Dialect;

/// Name, type, meaning.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter =
    ("dryRun", "string", "All: do everything but persist. Other values are refused.");
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "Who makes the change, as managed fields name it; at most 128 bytes.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What becomes of unknown and duplicate fields: Ignore drops them, Warn also warns (the \
     default), Strict refuses the request.",
);
const LABEL_SELECTOR: Parameter =
    ("labelSelector", "string", "Only objects whose labels match; everything by default.");
const FIELD_SELECTOR: Parameter =
    ("fieldSelector", "string", "Only objects whose fields match; everything by default.");
const RESOURCE_VERSION: Parameter =
    ("resourceVersion", "string", "Which resource versions may answer the request.");
const RESOURCE_VERSION_MATCH: Parameter =
    ("resourceVersionMatch", "string", "How resourceVersion is understood: Exact or NotOlderThan.");
const LIMIT: Parameter =
    ("limit", "integer", "At most that many objects; the answer says where to continue.");
const CONTINUE: Parameter = ("continue", "string", "Where to continue a list that had a limit.");
const TIMEOUT: Parameter =
    ("timeoutSeconds", "integer", "How long the call may take, whatever happens in it.");
const WATCH: Parameter =
    ("watch", "boolean", "Answer with changes, as they happen, instead of a list.");
const BOOKMARKS: Parameter =
    ("allowWatchBookmarks", "boolean", "Let the watch tell the resource version now and then.");
const INITIAL_EVENTS: Parameter = (
    "sendInitialEvents",
    "boolean",
    "Let the watch begin with what there is, followed by a bookmark.",
);
const FORCE: Parameter =
    ("force", "boolean", "An apply takes over the fields that other managers own.");
const GRACE_PERIOD: Parameter = (
    "gracePeriodSeconds",
    "integer",
    "Seconds until the object goes; zero means at once, absent means what its kind says.",
);
const ORPHAN: Parameter = ("orphanDependents", "boolean", "Replaced by propagationPolicy.");
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "What becomes of dependents: Orphan, Background or Foreground.",
);
const PRETTY: Parameter = ("pretty", "string", "Print the answer in lines, for people.");
const NAME: &str = "name of the object";
const NAMESPACE: &str = "namespace of the object";

/// The query parameters of an action.
pub(super) fn of_action(action: &str) -> &'static [Parameter] {
    match action {
        "list" => &[
            BOOKMARKS,
            CONTINUE,
            FIELD_SELECTOR,
            LABEL_SELECTOR,
            LIMIT,
            RESOURCE_VERSION,
            RESOURCE_VERSION_MATCH,
            INITIAL_EVENTS,
            TIMEOUT,
            WATCH,
        ],
        "post" | "put" => &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION],
        "patch" => &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE],
        "delete" => &[DRY_RUN, GRACE_PERIOD, ORPHAN, PROPAGATION],
        "deletecollection" => &[
            CONTINUE,
            DRY_RUN,
            FIELD_SELECTOR,
            GRACE_PERIOD,
            LABEL_SELECTOR,
            LIMIT,
            ORPHAN,
            PROPAGATION,
            RESOURCE_VERSION,
            RESOURCE_VERSION_MATCH,
            TIMEOUT,
        ],
        _ => &[],
    }
}

/// The parameters of a path.
pub(super) fn of_path(dialect: Dialect, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for (name, meaning) in [("name", NAME), ("namespace", NAMESPACE), ("path", "path below it")] {
        if path.contains(&format!("{{{name}}}")) {
            let mut parameter = written(dialect, "path", &(name, "string", meaning));
            parameter["required"] = true.into();
            all.push(parameter);
        }
    }
    all.push(written(dialect, "query", &PRETTY));
    all
}

/// A parameter as the dialect writes it.
pub(super) fn written(dialect: Dialect, place: &str, parameter: &Parameter) -> Value {
    let (name, ty, meaning) = parameter;
    let common = json!({"name": name, "in": place, "description": meaning});
    let mut written = common;
    match dialect {
        Dialect::V2 => {
            written["type"] = (*ty).into();
            written["uniqueItems"] = true.into();
        }
        Dialect::V3 => written["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    written
}
