//! Pods that wait to be scheduled.
//!
//! Source: `pkg/scheduler/backend/queue`.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    event::{ClusterChange, Hint},
    framework::Profiles,
    pod_info::PodInfo,
};

mod changes;
mod state;
#[cfg(test)]
mod tests;

use self::state::{Place, State};

/// A pod that failed is not tried again sooner than this; doubled with every failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    fn after(&self, attempts: u32) -> Duration {
        let doubled = self.min.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.max)
    }
}

/// A pod that no event moved is tried again anyway after so long.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

type Uid = Arc<str>;

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// Since when it has been waiting, counted from its last cycle.
    pub since: Instant,
    /// When it came.
    pub arrived: Instant,
    /// When its last cycle began; when it came if there was none.
    pub began: Instant,
    /// How many cycles it went through.
    pub attempts: u32,
    /// The plugins that rejected it in its last cycle.
    pub rejected_by: BTreeSet<Arc<str>>,
    /// Order of arrival, where nothing else decides.
    sequence: u64,
    /// Not to be tried before.
    backoff_until: Instant,
    /// Whether it waits so long even if there is nothing else to do: it failed, or nobody can say
    /// what would help it.
    penalized: bool,
    /// The plugin that keeps it out of the queue.
    gated_by: Option<Arc<str>>,
}

impl QueuedPod {
    /// The plugins whose word could get it out of a place.
    fn waits_for(&self, place: Place) -> impl Iterator<Item = &Arc<str>> {
        let rejected_by = (place == Place::Unschedulable).then_some(&self.rejected_by);
        let gated_by = (place == Place::Gated).then_some(&self.gated_by);
        rejected_by.into_iter().flatten().chain(gated_by.into_iter().flatten())
    }
}

/// Pods that wait: those to be tried now, those that back off after a failure, those that wait for
/// a change of the cluster, and those that are gated. Its size is bounded by the number of pods.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    profiles: Arc<Profiles>,
    backoff: Backoff,
}

/// Whether a waiting pod changed in a way that matters. Most of its status does not: the scheduler
/// writes it itself.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    let claims = |info: &PodInfo| {
        info.pod().status.as_ref().and_then(|status| status.resource_claim_statuses.clone())
    };
    old.pod().spec != new.pod().spec
        || old.labels() != new.labels()
        || old.pod().metadata.deletion_timestamp != new.pod().metadata.deletion_timestamp
        || claims(old) != claims(new)
}

/// How many pods wait where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// To be tried now.
    pub active: usize,
    /// Backing off.
    pub backoff: usize,
    /// Waiting for a change.
    pub unschedulable: usize,
    /// Held by a gate.
    pub gated: usize,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({:?})", self.lengths())
    }
}

