//! What a deployment's status says, and when it is looked at again.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/deployment/{progress.go,sync.go}`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::{
    Rollout,
    replica_sets::{Sets, total_size},
    strategy,
};
use crate::{Action, reconciler::Reconciled};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";

fn deadline_s(deployment: &Deployment) -> Option<i32> {
    let spec = deployment.spec.as_ref();
    spec.and_then(|spec| spec.progress_deadline_seconds).filter(|seconds| *seconds != i32::MAX)
}

/// Whether a rollout that makes no progress is to be reported at all.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline_s(deployment).is_some()
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(super) fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    find(status, PROGRESSING)
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Sets a condition, unless it says the same already.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(known) = find(status, &condition.type_) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time = known.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = strategy::replicas(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Whether more pods are updated, ready or available than before, or fewer are old.
fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    now.updated_replicas > before.updated_replicas
        || old(now) < old(before)
        || now.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || now.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some((deadline_s, condition)) = deadline_s(deployment).zip(progressing(status)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|updated| {
            now.duration_since(updated.0).as_secs() >= i64::from(deadline_s)
        }),
    }
}

fn sum(sets: &[ReplicaSet], of: impl Fn(&ReplicaSet) -> i32) -> Option<i32> {
    Some(sets.iter().map(of).sum::<i32>()).filter(|sum| *sum != 0)
}

impl Rollout<'_> {
    fn condition(
        &self,
        type_: &str,
        status: &str,
        reason: &str,
        message: String,
    ) -> DeploymentCondition {
        DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(self.context.time()),
            last_transition_time: Some(self.context.time()),
        }
    }

    pub(super) fn progress(&mut self, status: &str, reason: &str, message: String) {
        let condition = self.condition(PROGRESSING, status, reason, message);
        set(self.status_mut(), condition);
    }

    /// Says that the deployment is paused, or no longer, so that the deadline does not count.
    pub(super) fn note_pause(&mut self) {
        if !has_deadline(&self.deployment) {
            return;
        }
        let reason = progressing(self.status_mut()).and_then(|c| c.reason.clone());
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        match (paused, reason.as_deref()) {
            (_, Some(TIMED_OUT)) => {}
            (true, reason) if reason != Some("DeploymentPaused") => {
                self.progress("Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
            }
            (false, Some("DeploymentPaused")) => {
                self.progress("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
            }
            _ => {}
        }
    }

    /// Brings the status up to date; with `rollout` also what it says of progress.
    pub(super) async fn finish_status(&mut self, sets: &Sets, rollout: bool) -> Reconciled {
        let before = self.deployment.status.clone().unwrap_or_default();
        let mut status = self.calculate(&before, sets);
        if rollout {
            self.judge_progress(&before, &mut status, sets.new.as_ref());
            self.move_failure(&mut status, sets);
        }
        self.deployment.status = Some(status.clone());
        self.write_status().await?;
        Ok(self.next_look(&status))
    }

    fn calculate(&self, before: &DeploymentStatus, sets: &Sets) -> DeploymentStatus {
        let all = sets.all();
        let new: Vec<ReplicaSet> = sets.new.iter().cloned().collect();
        let of = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
        let available = sum(&all, |set| of(set).available_replicas.unwrap_or(0));
        let unavailable = total_size(&all) - available.unwrap_or(0);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(&all, |set| of(set).replicas),
            updated_replicas: sum(&new, |set| of(set).replicas),
            ready_replicas: sum(&all, |set| of(set).ready_replicas.unwrap_or(0)),
            available_replicas: available,
            unavailable_replicas: Some(unavailable).filter(|count| *count > 0),
            terminating_replicas: all
                .iter()
                .map(|set| set.status.as_ref().map_or(Some(0), |s| s.terminating_replicas))
                .sum(),
            collision_count: before.collision_count,
            conditions: before.conditions.clone(),
        };
        let least =
            strategy::replicas(&self.deployment) - strategy::max_unavailable(&self.deployment);
        let (value, reason, message) = if available.unwrap_or(0) >= least {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        set(&mut status, self.condition(AVAILABLE, value, reason, message.to_owned()));
        status
    }

    fn judge_progress(
        &self,
        before: &DeploymentStatus,
        status: &mut DeploymentStatus,
        new: Option<&ReplicaSet>,
    ) {
        if !has_deadline(&self.deployment) {
            remove(status, PROGRESSING);
            return;
        }
        let current = progressing(before).cloned();
        let done = status.replicas == status.updated_replicas
            && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_SET_AVAILABLE));
        if done {
            return;
        }
        let subject = match new {
            Some(new) => format!("ReplicaSet \"{}\"", new.metadata.name.as_deref().unwrap_or("")),
            None => format!("Deployment \"{}\"", self.key().name),
        };
        if is_complete(&self.deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set(status, self.condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message));
        } else if has_progressed(before, status) {
            let message = format!("{subject} is progressing.");
            let mut condition = self.condition(PROGRESSING, "True", "ReplicaSetUpdated", message);
            if let Some(current) = current.filter(|current| current.status == "True") {
                condition.last_transition_time = current.last_transition_time;
            }
            // Replaced even if it says the same: its update time is what the deadline counts from.
            remove(status, PROGRESSING);
            set(status, condition);
        } else if has_timed_out(&self.deployment, status, self.context.now()) {
            let message = format!("{subject} has timed out progressing.");
            set(status, self.condition(PROGRESSING, "False", TIMED_OUT, message));
        }
    }

    /// A failure of the current set to create pods, or of any other, is the deployment's.
    fn move_failure(&self, status: &mut DeploymentStatus, sets: &Sets) {
        let failures = sets.new.iter().chain(&sets.old).find_map(|set| {
            let conditions = set.status.as_ref()?.conditions.as_deref()?;
            conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE).cloned()
        });
        match failures {
            Some(failure) => set(
                status,
                DeploymentCondition {
                    type_: failure.type_,
                    status: failure.status,
                    reason: failure.reason,
                    message: failure.message,
                    last_update_time: failure.last_transition_time.clone(),
                    last_transition_time: failure.last_transition_time,
                },
            ),
            None => remove(status, REPLICA_FAILURE),
        }
    }

    /// A rollout that is stuck changes nothing: look again when its deadline has passed.
    fn next_look(&self, status: &DeploymentStatus) -> Action {
        let Some((deadline_s, condition)) = deadline_s(&self.deployment).zip(progressing(status))
        else {
            return Action::Done;
        };
        let reason = condition.reason.as_deref();
        let settled = reason == Some(TIMED_OUT) || reason == Some(NEW_SET_AVAILABLE);
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let Some(updated) = condition.last_update_time.as_ref().filter(|_| !settled && !paused)
        else {
            return Action::Done;
        };
        let passed = self.context.now().duration_since(updated.0).as_secs();
        let left = u64::try_from(i64::from(deadline_s) - passed).unwrap_or(0);
        Action::RequeueAfter(Duration::from_secs(left + 1))
    }
}
