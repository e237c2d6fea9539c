//! What a status says of the pods.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/replicaset/replica_set_utils.go`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use orch_core::clock::to_seconds;

use super::kinds::{ReplicaCondition, ReplicaStatus, Replicated};
use crate::pods;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What a status is calculated from.
pub(super) struct Counted<'a> {
    pub(super) active: &'a [Arc<Pod>],
    pub(super) terminating: usize,
    /// How many pods there were too many (negative: too few), and why that could not be mended.
    pub(super) failure: Option<(i64, String)>,
}

fn count(pods: &[Arc<Pod>], counts: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(pods.iter().filter(|pod| counts(pod)).count()).unwrap_or(i32::MAX)
}

pub(super) fn calculate<K: Replicated>(
    owner: &K,
    counted: &Counted<'_>,
    now: Timestamp,
) -> ReplicaStatus {
    let template = owner.template().and_then(|template| template.metadata.as_ref());
    let labels = template.and_then(|meta| meta.labels.as_ref());
    let fully_labeled = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels.into_iter().flatten().all(|(k, v)| own.and_then(|own| own.get(k)) == Some(v))
    };
    let min_ready_s = owner.min_ready_seconds();
    let terminating = i32::try_from(counted.terminating).unwrap_or(i32::MAX);
    ReplicaStatus {
        replicas: count(counted.active, |_| true),
        fully_labeled: count(counted.active, fully_labeled),
        ready: count(counted.active, pods::is_ready),
        available: count(counted.active, |pod| pods::is_available(pod, min_ready_s, now)),
        terminating: K::COUNTS_TERMINATING.then_some(terminating),
        observed_generation: owner.metadata().generation.unwrap_or(0),
        conditions: conditions(owner.status().conditions, counted.failure.as_ref(), now),
    }
}

fn conditions(
    mut conditions: Vec<ReplicaCondition>,
    failure: Option<&(i64, String)>,
    now: Timestamp,
) -> Vec<ReplicaCondition> {
    let known = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
    match failure {
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        Some((difference, message)) if !known => {
            let reason = if *difference < 0 { "FailedCreate" } else { "FailedDelete" };
            conditions.push(ReplicaCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(message.clone()),
                last_transition_time: Some(Time(to_seconds(now))),
            });
        }
        Some(_) => {}
    }
    conditions
}