impl Queue {
    pub(crate) fn new(profiles: Arc<Profiles>, backoff: Backoff) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), profiles, backoff }
    }

    pub(crate) fn lengths(&self) -> QueueLengths {
        let state = self.state.lock();
        let gated = state.entries.values().filter(|entry| entry.place == Place::Gated).count();
        QueueLengths {
            active: state.active.len(),
            backoff: state.backoff.len() + state.penalty.len(),
            unschedulable: state.unschedulable.len(),
            gated,
        }
    }

    /// A pod that has no node, new or changed.
    pub(crate) fn set(&self, info: Arc<PodInfo>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(in_flight) = state.in_flight.get_mut(info.uid()) {
            in_flight.newest = Some(info);
            in_flight.deleted = false;
            return;
        }
        let Some(entry) = state.take(info.uid()) else {
            state.sequence += 1;
            let pod = QueuedPod {
                info,
                since: now,
                arrived: now,
                began: now,
                attempts: 0,
                rejected_by: BTreeSet::new(),
                sequence: state.sequence,
                backoff_until: now,
                penalized: false,
                gated_by: None,
            };
            self.enqueue(&mut state, pod, now);
            return;
        };
        let mut pod = Arc::unwrap_or_clone(entry.pod);
        let old = std::mem::replace(&mut pod.info, info);
        match entry.place {
            Place::Active | Place::Gated => self.enqueue(&mut state, pod, now),
            place @ (Place::Backoff | Place::Penalty) => state.put(pod, place, &self.profiles),
            Place::Unschedulable => {
                if matters(&old, &pod.info) {
                    self.enqueue(&mut state, pod, now);
                } else {
                    state.put(pod, Place::Unschedulable, &self.profiles);
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Puts a pod where it is tried next, unless a gate holds it.
    fn enqueue(&self, state: &mut State, mut pod: QueuedPod, now: Instant) {
        pod.gated_by = self.profiles.gate(&pod.info);
        let place = if pod.gated_by.is_some() {
            Place::Gated
        } else if pod.backoff_until <= now {
            Place::Active
        } else if pod.penalized {
            Place::Penalty
        } else {
            Place::Backoff
        };
        state.put(pod, place, &self.profiles);
        self.changed.notify_one();
    }

    /// A pod that is gone, or got a node.
    pub(crate) fn delete(&self, uid: &str) {
        let mut state = self.state.lock();
        drop(state.take(uid));
        if let Some(in_flight) = state.in_flight.get_mut(uid) {
            in_flight.deleted = true;
        }
    }

    /// The next pod, as soon as there is one. Cancellation-safe. The pod is in flight until
    /// [`Queue::done`] or [`Queue::retry`].
    pub(crate) async fn pop(&self) -> Arc<QueuedPod> {
        loop {
            let notified = self.changed.notified();
            let wake_at = {
                let mut state = self.state.lock();
                self.advance(&mut state, Instant::now());
                if let Some(sorted) = state.active.pop_first() {
                    state.entries.remove(sorted.pod.info.uid());
                    return state.launch(sorted.pod);
                }
                // Nobody else is to be tried: a pod that something may have helped need not wait.
                let first = state.backoff.first().map(|one| one.pod.info.uid().clone());
                if let Some(entry) = first.and_then(|uid| state.take(&uid)) {
                    return state.launch(entry.pod);
                }
                state.next_deadline()
            };
            match wake_at {
                None => notified.await,
                Some(at) => tokio::select! {
                    biased;
                    () = notified => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    /// Moves what has backed off or waited long enough.
    fn advance(&self, state: &mut State, now: Instant) {
        while let Some(uid) = state.first_due(now) {
            let Some(entry) = state.take(&uid) else { return };
            self.enqueue(state, Arc::unwrap_or_clone(entry.pod), now);
        }
    }

    /// A pod of a group that is tried now, wherever it waits: it is in flight as one that
    /// [`Queue::pop`] gave. `None` if it does not wait, or a gate holds it.
    pub(crate) fn take_along(&self, uid: &str) -> Option<Arc<QueuedPod>> {
        let mut state = self.state.lock();
        let entry = state.entries.get(uid)?;
        // What held it may have gone a moment ago.
        if entry.place == Place::Gated && self.profiles.gate(&entry.pod.info).is_some() {
            return None;
        }
        let entry = state.take(uid)?;
        Some(state.launch(entry.pod))
    }

    /// The pod has a node and is on its way there. Should it come back, it is tried again after a
    /// pause: changes need not be kept for it.
    pub(crate) fn placed(&self, uid: &str) {
        let mut state = self.state.lock();
        let since = state.in_flight.get_mut(uid).and_then(|in_flight| in_flight.since.take());
        if let Some(since) = since {
            state.changes.leave(since);
        }
    }

    /// The pod needs no further cycle.
    pub(crate) fn done(&self, uid: &str) {
        drop(self.state.lock().land(uid));
    }

    /// The pod's cycle failed. With `rejected_by` it waits for a change that these plugins say may
    /// help; without (after a fault) it is tried again after a pause.
    pub(crate) fn retry(&self, pod: &QueuedPod, rejected_by: BTreeSet<Arc<str>>) {
        let mut state = self.state.lock();
        let Some(in_flight) = state.in_flight.get(pod.info.uid()) else { return };
        let info = in_flight.newest.clone().unwrap_or_else(|| pod.info.clone());
        let helped = match in_flight.since {
            Some(since) if !rejected_by.is_empty() => state
                .changes
                .since(since)
                .map(|mut changes| changes.any(|one| self.helps(&info, &rejected_by, one))),
            _ => None,
        };
        let gone = state.land(pod.info.uid()).is_none_or(|in_flight| in_flight.deleted);
        if gone || state.entries.contains_key(pod.info.uid()) {
            return;
        }
        let now = Instant::now();
        let changed = matters(&pod.info, &info);
        let pod = QueuedPod {
            info,
            since: now,
            backoff_until: now + self.backoff.after(pod.attempts),
            rejected_by,
            penalized: helped.is_none(),
            ..pod.clone()
        };
        if changed || helped != Some(false) {
            self.enqueue(&mut state, pod, now);
        } else {
            state.put(pod, Place::Unschedulable, &self.profiles);
            self.changed.notify_one();
        }
    }

    fn helps(
        &self,
        info: &PodInfo,
        rejected_by: &BTreeSet<Arc<str>>,
        change: &ClusterChange,
    ) -> bool {
        rejected_by.iter().any(|plugin| self.profiles.hint(info, plugin, change) == Hint::Queue)
    }

    /// Whether a pod that is in flight still exists and waits for a node.
    pub(crate) fn is_wanted(&self, uid: &str) -> bool {
        self.state.lock().in_flight.get(uid).is_some_and(|in_flight| !in_flight.deleted)
    }

    /// Something of this pod's own changed: it is tried again as soon as it may be.
    pub(crate) fn activate(&self, uid: &str) {
        let mut state = self.state.lock();
        if state.entries.get(uid).is_none_or(|entry| entry.place != Place::Unschedulable) {
            return;
        }
        if let Some(entry) = state.take(uid) {
            self.enqueue(&mut state, Arc::unwrap_or_clone(entry.pod), Instant::now());
        }
    }

    /// The cluster changed: whom that may help is tried again.
    pub(crate) fn changed(&self, change: &ClusterChange) {
        if change.actions.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.changes.push(change);
        let mut helped: BTreeSet<(u64, Uid)> = BTreeSet::new();
        for (plugin, rejected) in &state.rejected {
            if !self.profiles.listens(plugin, change) {
                continue;
            }
            let about = self.profiles.about(plugin, change);
            let uids = rejected.concerned(about.as_ref());
            let entries = uids.filter_map(|uid| state.entries.get(uid));
            for pod in entries.map(|entry| &entry.pod) {
                if self.profiles.hint(&pod.info, plugin, change) == Hint::Queue {
                    helped.insert((pod.sequence, pod.info.uid().clone()));
                }
            }
        }
        let now = Instant::now();
        for (_, uid) in helped {
            if let Some(entry) = state.take(&uid) {
                self.enqueue(&mut state, Arc::unwrap_or_clone(entry.pod), now);
            }
        }
    }
}
