//! CronJobs.
//!
//! Source: `pkg/apis/batch/validation`, `ValidateCronJobCreate`.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, child, default_to, spec_of},
    job, metadata, pod_spec,
};
use crate::{
    printers,
    strategy::{Column, Strategy},
};

/// Jobs' names append eleven characters to this one's.
const NAME_MAX: usize = 52;

/// The strategy of `cronjobs`.
#[derive(Debug)]
pub(crate) struct CronJob;

impl Strategy for CronJob {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            default_to(spec, "concurrencyPolicy", "Allow");
            default_to(spec, "suspend", false);
            default_to(spec, "successfulJobsHistoryLimit", 3);
            default_to(spec, "failedJobsHistoryLimit", 1);
            if let Some(template) = child(spec, "jobTemplate") {
                child(template, "metadata");
                if let Some(job) = child(template, "spec") {
                    pod_spec::template_defaults(job);
                }
            }
        }
        if let Some(fields) = object.as_object_mut() {
            child(fields, "status");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if spec.str("schedule").is_empty() {
            errors.push(spec.required("schedule", ""));
        } else if let Err(why) = schedule(spec.str("schedule")) {
            errors.push(spec.invalid("schedule", why));
        }
        let numbers =
            ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
        metadata::non_negative_all(&spec, &numbers, &mut errors);
        let policies = ["Allow", "Forbid", "Replace"];
        spec.one_of("concurrencyPolicy", &policies, false, &mut errors);
        if spec.has("timeZone") && spec.str("timeZone").is_empty() {
            errors.push(spec.invalid("timeZone", "timeZone must be nil or non-empty string"));
        } else if let Some(zone) = spec.raw("timeZone").as_str()
            && (zone.eq_ignore_ascii_case("local") || jiff::tz::TimeZone::get(zone).is_err())
        {
            errors.push(spec.invalid("timeZone", format!("unknown time zone {zone}")));
        }
        let job = spec.get("jobTemplate").get("spec");
        job::validate_spec(&job, &mut errors);
        if job.bool("manualSelector") {
            let path = job.at("manualSelector");
            errors.push(FieldError::not_supported(path, true, &["nil", "false"]));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if name.len() > NAME_MAX {
            let why = format!("must be no more than {NAME_MAX} bytes");
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &printers::batch::CRON_JOBS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::batch::cron_job(object, now)
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Checks a schedule in cron's five fields, or one of its names.
fn schedule(text: &str) -> Result<(), String> {
    let text = text
        .strip_prefix("TZ=")
        .or_else(|| text.strip_prefix("CRON_TZ="))
        .map_or(text, |rest| rest.split_once(' ').map_or("", |(_, rest)| rest))
        .trim();
    if let Some(name) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every =
            name.strip_prefix("every ").is_some_and(|d| d.parse::<jiff::SignedDuration>().is_ok());
        if known.contains(&name) || every {
            return Ok(());
        }
        return Err(format!("unrecognized descriptor: @{name}"));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        let found = fields.len();
        return Err(format!("expected exactly 5 fields, found {found}: [{}]", fields.join(" ")));
    }
    let none: &[&str] = &[];
    for (field, (low, high, names)) in fields.iter().zip([
        (0, 59, none),
        (0, 23, none),
        (1, 31, none),
        (1, 12, &MONTHS[..]),
        (0, 6, &DAYS[..]),
    ]) {
        for part in field.split(',') {
            range(part, low, high, names)?;
        }
    }
    Ok(())
}

fn range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        match named {
            Some(at) => Ok(low + u32::try_from(at).unwrap_or_default()),
            None => text.parse::<u32>().map_err(|_| {
                format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
            }),
        }
    };
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(number(step)?)),
        None => (part, None),
    };
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if span == "*" || span == "?" {
        return Ok(());
    }
    let (start, end) = match span.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(span)?, number(span)?),
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_crons() {
        let check = |text: &str, wanted: &str| {
            assert_eq!(schedule(text).err().unwrap_or_default(), wanted, "{text}");
        };
        check("*/5 0-6,22 1 jan-mar MON", "");
        check("@hourly", "");
        check("@every 1h30m", "");
        check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        check("60 * * * *", "end of range (60) above maximum (59): 60");
        check(
            "* * * * 1-x",
            "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
        );
        check("@sometimes", "unrecognized descriptor: @sometimes");
    }
}
