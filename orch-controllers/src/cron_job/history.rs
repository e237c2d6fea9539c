//! What became of the jobs: the active ones, the last success, and which are old enough to go.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use orch_core::ClientError;

use super::Run;

/// The condition that says how a job ended, if it has.
fn ending(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = |type_: &str| matches!(type_, "Complete" | "Failed");
    let found = conditions.iter().find(|c| ended(&c.type_) && c.status == "True")?;
    Some(&found.type_)
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

impl Run<'_> {
    /// Takes jobs that are over out of the active ones, and tells of those that nobody knows.
    pub(super) async fn note_jobs(&mut self) -> Result<(), ClientError> {
        for job in self.jobs.clone() {
            let uid = job.metadata.uid.as_ref();
            let known = self.is_active(uid);
            let Some(condition) = ending(&job) else {
                if !known {
                    self.look_again(&job).await?;
                }
                continue;
            };
            if known {
                self.forget(uid);
                let (name, condition) = (name(&job), condition.to_owned());
                let message = format!("Saw completed job: {name}, condition: {condition}");
                self.normal("SawCompletedJob", &message);
            }
            if condition == "Complete" {
                self.note_success(&job);
            }
        }
        Ok(())
    }

    /// The local copy of the CronJob may be older than the job.
    async fn look_again(&mut self, job: &Job) -> Result<(), ClientError> {
        let crons = self.context.resources::<CronJob>(&self.key.namespace);
        let live = crons.get(&self.key.name).await?;
        let active = live.status.iter().flat_map(|status| status.active.iter().flatten());
        if active.into_iter().any(|active| active.uid == job.metadata.uid) {
            self.status = live.status.clone().unwrap_or_default();
            self.cron = Arc::unwrap_or_clone(live);
            return Ok(());
        }
        let name = name(job);
        let message = format!("Saw a job that the controller did not create or forgot: {name}");
        self.warn("UnexpectedJob", &message);
        Ok(())
    }

    fn note_success(&mut self, job: &Job) {
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        let last = &mut self.status.last_successful_time;
        let later = |last: &_| completed.as_ref().is_some_and(|completed| completed > last);
        if last.as_ref().is_none_or(later) {
            *last = completed;
        }
    }

    /// A job that somebody deleted is not active any more.
    pub(super) async fn forget_missing_jobs(&mut self) -> Result<(), ClientError> {
        for active in self.active().to_vec() {
            if self.jobs.iter().any(|job| job.metadata.uid == active.uid) {
                continue;
            }
            // The local copy may be behind: a job must not be missed for that.
            let name = active.name.as_deref().unwrap_or_default();
            if self.live_job(name).await?.is_none() {
                self.normal("MissingJob", &format!("Active job went missing: {name}"));
                self.forget(active.uid.as_ref());
            }
        }
        Ok(())
    }

    /// Deletes the oldest of those that are over, as far as they are more than are to be kept.
    pub(super) async fn remove_old_jobs(&mut self) {
        let limits = [
            ("Complete", self.spec.successful_jobs_history_limit),
            ("Failed", self.spec.failed_jobs_history_limit),
        ];
        for (condition, limit) in limits {
            let Some(limit) = limit else { continue };
            let over = self.jobs.iter().filter(|job| ending(job) == Some(condition));
            let mut over: Vec<Arc<Job>> = over.cloned().collect();
            over.sort_by_key(|job| {
                let started = job.status.as_ref().and_then(|status| status.start_time.clone());
                (started.is_none(), started, job.metadata.name.clone())
            });
            let excess = over.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in &over[..excess] {
                self.delete(job).await;
            }
        }
    }
}
