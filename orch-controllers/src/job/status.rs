//! When a job has succeeded or failed, and what its status says about it.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};

use super::{Run, failure_policy, seconds, success_policy, tracking::Counts};
use crate::{context::EventType, pods};

const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
const FAILURE_TARGET: &str = "FailureTarget";
const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const SUSPENDED: &str = "Suspended";

fn find<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn is_true(status: &JobStatus, type_: &str) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether all is over and counted.
pub(super) fn is_finished(status: &JobStatus) -> bool {
    is_true(status, COMPLETE) || is_true(status, FAILED)
}

/// Whether the end is decided, and only waits for pods to stop and to be counted.
pub(super) fn is_ending(status: &JobStatus) -> bool {
    is_true(status, SUCCESS_CRITERIA_MET) || is_true(status, FAILURE_TARGET)
}

impl Run<'_> {
    fn set(&mut self, type_: &str, value: &str, reason: &str, message: &str) {
        let now = Some(self.context.time());
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != type_);
        conditions.push(JobCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        });
    }

    /// Decides whether the job has failed or succeeded. Gives how long until its deadline.
    pub(super) fn judge(&mut self, counts: &Counts) -> Option<Duration> {
        if is_ending(&self.status) {
            return None;
        }
        let policy = self.spec.pod_failure_policy.as_ref();
        if let Some(message) = policy.and_then(|p| failure_policy::fails_job(p, &self.pods)) {
            self.set(FAILURE_TARGET, "True", "PodFailurePolicy", &message);
            return None;
        }
        let limit = usize::try_from(self.spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
        if counts.failed > limit || self.has_restarted_too_often(limit) {
            let message = "Job has reached the specified backoff limit";
            self.set(FAILURE_TARGET, "True", "BackoffLimitExceeded", message);
            return None;
        }
        let left = self.until_deadline();
        if left.is_some_and(|left| left.is_zero()) {
            let message = "Job was active longer than specified deadline";
            self.set(FAILURE_TARGET, "True", "DeadlineExceeded", message);
            return None;
        }
        if let Some((reason, message)) = self.index_failure(counts) {
            self.set(FAILURE_TARGET, "True", reason, message);
            return None;
        }
        let policy = self.spec.success_policy.as_ref().filter(|_| self.is_indexed());
        let completions = self.completions().unwrap_or(0);
        let met = policy.and_then(|p| success_policy::met(p, completions, &counts.indexes));
        if let Some(message) = met {
            self.set(SUCCESS_CRITERIA_MET, "True", "SuccessPolicy", &message);
            return None;
        }
        if self.has_succeeded(counts) {
            let message = "Reached expected number of succeeded pods";
            self.set(SUCCESS_CRITERIA_MET, "True", "CompletionsReached", message);
            return None;
        }
        left
    }

    /// Why indexes that failed for good make the job fail, if they do.
    fn index_failure(&self, counts: &Counts) -> Option<(&'static str, &'static str)> {
        let failed = self.failed_indexes(&counts.indexes).len();
        let most = self.spec.max_failed_indexes.map(|most| usize::try_from(most).unwrap_or(0));
        let completions = self.completions().unwrap_or(0) as usize;
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            Some(("MaxFailedIndexesExceeded", message))
        } else if failed > 0 && failed + counts.succeeded >= completions {
            Some(("FailedIndexes", "Job has failed indexes"))
        } else {
            None
        }
    }

    /// Pods that restart their containers by themselves fail without ever being over.
    fn has_restarted_too_often(&self, limit: usize) -> bool {
        let policy =
            self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let alive = self.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
        let restarts: usize = alive
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                let init = status.init_container_statuses.iter().flatten();
                init.chain(status.container_statuses.iter().flatten())
            })
            .map(|status| usize::try_from(status.restart_count).unwrap_or(0))
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn until_deadline(&self) -> Option<Duration> {
        let deadline_s = self.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let passed = self.context.now().duration_since(start);
        let left = SignedDuration::from_secs(deadline_s) - passed;
        Some(Duration::try_from(left).unwrap_or(seconds(0)))
    }

    fn has_succeeded(&self, counts: &Counts) -> bool {
        match self.completions() {
            Some(completions) => counts.succeeded >= completions as usize,
            // A work queue: one success says that the work is done, the rest may finish.
            None => counts.succeeded > 0 && self.active().is_empty(),
        }
    }

    pub(super) fn note_suspension(&mut self, suspended: bool) {
        let was = is_true(&self.status, SUSPENDED);
        if suspended {
            self.status.start_time = None;
        }
        if suspended && !was {
            self.set(SUSPENDED, "True", "JobSuspended", "Job suspended");
            self.event(EventType::Normal, "Suspended", "Job suspended");
        } else if !suspended && was {
            self.set(SUSPENDED, "False", "JobResumed", "Job resumed");
            self.event(EventType::Normal, "Resumed", "Job resumed");
        }
    }

    /// All pods are over and counted.
    pub(super) fn finish(&mut self) {
        let failure = find(&self.status, FAILURE_TARGET).cloned();
        let success = find(&self.status, SUCCESS_CRITERIA_MET).cloned();
        let text = |text: Option<String>| text.unwrap_or_default();
        if let Some(failure) = failure {
            let (reason, message) = (text(failure.reason), text(failure.message));
            self.set(FAILED, "True", &reason, &message);
            self.event(EventType::Warning, &reason, &message);
        } else if let Some(success) = success {
            let (reason, message) = (text(success.reason), text(success.message));
            self.set(COMPLETE, "True", &reason, &message);
            self.status.completion_time = Some(self.context.time());
            self.event(EventType::Normal, "Completed", "Job completed");
        }
    }

    fn event(&self, kind: EventType, reason: &str, message: &str) {
        self.context.event(&self.job, kind, reason, message);
    }
}
