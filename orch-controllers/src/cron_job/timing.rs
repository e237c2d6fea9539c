//! When a CronJob is due, and what it has missed.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/cronjob/utils.go`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use orch_core::cron::{CronError, Schedule, load_zone};

/// Clocks of machines differ a little: to be due on all of them, a start is looked at later.
const SKEW: SignedDuration = SignedDuration::from_millis(100);

/// From so many missed starts on, something is wrong with a clock or with the controller.
const MISSED_MAX: i64 = 100;

/// How many starts were missed, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    None,
    Few,
    Many,
}

/// The schedule can be read, but its times do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct NeverDue;

/// The last start that should have been.
#[derive(Debug, PartialEq)]
pub(super) struct Recent {
    /// From when on starts are looked for.
    earliest: Timestamp,
    pub(super) due: Option<Timestamp>,
    pub(super) missed: Missed,
}

/// Whether the schedule names a zone itself, as it could before there was a field for it.
pub(super) fn has_own_zone(spec: &CronJobSpec) -> bool {
    spec.schedule.contains("TZ")
}

pub(super) fn schedule(spec: &CronJobSpec) -> Result<Schedule, CronError> {
    match spec.time_zone.as_deref() {
        Some(zone) if !has_own_zone(spec) && load_zone(zone).is_ok() => {
            format!("TZ={zone} {}", spec.schedule).parse()
        }
        _ => spec.schedule.parse(),
    }
}

/// The last start until now, after the last one that was made.
pub(super) fn most_recent(
    cron: &CronJob,
    spec: &CronJobSpec,
    now: Timestamp,
    schedule: &Schedule,
    within_deadline: bool,
) -> Result<Recent, NeverDue> {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let last = last.or(cron.metadata.creation_timestamp.as_ref());
    let mut earliest = last.map_or(now, |time| time.0);
    if let Some(deadline_s) = spec.starting_deadline_seconds.filter(|_| within_deadline) {
        let deadline = now.checked_sub(SignedDuration::from_secs(deadline_s));
        earliest = earliest.max(deadline.unwrap_or(Timestamp::MIN));
    }
    let first = schedule.next(earliest).ok_or(NeverDue)?;
    if now < first {
        return Ok(Recent { earliest, due: None, missed: Missed::None });
    }
    let second = schedule.next(first).ok_or(NeverDue)?;
    if now < second {
        return Ok(Recent { earliest, due: Some(first), missed: Missed::None });
    }
    let between_s = second.duration_since(first).as_secs();
    if between_s < 1 {
        return Err(NeverDue);
    }
    // By the distance of the first two, which is close enough for schedules that are not even. One
    // step back lets those start at the right time that count from their last start.
    let count = now.duration_since(first).as_secs() / between_s + 1;
    let skipped = SignedDuration::from_secs((count - 2).saturating_mul(between_s));
    let mut due = None;
    let mut next = schedule.next(first.checked_add(skipped).unwrap_or(first));
    while let Some(time) = next.filter(|time| *time <= now) {
        due = Some(time);
        next = schedule.next(time);
    }
    let missed = if count > MISSED_MAX { Missed::Many } else { Missed::Few };
    Ok(Recent { earliest, due, missed })
}

/// How long until the next start; `None` if there is none.
pub(super) fn until_next(
    cron: &CronJob,
    spec: &CronJobSpec,
    now: Timestamp,
    schedule: &Schedule,
) -> Option<Duration> {
    let from = match most_recent(cron, spec, now, schedule, false) {
        Ok(Recent { due: Some(due), .. }) => due,
        Ok(Recent { earliest, missed: Missed::None, .. }) => earliest,
        _ => now,
    };
    let next = schedule.next(from)?.checked_add(SKEW).ok()?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron(schedule: &str, more: &Value) -> CronJob {
        let mut value = json!({
            "metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"},
            "spec": {"schedule": schedule, "jobTemplate": {}},
        });
        json_patch::merge(&mut value, more);
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(cron: &CronJob, now: &str, due: Option<&str>, missed: Missed, next_s: u64) {
        let spec = &cron.spec;
        let (now, schedule) = (now.parse().unwrap(), schedule(spec).unwrap());
        let recent = most_recent(cron, spec, now, &schedule, true).unwrap();
        assert_eq!(recent.due, due.map(|due| due.parse().unwrap()));
        assert_eq!(recent.missed, missed);
        let next = until_next(cron, spec, now, &schedule).unwrap();
        assert_eq!(next, Duration::from_millis(next_s * 1000 + 100));
    }

    #[test]
    fn the_last_start_until_now_is_due() {
        let hourly = cron("0 * * * *", &json!({}));
        check(&hourly, "2026-01-01T10:30:00Z", None, Missed::None, 1800);
        check(&hourly, "2026-01-01T11:00:00Z", Some("2026-01-01T11:00:00Z"), Missed::None, 3600);
        check(&hourly, "2026-01-01T11:30:00Z", Some("2026-01-01T11:00:00Z"), Missed::None, 1800);
        check(&hourly, "2026-01-01T15:30:00Z", Some("2026-01-01T15:00:00Z"), Missed::Few, 1800);
        let week = "2026-01-08T15:30:00Z";
        check(&hourly, week, Some("2026-01-08T15:00:00Z"), Missed::Many, 1800);
        // A deadline limits what counts as missed.
        let strict = cron("0 * * * *", &json!({"spec": {"startingDeadlineSeconds": 600}}));
        check(&strict, week, None, Missed::None, 1800);
        let lenient = cron("0 * * * *", &json!({"spec": {"startingDeadlineSeconds": 5400}}));
        check(&lenient, week, Some("2026-01-08T15:00:00Z"), Missed::None, 1800);
    }

    #[test]
    fn what_counts_from_the_last_start_keeps_its_rhythm() {
        let last = json!({"status": {"lastScheduleTime": "2026-01-01T10:00:07Z"}});
        let every = cron("@every 5m", &last);
        check(&every, "2026-01-01T10:22:00Z", Some("2026-01-01T10:20:07Z"), Missed::Few, 187);
    }

    #[test]
    fn a_zone_moves_the_start() {
        let berlin = cron("0 9 * * *", &json!({"spec": {"timeZone": "Europe/Berlin"}}));
        check(&berlin, "2026-01-02T08:30:00Z", Some("2026-01-02T08:00:00Z"), Missed::None, 84600);
    }

    #[test]
    fn a_day_that_does_not_exist_is_never_due() {
        let never = cron("59 23 31 2 *", &json!({}));
        let (spec, now) = (&never.spec, "2026-03-01T00:00:00Z".parse().unwrap());
        let schedule = schedule(spec).unwrap();
        assert_eq!(most_recent(&never, spec, now, &schedule, true), Err(NeverDue));
        assert_eq!(until_next(&never, spec, now, &schedule), None);
    }
}
