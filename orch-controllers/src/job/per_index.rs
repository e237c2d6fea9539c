//! Jobs whose indexes fail and are retried each on its own.
//!
//! How often an index has failed is noted on its newest pod, and a failed pod is kept until the next
//! one bears the count: nothing has to be remembered over a restart.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job/{backoff_utils.go,indexed_job_utils.go}`, KEP-3850.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use super::{
    Run, creation, failure_policy,
    indexes::{self, Indexes},
    tracking::is_tracked,
};

/// How often the index failed before this pod.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it failed in ways that do not count.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

fn count(pod: &Pod, annotation: &str) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(annotation));
    text.and_then(|text| text.parse().ok()).filter(|count| *count >= 0).unwrap_or(0)
}

/// How often the index failed before this pod, counted or not.
fn all_failures(pod: &Pod) -> i32 {
    count(pod, FAILURES).saturating_add(count(pod, IGNORED))
}

/// What a pod that replaces another one notes.
pub(super) fn annotate(pod: &mut Pod, failed: Option<&Pod>, ignored: bool) {
    let (mut counted, mut not_counted) =
        failed.map_or((0, 0), |failed| (count(failed, FAILURES), count(failed, IGNORED)));
    match failed {
        Some(_) if ignored => not_counted = not_counted.saturating_add(1),
        Some(_) => counted = counted.saturating_add(1),
        None => {}
    }
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(FAILURES.to_owned(), counted.to_string());
    if not_counted > 0 {
        annotations.insert(IGNORED.to_owned(), not_counted.to_string());
    }
}

impl Run<'_> {
    /// Whether each index is retried on its own.
    pub(super) fn is_per_index(&self) -> bool {
        self.is_indexed() && self.spec.backoff_limit_per_index.is_some()
    }

    pub(super) fn ignores_failure(&self, pod: &Pod) -> bool {
        let policy = self.spec.pod_failure_policy.as_ref();
        policy.is_some_and(|policy| failure_policy::ignores(policy, pod))
    }

    /// Whether with this pod its index has failed for good.
    fn fails_index(&self, pod: &Pod) -> bool {
        let Some(limit) = self.spec.backoff_limit_per_index else { return false };
        if !self.is_failed(pod) || self.ignores_failure(pod) {
            return false;
        }
        let policy = self.spec.pod_failure_policy.as_ref();
        policy.is_some_and(|policy| failure_policy::fails_index(policy, pod))
            || count(pod, FAILURES) >= limit
    }

    /// The indexes that failed for good.
    pub(super) fn failed_indexes(&self, succeeded: &Indexes) -> Indexes {
        if !self.is_per_index() {
            return Indexes::default();
        }
        let completions = self.completions().unwrap_or(0);
        let text = self.status.failed_indexes.as_deref().unwrap_or_default();
        let mut failed = Indexes::parse(text, completions);
        let pods = self.pods.iter().filter(|pod| is_tracked(pod) && self.fails_index(pod));
        failed.extend(pods.filter_map(|pod| indexes::of(pod)).filter(|i| *i < completions));
        failed.without(succeeded)
    }

    /// The failed pods that nothing has replaced yet, by index.
    pub(super) fn to_replace(
        &self,
        succeeded: &Indexes,
        failed: &Indexes,
    ) -> BTreeMap<u32, Arc<Pod>> {
        let mut newest: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
        if !self.is_per_index() {
            return newest;
        }
        let completions = self.completions().unwrap_or(0);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let Some(index) = indexes::of(pod).filter(|index| *index < completions) else {
                continue;
            };
            let known = newest.get(&index);
            if known.is_none_or(|known| all_failures(known) < all_failures(pod)) {
                newest.insert(index, pod.clone());
            }
        }
        newest.retain(|index, pod| {
            self.is_failed(pod) && !succeeded.contains(*index) && !failed.contains(*index)
        });
        newest
    }

    /// How long an index has still to wait after this failure.
    pub(super) fn index_backoff(&self, failed: &Pod) -> Option<Duration> {
        let failures = usize::try_from(all_failures(failed)).unwrap_or(0) + 1;
        let last = creation::ended_at(failed)?;
        creation::backoff_left(failures, last, self.context.now())
    }
}
