//! The tables of jobs and of revisions.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, age_cell, containers_and_images, human_duration, int, name, number, or_none,
    selector, since, str_at, text, wide,
};
use crate::{kinds::Field, strategy::Column};

const CONTAINERS: Column = wide("Containers", "Names of the template's containers.");
const IMAGES: Column = wide("Images", "Images of the template's containers.");
const SELECTOR: Column = wide("Selector", "Which pods belong to it.");

pub(crate) const JOBS: [Column; 8] = [
    NAME,
    text("Status", "Whether it runs, is complete or failed."),
    text("Completions", "Successful pods and wanted ones."),
    text("Duration", "How long it took, or takes."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const CRON_JOBS: [Column; 10] = [
    NAME,
    text("Schedule", "When jobs start, in cron's form."),
    text("Timezone", "Where the schedule's times hold."),
    text("Suspend", "Whether no jobs start for now."),
    number("Active", "Running jobs."),
    text("Last Schedule", "When the last job started."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) const REVISIONS: [Column; 4] = [
    NAME,
    text("Controller", "Whose revision it is."),
    number("Revision", "Which one it is."),
    AGE,
];

pub(crate) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = int(object, "/status/succeeded");
    let completions = object.pointer("/spec/completions").and_then(Value::as_i64);
    let parallelism = int(object, "/spec/parallelism");
    let completions = match completions {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let mut cells = vec![
        name(object),
        job_status(object).into(),
        completions.into(),
        job_duration(object, now).into(),
        age_cell(object, now),
    ];
    let spec = object.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    cells.extend(containers_and_images(spec));
    cells.push(selector(&object["spec"]["selector"]).into());
    cells
}

fn job_status(object: &Value) -> &'static str {
    let status = Field::root(&object["status"]);
    let has = |kind: &str| {
        status.items("conditions").any(|c| c.str("type") == kind && c.str("status") == "True")
    };
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if deleted => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job_duration(object: &Value, now: Timestamp) -> String {
    let time = |name: &str| object["status"][name].as_str()?.parse::<Timestamp>().ok();
    match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(start), None) => since(start, now),
        (Some(start), Some(end)) => human_duration(end.as_second() - start.as_second()),
    }
}

pub(crate) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let last = str_at(object, "/status/lastScheduleTime").parse::<Timestamp>().ok();
    let suspended = object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    let mut cells = vec![
        name(object),
        str_at(object, "/spec/schedule").into(),
        or_none(str_at(object, "/spec/timeZone")),
        if suspended { "True" } else { "False" }.into(),
        Field::root(&object["status"]).len("active").into(),
        last.map_or(NONE.to_owned(), |last| since(last, now)).into(),
        age_cell(object, now),
    ];
    let job = object.pointer("/spec/jobTemplate/spec").unwrap_or(&Value::Null);
    cells.extend(containers_and_images(job.pointer("/template/spec").unwrap_or(&Value::Null)));
    cells.push(selector(&job["selector"]).into());
    cells
}

pub(crate) fn revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let meta = Field::root(&object["metadata"]);
    let owner = meta.items("ownerReferences").find(|owner| owner.bool("controller"));
    let owner = owner.map_or(NONE.to_owned(), |owner| {
        let group = owner.str("apiVersion").split_once('/').map_or("", |(group, _)| group);
        let kind = owner.str("kind").to_lowercase();
        let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
        format!("{kind}/{}", owner.str("name"))
    });
    vec![name(object), owner.into(), int(object, "/revision").into(), age_cell(object, now)]
}
