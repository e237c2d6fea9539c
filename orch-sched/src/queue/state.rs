//! Where each pod of the queue is.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use orch_core::Key;
use tokio::time::Instant;

use super::{
    QueuedPod, UNSCHEDULABLE_MAX, Uid,
    changes::{Changes, Since},
};
use crate::{framework::Profiles, pod_info::PodInfo};

/// An entry of the active queue, ordered by the profile's plugin.
pub(super) struct Sorted {
    pub(super) pod: Arc<QueuedPod>,
    pub(super) profiles: Arc<Profiles>,
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> Ordering {
        let sorted = self.profiles.compare(&self.pod, &other.pod);
        sorted.then(self.pod.sequence.cmp(&other.pod.sequence))
    }
}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sorted {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Active,
    /// For a while, and no longer than others are tried.
    Backoff,
    /// For a while, whatever else there is to do.
    Penalty,
    Unschedulable,
    Gated,
}

pub(super) struct Entry {
    pub(super) pod: Arc<QueuedPod>,
    pub(super) place: Place,
    /// What the pod depends on, for each plugin that rejected it.
    depends: Vec<(Arc<str>, Vec<Key>)>,
}

/// The pods that a plugin rejected.
#[derive(Default)]
pub(super) struct Rejected {
    all: HashSet<Uid>,
    /// Those that depend on something.
    by_dependency: HashMap<Key, HashSet<Uid>>,
}

impl Rejected {
    fn insert(&mut self, uid: &Uid, depends: &[Key]) {
        self.all.insert(uid.clone());
        for key in depends {
            self.by_dependency.entry(key.clone()).or_default().insert(uid.clone());
        }
    }

    fn remove(&mut self, uid: &Uid, depends: &[Key]) {
        self.all.remove(uid);
        for key in depends {
            if let Some(uids) = self.by_dependency.get_mut(key) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.by_dependency.remove(key);
                }
            }
        }
    }

    /// The pods that depend on something; all if that is not said.
    pub(super) fn concerned(&self, about: Option<&Key>) -> impl Iterator<Item = &Uid> {
        let uids = about.map_or(Some(&self.all), |key| self.by_dependency.get(key));
        uids.into_iter().flatten()
    }
}

/// A pod whose cycle runs.
pub(super) struct InFlight {
    /// Since when changes are kept for it; `None` once they need not be.
    pub(super) since: Option<Since>,
    /// The pod's newest state, if it changed meanwhile.
    pub(super) newest: Option<Arc<PodInfo>>,
    pub(super) deleted: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: HashMap<Uid, Entry>,
    pub(super) active: BTreeSet<Sorted>,
    /// Pods that back off in the order of the active queue, which they are the next to be in.
    /// Differs: upstream goes by the second in which each would be tried, and by this order within
    /// it.
    pub(super) backoff: BTreeSet<Sorted>,
    /// The same pods by when they need not wait for others any more.
    backoff_until: BTreeSet<(Instant, u64, Uid)>,
    pub(super) penalty: BTreeSet<(Instant, u64, Uid)>,
    /// Unschedulable pods by when they came there: the first is the next to be flushed.
    pub(super) unschedulable: BTreeSet<(Instant, u64, Uid)>,
    /// Unschedulable and gated pods by the plugins that rejected them, so that a change asks only
    /// those whom it may concern.
    pub(super) rejected: HashMap<Arc<str>, Rejected>,
    pub(super) in_flight: HashMap<Uid, InFlight>,
    pub(super) changes: Changes,
    pub(super) sequence: u64,
}

impl State {
    pub(super) fn put(&mut self, pod: QueuedPod, place: Place, profiles: &Arc<Profiles>) {
        let pod = Arc::new(pod);
        let uid = pod.info.uid().clone();
        match place {
            Place::Active => {
                self.active.insert(Sorted { pod: pod.clone(), profiles: profiles.clone() });
            }
            Place::Backoff => {
                self.backoff.insert(Sorted { pod: pod.clone(), profiles: profiles.clone() });
                self.backoff_until.insert((pod.backoff_until, pod.sequence, uid.clone()));
            }
            Place::Penalty => {
                self.penalty.insert((pod.backoff_until, pod.sequence, uid.clone()));
            }
            Place::Unschedulable => {
                self.unschedulable.insert((pod.since, pod.sequence, uid.clone()));
            }
            Place::Gated => {}
        }
        let depends = pod.waits_for(place).map(|plugin| {
            let depends = profiles.depends_on(&pod.info, plugin);
            self.rejected.entry(plugin.clone()).or_default().insert(&uid, &depends);
            (plugin.clone(), depends)
        });
        let depends = depends.collect();
        self.entries.insert(uid, Entry { pod, place, depends });
    }

