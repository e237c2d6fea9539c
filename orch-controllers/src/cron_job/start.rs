//! Starting what is due.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::batch::v1::Job,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use orch_core::{
    ClientError,
    cron::{Schedule, load_zone},
    event::reference_to,
    status::Reason,
};

use super::{
    Run,
    timing::{self, Missed},
};
use crate::{ReconcileError, ownership, pods::is_namespace_terminating};

/// The time for which a job was started.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// As Go's `RFC1123Z` has it, in UTC.
const MAIL_DATE: &str = "%a, %d %b %Y %H:%M:%S %z";

impl Run<'_> {
    pub(super) fn has_known_zone(&self) -> bool {
        let Some(zone) = self.spec.time_zone.as_deref() else { return true };
        let Err(error) = load_zone(zone) else { return true };
        self.warn("UnknownTimeZone", &format!("invalid timeZone: {zone:?}: {error}"));
        false
    }

    pub(super) async fn start_what_is_due(&mut self) -> Result<Option<Duration>, ReconcileError> {
        let now = self.context.now();
        let Some(schedule) = self.schedule() else { return Ok(None) };
        let wait = timing::until_next(&self.cron, &self.spec, now, &schedule);
        let due = match self.due(now, &schedule) {
            Ok(Some(due)) => due,
            Ok(None) => return Ok(wait),
            Err(error) => {
                let schedule = &self.spec.schedule;
                self.warn("InvalidSchedule", &format!("invalid schedule: {schedule} : {error}"));
                return Ok(None);
            }
        };
        if self.is_too_late(due, now) || self.is_done(due) || self.waits_for_another() {
            return Ok(wait);
        }
        if self.spec.concurrency_policy.as_deref() == Some("Replace") {
            self.stop_active_jobs().await?;
        }
        let Some(job) = self.create(due).await? else { return Ok(None) };
        self.status.active.get_or_insert_default().push(reference_to(&*job));
        self.status.last_schedule_time = Some(Time(due));
        // The next start counts from this one, which the local copy does not know yet.
        let mut started = self.cron.clone();
        started.status = Some(self.status.clone());
        Ok(timing::until_next(&started, &self.spec, now, &schedule))
    }

    fn schedule(&self) -> Option<Schedule> {
        let text = &self.spec.schedule;
        if timing::has_own_zone(&self.spec) {
            let message = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details"
            );
            self.warn("UnsupportedSchedule", &message);
        }
        let parsed = timing::schedule(&self.spec);
        parsed
            .map_err(|error| {
                let message = format!("unparseable schedule: {text:?} : {error}");
                self.warn("UnparseableSchedule", &message);
            })
            .ok()
    }

    fn due(
        &self,
        now: Timestamp,
        schedule: &Schedule,
    ) -> Result<Option<Timestamp>, timing::NeverDue> {
        let recent = timing::most_recent(&self.cron, &self.spec, now, schedule, true)?;
        if recent.due.is_some() && recent.missed == Missed::Many {
            let message = "too many missed start times. Set or decrease \
                           .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message);
        }
        Ok(recent.due)
    }

    fn is_too_late(&self, due: Timestamp, now: Timestamp) -> bool {
        let Some(deadline_s) = self.spec.starting_deadline_seconds else { return false };
        let deadline = due.checked_add(SignedDuration::from_secs(deadline_s));
        let late = deadline.is_ok_and(|deadline| deadline < now);
        if late {
            let due = due.to_zoned(TimeZone::UTC).strftime(MAIL_DATE).to_string();
            let message = format!("Missed scheduled time to start a job: {due}");
            self.warn("MissSchedule", &message);
        }
        late
    }

    /// Whether this start was made before.
    fn is_done(&self, due: Timestamp) -> bool {
        let name = self.job_name(due);
        let last = self.status.last_schedule_time.as_ref();
        last.is_some_and(|last| last.0 == due)
            || self.active().iter().any(|active| active.name.as_ref() == Some(&name))
    }

    fn waits_for_another(&self) -> bool {
        let forbids = self.spec.concurrency_policy.as_deref() == Some("Forbid");
        let waits = forbids && !self.active().is_empty();
        if waits {
            let message = "Not starting job because prior execution is running and concurrency \
                           policy is Forbid";
            self.normal("JobAlreadyActive", message);
        }
        waits
    }

    async fn stop_active_jobs(&mut self) -> Result<(), ReconcileError> {
        for active in self.active().to_vec() {
            let name = active.name.as_deref().unwrap_or_default();
            let jobs = self.context.resources::<Job>(&self.key.namespace);
            let job = match jobs.get(name).await {
                Ok(job) => job,
                Err(error) => {
                    self.warn("FailedGet", &format!("Get job: {error}"));
                    return Err(error.into());
                }
            };
            if !self.delete(&job).await {
                let namespace = &self.key.namespace;
                let message = format!("could not replace job {namespace}/{name}");
                return Err(ReconcileError::message(&message));
            }
        }
        Ok(())
    }

    /// A start has one name, so that it is made once only.
    fn job_name(&self, due: Timestamp) -> String {
        format!("{}-{}", self.key.name, due.as_second().div_euclid(60))
    }

    /// Makes the job of a start; `None` if somebody else made it and sees to it.
    async fn create(&self, due: Timestamp) -> Result<Option<Arc<Job>>, ClientError> {
        let jobs = self.context.resources::<Job>(&self.key.namespace);
        match jobs.create(&self.describe(due)).await {
            Ok(job) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                self.normal("SuccessfulCreate", &format!("Created job {name}"));
                Ok(Some(job))
            }
            Err(error) if error.reason() == Reason::AlreadyExists => {
                let job = jobs.get(&self.job_name(due)).await?;
                let uid = self.cron.metadata.uid.as_deref().unwrap_or_default();
                let ours = ownership::is_controlled_by(&job.metadata, uid);
                let known = self.is_active(job.metadata.uid.as_ref());
                Ok(Some(job).filter(|_| ours && !known))
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    self.warn("FailedCreate", &format!("Error creating job: {error}"));
                }
                Err(error)
            }
        }
    }

    fn describe(&self, due: Timestamp) -> Job {
        let template = &self.spec.job_template;
        let described = template.metadata.as_ref();
        let mut annotations =
            described.and_then(|meta| meta.annotations.clone()).unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), self.written(due));
        Job {
            metadata: ObjectMeta {
                name: Some(self.job_name(due)),
                namespace: Some(self.key.namespace.clone()),
                labels: described.and_then(|meta| meta.labels.clone()),
                annotations: Some(annotations),
                owner_references: Some(vec![ownership::controller_reference(&self.cron)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }

    /// A time as RFC 3339 has it, in the zone of the schedule.
    fn written(&self, due: Timestamp) -> String {
        let zone = load_zone(self.spec.time_zone.as_deref().unwrap_or_default());
        let zoned = due.to_zoned(zone.unwrap_or(TimeZone::UTC));
        if zoned.offset().is_zero() {
            return zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        }
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}
