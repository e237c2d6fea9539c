//! CronJobs.
//!
//! Source: `pkg/apis/batch/validation`, `ValidateCronJobCreate`.

use orch_core::{
    cron::{self, Schedule},
    status::FieldError,
};
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
        validate(object, false)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        validate(new, has_zone(old["spec"]["schedule"].as_str().unwrap_or_default()))
    }

    fn columns(&self) -> &'static [Column] {
        &printers::batch::CRON_JOBS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::batch::cron_job(object, now)
    }
}

fn has_zone(schedule: &str) -> bool {
    schedule.contains("TZ")
}

fn validate_schedule(spec: &Field<'_>, zone_allowed: bool, errors: &mut Errors) {
    let schedule = spec.str("schedule");
    if schedule.is_empty() {
        errors.push(spec.required("schedule", ""));
        return;
    }
    if let Err(error) = schedule.parse::<Schedule>() {
        errors.push(spec.invalid("schedule", error.to_string()));
    }
    if has_zone(schedule) && !zone_allowed {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(spec.invalid("schedule", why));
    } else if has_zone(schedule) && spec.has("timeZone") {
        let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.push(spec.invalid("schedule", why));
    }
}

fn validate_zone(spec: &Field<'_>, errors: &mut Errors) {
    let Some(zone) = spec.raw("timeZone").as_str() else { return };
    if zone.is_empty() {
        errors.push(spec.invalid("timeZone", "timeZone must be nil or non-empty string"));
        return;
    }
    let strange = |part: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
        matches!(part, "" | "." | "..") || part.starts_with('-') || !part.chars().all(legal)
    };
    if zone.split('/').any(strange) {
        errors.push(spec.invalid("timeZone", format!("unknown time zone {zone}")));
    } else if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in \
                   https://www.iana.org/time-zones";
        errors.push(spec.invalid("timeZone", why));
    } else if let Err(error) = cron::load_zone(zone) {
        errors.push(spec.invalid("timeZone", error.to_string()));
    }
}

fn validate(object: &Value, zone_allowed: bool) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    validate_schedule(&spec, zone_allowed, &mut errors);
    let numbers =
        ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    metadata::non_negative_all(&spec, &numbers, &mut errors);
    let policies = ["Allow", "Forbid", "Replace"];
    spec.one_of("concurrencyPolicy", &policies, false, &mut errors);
    validate_zone(&spec, &mut errors);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_crons_without_a_zone() {
        let cron = |schedule: &str, zone: Option<&str>| {
            let mut job = json!({"metadata": {"name": "c"}, "spec": {
                "schedule": schedule, "concurrencyPolicy": "Allow",
                "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "c", "image": "i",
                        "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "File"}],
                    "dnsPolicy": "ClusterFirst"}}}},
            }});
            if let Some(zone) = zone {
                job["spec"]["timeZone"] = json!(zone);
            }
            job
        };
        let wrong = |errors: Errors| -> Vec<String> {
            let ours = errors.into_iter().map(|error| error.to_string());
            ours.filter(|e| e.contains("schedule") || e.contains("timeZone")).collect()
        };
        let check = |schedule: &str, zone: Option<&str>, wanted: &str| {
            let found = wrong(CronJob.validate(&cron(schedule, zone)));
            assert_eq!(found.is_empty(), wanted.is_empty(), "{schedule}: {found:?}");
            assert!(found.iter().all(|error| error.contains(wanted)), "{schedule}: {found:?}");
        };
        check("*/5 0-6,22 1 jan-mar MON", None, "");
        check("@every 1h30m", Some("Europe/Berlin"), "");
        check("* * * *", None, "expected exactly 5 fields, found 4: [* * * *]");
        check("TZ=UTC 0 0 * * *", None, "cannot use TZ or CRON_TZ in schedule, use timeZone");
        check("0 0 * * *", Some("local"), "timeZone must be an explicit time zone");
        check("0 0 * * *", Some("Moon/Base"), "unknown time zone Moon/Base");
        // What has a zone in its schedule from older days may keep it, but no second one.
        let old = cron("TZ=UTC 0 0 * * *", None);
        let found = |new: &Value| wrong(CronJob.validate_update(new, &old));
        assert_eq!(found(&old), [""; 0]);
        let both = found(&cron("TZ=UTC 0 1 * * *", Some("UTC")));
        assert!(
            both.iter().any(|e| e.contains("cannot use both timeZone field and TZ")),
            "{both:?}"
        );
    }
}