    pub(super) fn take(&mut self, uid: &str) -> Option<Entry> {
        let (uid, entry) = self.entries.remove_entry(uid)?;
        let pod = &entry.pod;
        for (plugin, depends) in &entry.depends {
            if let Some(rejected) = self.rejected.get_mut(plugin) {
                rejected.remove(&uid, depends);
                if rejected.all.is_empty() {
                    self.rejected.remove(plugin);
                }
            }
        }
        match entry.place {
            Place::Active => {
                // The profiles are the same for all entries: any of them orders this one.
                if let Some(profiles) = self.active.first().map(|first| first.profiles.clone()) {
                    self.active.remove(&Sorted { pod: pod.clone(), profiles });
                }
            }
            Place::Backoff => {
                if let Some(profiles) = self.backoff.first().map(|first| first.profiles.clone()) {
                    self.backoff.remove(&Sorted { pod: pod.clone(), profiles });
                }
                self.backoff_until.remove(&(pod.backoff_until, pod.sequence, uid));
            }
            Place::Penalty => {
                self.penalty.remove(&(pod.backoff_until, pod.sequence, uid));
            }
            Place::Unschedulable => {
                self.unschedulable.remove(&(pod.since, pod.sequence, uid));
            }
            Place::Gated => {}
        }
        Some(entry)
    }

    /// A pod leaves the queue for its cycle.
    pub(super) fn launch(&mut self, pod: Arc<QueuedPod>) -> Arc<QueuedPod> {
        let in_flight =
            InFlight { since: Some(self.changes.listen()), newest: None, deleted: false };
        self.in_flight.insert(pod.info.uid().clone(), in_flight);
        let mut pod = Arc::unwrap_or_clone(pod);
        pod.attempts += 1;
        pod.began = Instant::now();
        Arc::new(pod)
    }

    /// A pod's cycle has come to its end.
    pub(super) fn land(&mut self, uid: &str) -> Option<InFlight> {
        let in_flight = self.in_flight.remove(uid)?;
        if let Some(since) = in_flight.since {
            self.changes.leave(since);
        }
        Some(in_flight)
    }

    /// A pod that has waited long enough.
    pub(super) fn first_due(&self, now: Instant) -> Option<Uid> {
        let backoff = self.backoff_until.first().filter(|(at, ..)| *at <= now);
        let penalty = self.penalty.first().filter(|(at, ..)| *at <= now);
        let flushed = self.unschedulable.first();
        let flushed = flushed.filter(|(at, ..)| *at + UNSCHEDULABLE_MAX <= now);
        backoff.or(penalty).or(flushed).map(|(.., uid)| uid.clone())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let penalty = self.penalty.first().map(|(at, ..)| *at);
        let flush = self.unschedulable.first().map(|(at, ..)| *at + UNSCHEDULABLE_MAX);
        penalty.into_iter().chain(flush).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_those_who_depend_on_it() {
        let [claim, other, unknown] = ["a", "b", "c"].map(|name| Key::new("default", name));
        let [first, second, third]: [Uid; 3] = ["1", "2", "3"].map(Uid::from);
        let mut rejected = Rejected::default();
        let check = |rejected: &Rejected, about: Option<&Key>, expected: &[&Uid]| {
            let concerned: BTreeSet<&Uid> = rejected.concerned(about).collect();
            assert_eq!(concerned, expected.iter().copied().collect(), "{about:?}");
        };
        rejected.insert(&first, &[claim.clone(), other.clone()]);
        rejected.insert(&second, std::slice::from_ref(&claim));
        rejected.insert(&third, &[]);
        check(&rejected, Some(&claim), &[&first, &second]);
        check(&rejected, Some(&other), &[&first]);
        check(&rejected, Some(&unknown), &[]);
        check(&rejected, None, &[&first, &second, &third]);
        rejected.remove(&first, &[claim.clone(), other.clone()]);
        check(&rejected, Some(&claim), &[&second]);
        rejected.remove(&second, std::slice::from_ref(&claim));
        check(&rejected, None, &[&third]);
        assert!(rejected.by_dependency.is_empty());
    }
}
