//! Pods that are over, counted, and only there to be read: a job has nothing to do with them, however
//! many there are. They are looked at once after each change of theirs.
//!
//! `Differs:` upstream looks at all pods of a job each time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    Resource as _,
    api::{batch::v1::Job, core::v1::Pod},
};
use orch_core::{
    Key,
    informer::{Change, Informer},
};
use parking_lot::Mutex;

use super::{creation::ended_at, tracking::is_tracked};
use crate::{ownership, pods};

/// The index of the pods that a job has to do with still, by its uid.
pub(super) const UNSETTLED: &str = "unsettled-by-job";

fn is_settled(pod: &Pod) -> bool {
    pods::is_terminal(pod) && !pods::is_terminating(pod) && !is_tracked(pod)
}

/// The job that controls a pod.
fn job_of(pod: &Pod) -> Option<(Key, &str)> {
    let owner = ownership::controller_of(&pod.metadata)?;
    let is_job = owner.kind == Job::KIND && owner.api_version == Job::API_VERSION;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    is_job.then(|| (Key::new(namespace, owner.name.clone()), owner.uid.as_str()))
}

pub(super) fn index(pods: &Informer<Pod>) {
    pods.add_index(UNSETTLED, |pod| {
        let job = job_of(pod).filter(|_| !is_settled(pod));
        job.map(|(_, uid)| uid.to_owned()).into_iter().collect()
    });
}

/// How the settled pods of a job ended, as far as that decides how long to wait for the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    success: Option<Timestamp>,
    /// Those after the last success, by their ends and uids.
    failures: BTreeSet<(Timestamp, String)>,
}

impl Ends {
    fn note(&mut self, pod: &Pod) {
        let Some(end) = ended_at(pod) else { return };
        if pods::phase(pod) == "Failed" {
            if self.success.is_none_or(|success| end >= success) {
                self.failures.insert((end, pod.metadata.uid.clone().unwrap_or_default()));
            }
        } else if self.success.is_none_or(|success| end > success) {
            self.success = Some(end);
            self.failures = self.failures.split_off(&(end, String::new()));
        }
    }

    /// How many pods failed in a row until now, and when the last one did: those that are settled
    /// and these.
    pub(super) fn failures_in_a_row<'a>(
        &self,
        over: impl Iterator<Item = &'a Pod>,
    ) -> Option<(usize, Timestamp)> {
        let mut ends = self.clone();
        over.for_each(|pod| ends.note(pod));
        let (last, _) = ends.failures.last()?;
        Some((ends.failures.len(), *last))
    }
}

#[derive(Default)]
struct OfJob {
    uid: String,
    ends: Ends,
    /// Pods that have settled, or changed since.
    changed: BTreeSet<Key>,
}

/// What is known of settled pods, by job.
#[derive(Default)]
pub(super) struct Settled(Mutex<HashMap<Key, OfJob>>);

impl Settled {
    /// Takes notice of a change of a pod.
    pub(super) fn notice(&self, change: &Change<Pod>) {
        let pod = match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } if is_settled(pod) => pod,
            _ => return,
        };
        let Some((job, uid)) = job_of(pod) else { return };
        let mut all = self.0.lock();
        let of_job = all.entry(job).or_default();
        if of_job.uid != uid {
            *of_job = OfJob { uid: uid.to_owned(), ..OfJob::default() };
        }
        of_job.changed.insert(Key::of(&pod.metadata));
    }

    /// Notes how those ended that have changed, and gives them.
    pub(super) fn take(&self, job: &Key, uid: &str, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
        let mut all = self.0.lock();
        let Some(of_job) = all.get_mut(job).filter(|of_job| of_job.uid == uid) else {
            return Vec::new();
        };
        let changed = std::mem::take(&mut of_job.changed);
        let changed: Vec<Arc<Pod>> = changed.iter().filter_map(|key| pods.get(key)).collect();
        for pod in &changed {
            if is_settled(pod) && job_of(pod).is_some_and(|(_, of)| of == uid) {
                of_job.ends.note(pod);
            }
        }
        changed
    }

    /// These are to be looked at again.
    pub(super) fn put_back(&self, job: &Key, pods: &[Arc<Pod>]) {
        if let Some(of_job) = self.0.lock().get_mut(job) {
            of_job.changed.extend(pods.iter().map(|pod| Key::of(&pod.metadata)));
        }
    }

    /// How the settled pods of a job ended.
    pub(super) fn ends(&self, job: &Key, uid: &str) -> Ends {
        let all = self.0.lock();
        let of_job = all.get(job).filter(|of_job| of_job.uid == uid);
        of_job.map(|of_job| of_job.ends.clone()).unwrap_or_default()
    }

    /// The job is gone.
    pub(super) fn forget(&self, job: &Key) {
        self.0.lock().remove(job);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, ended_s: i64) -> Pod {
        let at = Timestamp::from_second(1_700_000_000 + ended_s).unwrap().to_string();
        let ended = json!({"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": at}}});
        let pod = json!({"metadata": {"name": name, "uid": name},
            "status": {"phase": phase, "containerStatuses": [ended]}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn failures_count_from_the_last_success_on() {
        let check =
            |settled: &[(&str, i64)], over: &[(&str, i64)], expected: Option<(usize, i64)>| {
                let pods = |ends: &[(&str, i64)]| -> Vec<Pod> {
                    let named =
                        ends.iter().map(|(phase, end)| pod(&format!("{phase}{end}"), phase, *end));
                    named.collect()
                };
                let mut ends = Ends::default();
                pods(settled).iter().for_each(|pod| ends.note(pod));
                let over = pods(over);
                let found = ends.failures_in_a_row(over.iter());
                let found = found.map(|(count, last)| (count, last.as_second() - 1_700_000_000));
                assert_eq!(found, expected, "{settled:?} {over:?}");
            };
        check(&[], &[], None);
        check(&[("Failed", 1), ("Failed", 3)], &[], Some((2, 3)));
        check(&[("Failed", 1), ("Failed", 3)], &[("Failed", 3), ("Failed", 2)], Some((3, 3)));
        check(&[("Failed", 1), ("Succeeded", 2), ("Failed", 3)], &[], Some((1, 3)));
        check(&[("Failed", 3), ("Succeeded", 2), ("Failed", 1)], &[], Some((1, 3)));
        check(&[("Failed", 1)], &[("Succeeded", 2)], None);
        check(&[("Succeeded", 5)], &[("Failed", 2), ("Failed", 5)], Some((1, 5)));
    }
}
