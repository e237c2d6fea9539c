//! Counting pods that are over, each exactly once, and then letting them go.
//!
//! A pod that is over is first noted by uid in the status, then loses its finalizer, and is then
//! counted: whenever the controller is stopped in between, the next look goes on.
//!
//! Source: `trackJobStatusAndRemoveFinalizers` of the job controller, KEP-2307.

use std::collections::HashSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use orch_core::ClientError;

use super::{
    Run, TRACKING,
    indexes::{self, Indexes},
    number, orphans, status,
};
use crate::pods;

/// How many pods are noted at a time, to keep the status small.
const UNCOUNTED_MAX: usize = 500;

/// How the pods that are over ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) indexes: Indexes,
}

/// Pods that are over.
#[derive(Default)]
struct Noted {
    over: HashSet<String>,
    /// There are more than can be noted at a time.
    more: bool,
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Run<'_> {
    pub(super) fn completions(&self) -> Option<u32> {
        self.spec.completions.map(|completions| u32::try_from(completions).unwrap_or(0))
    }

    fn counted_indexes(&self) -> Indexes {
        let text = self.status.completed_indexes.as_deref().unwrap_or_default();
        Indexes::parse(text, self.completions().unwrap_or(0))
    }

    /// Everything that ended so far, counted in the status or not.
    pub(super) fn count(&self) -> Counts {
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let noted: HashSet<String> =
            uncounted.succeeded.iter().chain(&uncounted.failed).flatten().cloned().collect();
        let fresh = |pod: &&std::sync::Arc<Pod>| is_tracked(pod) && !noted.contains(uid(pod));
        let mut counts = Counts {
            failed: counted(self.status.failed) + uncounted.failed.as_ref().map_or(0, Vec::len),
            ..Counts::default()
        };
        counts.failed += self
            .pods
            .iter()
            .filter(fresh)
            .filter(|pod| self.is_failed(pod) && !self.ignores_failure(pod))
            .count();
        let succeeded = self.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded");
        if self.is_indexed() {
            counts.indexes = self.counted_indexes();
            let completions = self.completions().unwrap_or(0);
            let done = succeeded.filter(|pod| is_tracked(pod)).filter_map(|pod| indexes::of(pod));
            counts.indexes.extend(done.filter(|index| *index < completions));
            counts.succeeded = counts.indexes.len();
        } else {
            let noted = uncounted.succeeded.as_ref().map_or(0, Vec::len);
            counts.succeeded =
                counted(self.status.succeeded) + noted + succeeded.filter(fresh).count();
        }
        counts
    }

    /// Counts what is over, and finishes the job when nothing is left to count.
    pub(super) async fn track(&mut self, active: usize) -> Result<(), ClientError> {
        loop {
            let noted = self.note();
            if !noted.over.is_empty() || self.has_uncounted() {
                self.write_status().await?;
                self.release(|pod| noted.over.contains(uid(pod))).await?;
                self.count_noted();
            }
            if !noted.more {
                break;
            }
        }
        let settled = active == 0 && self.terminating() == 0 && !self.has_uncounted();
        if settled && status::is_ending(&self.status) && self.active().is_empty() {
            self.finish();
        }
        self.write_status().await
    }

    fn has_uncounted(&self) -> bool {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        uncounted.is_some_and(|u| {
            u.succeeded.as_ref().is_some_and(|s| !s.is_empty())
                || u.failed.as_ref().is_some_and(|f| !f.is_empty())
        })
    }

    /// Notes pods that are over.
    fn note(&mut self) -> Noted {
        let ending = status::is_ending(&self.status);
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut succeeded = uncounted.succeeded.take().unwrap_or_default();
        let mut failed = uncounted.failed.take().unwrap_or_default();
        let mut indexes = self.counted_indexes();
        let (indexed, completions) = (self.is_indexed(), self.completions().unwrap_or(0));
        let kept = self.kept(ending);
        let mut noted = Noted::default();
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && !kept.contains(uid(pod))) {
            if succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                noted.more = true;
                break;
            }
            let uid = uid(pod).to_owned();
            if pods::phase(pod) == "Succeeded" {
                if indexed {
                    // An index counts once, however many pods had it.
                    indexes.extend(indexes::of(pod).filter(|index| *index < completions));
                } else if !succeeded.contains(&uid) {
                    succeeded.push(uid.clone());
                }
            } else if self.is_failed(pod) || (ending && pods::is_terminating(pod)) {
                if !self.ignores_failure(pod) && !failed.contains(&uid) {
                    failed.push(uid.clone());
                }
            } else {
                continue;
            }
            noted.over.insert(uid);
        }
        if self.is_per_index() {
            self.status.failed_indexes = Some(self.failed_indexes(&indexes).to_string());
        }
        if indexed {
            self.status.succeeded = number(indexes.len());
            let text = indexes.to_string();
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
        }
        uncounted.succeeded = (!succeeded.is_empty()).then_some(succeeded);
        uncounted.failed = (!failed.is_empty()).then_some(failed);
        self.status.uncounted_terminated_pods = Some(uncounted);
        noted
    }

    /// The uids of failed pods that stay until something replaces them, because they bear the count
    /// of their index's failures.
    fn kept(&self, ending: bool) -> HashSet<String> {
        if ending || self.job.metadata.deletion_timestamp.is_some() {
            return HashSet::new();
        }
        let succeeded = self.count().indexes;
        let failed = self.failed_indexes(&succeeded);
        let pods = self.to_replace(&succeeded, &failed).into_values();
        pods.map(|pod| uid(&pod).to_owned()).collect()
    }

    /// Takes the finalizer from pods.
    async fn release(&mut self, which: impl Fn(&Pod) -> bool) -> Result<(), ClientError> {
        let chosen = self.pods.iter().filter(|pod| is_tracked(pod) && which(pod));
        let free = async |pod| {
            orphans::remove_finalizer(self.context, pod).await.map(|()| uid(pod).to_owned())
        };
        let results = join_all(chosen.map(free)).await;
        let freed: HashSet<String> = results.into_iter().collect::<Result<_, ClientError>>()?;
        for pod in &mut self.pods {
            if freed.contains(uid(pod)) {
                let mut copy = pod.as_ref().clone();
                copy.metadata.finalizers.get_or_insert_default().retain(|f| f != TRACKING);
                *pod = copy.into();
            }
        }
        Ok(())
    }

    /// Everything, once the job is over.
    pub(super) async fn release_pods(&mut self) -> Result<(), ClientError> {
        self.release(|_| true).await
    }

    /// What was noted and has lost its finalizer is counted.
    fn count_noted(&mut self) {
        let uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked: HashSet<&str> =
            self.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod)).collect();
        let split = |noted: Option<Vec<String>>| -> (Option<Vec<String>>, usize) {
            let noted = noted.unwrap_or_default();
            let before = noted.len();
            let left: Vec<String> =
                noted.into_iter().filter(|uid| tracked.contains(uid.as_str())).collect();
            let done = before - left.len();
            ((!left.is_empty()).then_some(left), done)
        };
        let (succeeded_left, succeeded) = split(uncounted.succeeded);
        let (failed_left, failed) = split(uncounted.failed);
        self.status.succeeded = number(counted(self.status.succeeded) + succeeded);
        self.status.failed = number(counted(self.status.failed) + failed);
        self.status.uncounted_terminated_pods =
            Some(k8s_openapi::api::batch::v1::UncountedTerminatedPods {
                succeeded: succeeded_left,
                failed: failed_left,
            });
    }
}

fn counted(count: Option<i32>) -> usize {
    usize::try_from(count.unwrap_or(0)).unwrap_or(0)
}
