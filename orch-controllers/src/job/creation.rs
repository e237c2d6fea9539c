//! Starting and stopping pods, and how long to wait after a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec};
use orch_core::ClientError;

use super::{
    Run, TRACKING,
    indexes::{self, Indexes},
    per_index,
    tracking::Counts,
};
use crate::{
    ownership,
    pods::{self, BURST},
};

/// The wait after a first failure, doubled with each further one in a row.
const BACKOFF_S: i64 = 10;
const BACKOFF_S_MAX: i64 = 600;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

impl Run<'_> {
    /// Starts or stops pods. Gives how many are active then, and how long to wait before more.
    pub(super) async fn manage(
        &self,
        counts: &Counts,
    ) -> Result<(usize, Option<Duration>), ClientError> {
        let active = self.active();
        let wanted = self.wanted(counts, active.len());
        let excess = self.excess(&active, wanted);
        if !excess.is_empty() {
            self.delete(&excess).await?;
            return Ok((active.len() - excess.len(), None));
        }
        let failed = self.failed_indexes(&counts.indexes);
        let blocking = if self.replaces_only_failed() { self.terminating() } else { 0 };
        let missing = wanted.saturating_sub(active.len() + blocking).min(BURST);
        if missing == 0 {
            return Ok((active.len(), None));
        }
        if let Some(wait) = self.backoff().filter(|_| !self.is_per_index()) {
            return Ok((active.len(), Some(wait)));
        }
        if !self.is_indexed() {
            let created = self.control().create(missing, |_| self.describe()).await?;
            return Ok((active.len() + created, None));
        }
        let mut free = self.free_indexes(missing, counts, &failed, &active);
        let replaced = self.to_replace(&counts.indexes, &failed);
        let waits = self.hold_back(&mut free, &replaced);
        let created = self
            .control()
            .create(free.len(), |at| self.describe_index(free[at], replaced.get(&free[at])))
            .await?;
        Ok((active.len() + created, waits))
    }

    /// Takes out the indexes that have to wait after a failure of theirs. Gives how long the first
    /// of them has to.
    fn hold_back(
        &self,
        free: &mut Vec<u32>,
        replaced: &BTreeMap<u32, Arc<Pod>>,
    ) -> Option<Duration> {
        let wait = |index: &u32| replaced.get(index).and_then(|pod| self.index_backoff(pod));
        let first = free.iter().filter_map(wait).min();
        free.retain(|index| wait(index).is_none());
        first
    }

    fn wanted(&self, counts: &Counts, active: usize) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        match self.completions() {
            Some(completions) => {
                let over = counts.succeeded + self.failed_indexes(&counts.indexes).len();
                parallelism.min((completions as usize).saturating_sub(over))
            }
            None if counts.succeeded > 0 => active,
            None => parallelism,
        }
    }

    /// The pods to stop: those whose index is out of range or taken, and those that are too many.
    fn excess(&self, active: &[Arc<Pod>], wanted: usize) -> Vec<Arc<Pod>> {
        let mut excess = Vec::new();
        let mut rest = Vec::new();
        let (mut taken, completions) = (BTreeSet::new(), self.completions().unwrap_or(0));
        for pod in active {
            let fits = !self.is_indexed()
                || indexes::of(pod).is_some_and(|i| i < completions && taken.insert(i));
            if fits { rest.push(pod.clone()) } else { excess.push(pod.clone()) }
        }
        // Those that are not ready first, then the youngest.
        rest.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::is_ready(pod), std::cmp::Reverse(created))
        });
        let more = rest.len().saturating_sub(wanted);
        excess.extend(rest.into_iter().take(more));
        excess.truncate(BURST);
        excess
    }

    fn free_indexes(
        &self,
        count: usize,
        counts: &Counts,
        failed: &Indexes,
        active: &[Arc<Pod>],
    ) -> Vec<u32> {
        let mut taken: BTreeSet<u32> = active.iter().filter_map(|pod| indexes::of(pod)).collect();
        if self.replaces_only_failed() {
            let going = self.pods.iter().filter(|pod| pods::is_terminating(pod));
            taken.extend(going.filter_map(|pod| indexes::of(pod)));
        }
        let free = counts.indexes.missing(self.completions().unwrap_or(0));
        free.filter(|i| !taken.contains(i) && !failed.contains(*i)).take(count).collect()
    }

    fn describe(&self) -> Pod {
        let reference = ownership::controller_reference(&self.job);
        let mut pod = pods::from_template(&self.spec.template, &self.key, reference);
        let finalizers = pod.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
            finalizers.push(TRACKING.to_owned());
        }
        pod
    }

    fn describe_index(&self, index: u32, replaces: Option<&Arc<Pod>>) -> Pod {
        let mut pod = self.describe();
        self.give_index(&mut pod, index);
        if self.is_per_index() {
            let ignored = replaces.is_some_and(|failed| self.ignores_failure(failed));
            per_index::annotate(&mut pod, replaces.map(|failed| &**failed), ignored);
        }
        pod
    }

    fn give_index(&self, pod: &mut Pod, index: u32) {
        let text = index.to_string();
        let meta = &mut pod.metadata;
        for marks in [&mut meta.annotations, &mut meta.labels] {
            marks
                .get_or_insert_default()
                .insert(indexes::COMPLETION_INDEX.to_owned(), text.clone());
        }
        let name = format!("{}-{index}", self.key.name);
        meta.generate_name = Some(format!("{name}-"));
        let Some(spec) = &mut pod.spec else { return };
        spec.hostname = Some(name);
        add_index_variable(spec);
    }

    /// How long to wait because of failures in a row, judged by the pods that are there, and by
    /// those that were since this controller began: nothing has to be remembered over a restart.
    fn backoff(&self) -> Option<Duration> {
        let over = self.pods.iter().filter(|pod| pods::is_terminal(pod));
        let (failures, last) = self.ends.failures_in_a_row(over.map(|pod| &**pod))?;
        backoff_left(failures, last, self.context.now())
    }
}

/// How long to wait still after so many failures, if at all.
pub(super) fn backoff_left(failures: usize, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doubled = BACKOFF_S.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let wait = SignedDuration::from_secs(doubled.min(BACKOFF_S_MAX));
    Duration::try_from(wait - now.duration_since(last)).ok().filter(|left| !left.is_zero())
}

fn add_index_variable(spec: &mut PodSpec) {
    let variable = EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{}']", indexes::COMPLETION_INDEX),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == INDEX_VARIABLE) {
            env.push(variable.clone());
        }
    }
}

/// When the last of a pod's containers ended.
pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let ended = status.container_statuses.iter().flatten().filter_map(|container| {
        container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
    });
    let ready = pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref();
    ended.max().or(ready.or(created).map(|time| time.0))
}
