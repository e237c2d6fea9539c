//! Pods that wait to be scheduled.
//!
//! Source: `pkg/scheduler/backend/queue`.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    event::{ClusterChange, Hint},
    framework::Profiles,
    pod_info::PodInfo,
};

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
/// Changes that are kept for a pod while its cycle runs. Past that it is tried again without
/// asking whether they help.
const IN_FLIGHT_CHANGES_MAX: usize = 1000;

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
}

/// An entry of the active queue, ordered by the profile's plugin.
struct Sorted {
    pod: Arc<QueuedPod>,
    profiles: Arc<Profiles>,
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
enum Place {
    Active,
    Backoff,
    Unschedulable,
    Gated,
}

struct Entry {
    pod: Arc<QueuedPod>,
    place: Place,
}

#[derive(Default)]
struct InFlight {
    changes: Vec<ClusterChange>,
    overflowed: bool,
    /// The pod's newest state, if it changed meanwhile.
    newest: Option<Arc<PodInfo>>,
    deleted: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<Uid, Entry>,
    active: BTreeSet<Sorted>,
    backoff: BTreeSet<(Instant, u64, Uid)>,
    /// Unschedulable pods by when they came there: the first is the next to be flushed.
    unschedulable: BTreeSet<(Instant, u64, Uid)>,
    /// Unschedulable pods by the plugins that rejected them, so that a change asks only those whom
    /// it may concern.
    rejected: HashMap<Arc<str>, HashSet<Uid>>,
    /// Gated pods by the plugins that gate them, as far as these want to hear of changes.
    gated: HashMap<Arc<str>, HashSet<Uid>>,
    in_flight: HashMap<Uid, InFlight>,
    sequence: u64,
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
            backoff: state.backoff.len(),
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
            };
            self.enqueue(&mut state, pod, now);
            return;
        };
        let mut pod = Arc::unwrap_or_clone(entry.pod);
        let old = std::mem::replace(&mut pod.info, info);
        match entry.place {
            Place::Active | Place::Gated => self.enqueue(&mut state, pod, now),
            Place::Backoff => state.put(pod, Place::Backoff, &self.profiles),
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
    fn enqueue(&self, state: &mut State, pod: QueuedPod, now: Instant) {
        let place = if let Some(gate) = self.profiles.gate(&pod.info) {
            if gate.events.is_some() {
                let uids = state.gated.entry(gate.name.clone()).or_default();
                uids.insert(pod.info.uid().clone());
            }
            Place::Gated
        } else if pod.backoff_until > now {
            Place::Backoff
        } else {
            Place::Active
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
                    let uid = sorted.pod.info.uid().clone();
                    state.entries.remove(&uid);
                    state.in_flight.insert(uid, InFlight::default());
                    let mut pod = Arc::unwrap_or_clone(sorted.pod);
                    pod.attempts += 1;
                    pod.began = Instant::now();
                    return Arc::new(pod);
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
        while state.backoff.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((.., uid)) = state.backoff.first().cloned() else { return };
            let Some(entry) = state.take(&uid) else { return };
            self.enqueue(state, Arc::unwrap_or_clone(entry.pod), now);
        }
        while state.unschedulable.first().is_some_and(|(at, ..)| *at + UNSCHEDULABLE_MAX <= now) {
            let Some((.., uid)) = state.unschedulable.first().cloned() else { return };
            let Some(entry) = state.take(&uid) else { return };
            self.enqueue(state, Arc::unwrap_or_clone(entry.pod), now);
        }
    }

    /// The pod has a node and is on its way there. Should it come back, it is tried again after a
    /// pause: changes need not be kept for it.
    pub(crate) fn placed(&self, uid: &str) {
        if let Some(in_flight) = self.state.lock().in_flight.get_mut(uid) {
            in_flight.overflowed = true;
            in_flight.changes = Vec::new();
        }
    }

    /// The pod needs no further cycle.
    pub(crate) fn done(&self, uid: &str) {
        self.state.lock().in_flight.remove(uid);
    }

    /// The pod's cycle failed. With `rejected_by` it waits for a change that these plugins say may
    /// help; without (after a fault) it is tried again after a pause.
    pub(crate) fn retry(&self, pod: &QueuedPod, rejected_by: BTreeSet<Arc<str>>) {
        let mut state = self.state.lock();
        let Some(in_flight) = state.in_flight.remove(pod.info.uid()) else { return };
        if in_flight.deleted || state.entries.contains_key(pod.info.uid()) {
            return;
        }
        let now = Instant::now();
        let changed = in_flight.newest.as_ref().is_some_and(|newest| matters(&pod.info, newest));
        let info = in_flight.newest.clone().unwrap_or_else(|| pod.info.clone());
        let helped = in_flight.overflowed
            || changed
            || rejected_by.is_empty()
            || in_flight.changes.iter().any(|change| self.helps(&info, &rejected_by, change));
        let pod = QueuedPod {
            info,
            since: now,
            backoff_until: now + self.backoff.after(pod.attempts),
            rejected_by,
            ..pod.clone()
        };
        if helped {
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
        for in_flight in state.in_flight.values_mut().filter(|pod| !pod.overflowed) {
            if in_flight.changes.len() < IN_FLIGHT_CHANGES_MAX {
                in_flight.changes.push(change.clone());
            } else {
                in_flight.overflowed = true;
                in_flight.changes = Vec::new();
            }
        }
        if state.unschedulable.is_empty() && state.gated.is_empty() {
            return;
        }
        let mut helped: BTreeSet<(u64, Uid)> = BTreeSet::new();
        for (plugin, uids) in state.rejected.iter().chain(&state.gated) {
            if !self.profiles.listens(plugin, change) {
                continue;
            }
            let entries = uids.iter().filter_map(|uid| state.entries.get(uid));
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

impl State {
    fn put(&mut self, pod: QueuedPod, place: Place, profiles: &Arc<Profiles>) {
        let pod = Arc::new(pod);
        let uid = pod.info.uid().clone();
        match place {
            Place::Active => {
                self.active.insert(Sorted { pod: pod.clone(), profiles: profiles.clone() });
            }
            Place::Backoff => {
                self.backoff.insert((pod.backoff_until, pod.sequence, uid.clone()));
            }
            Place::Unschedulable => {
                self.unschedulable.insert((pod.since, pod.sequence, uid.clone()));
                for plugin in &pod.rejected_by {
                    self.rejected.entry(plugin.clone()).or_default().insert(uid.clone());
                }
            }
            Place::Gated => {}
        }
        self.entries.insert(uid, Entry { pod, place });
    }

    fn take(&mut self, uid: &str) -> Option<Entry> {
        let (uid, entry) = self.entries.remove_entry(uid)?;
        let pod = &entry.pod;
        match entry.place {
            Place::Active => {
                // The profiles are the same for all entries: any of them orders this one.
                if let Some(profiles) = self.active.first().map(|first| first.profiles.clone()) {
                    self.active.remove(&Sorted { pod: pod.clone(), profiles });
                }
            }
            Place::Backoff => {
                self.backoff.remove(&(pod.backoff_until, pod.sequence, uid));
            }
            Place::Unschedulable => {
                for plugin in &pod.rejected_by {
                    if let Some(uids) = self.rejected.get_mut(plugin) {
                        uids.remove(&uid);
                        if uids.is_empty() {
                            self.rejected.remove(plugin);
                        }
                    }
                }
                self.unschedulable.remove(&(pod.since, pod.sequence, uid));
            }
            Place::Gated => self.gated.retain(|_, uids| {
                uids.remove(&uid);
                !uids.is_empty()
            }),
        }
        Some(entry)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(at, ..)| *at);
        let flush = self.unschedulable.first().map(|(at, ..)| *at + UNSCHEDULABLE_MAX);
        backoff.into_iter().chain(flush).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        event::{Actions, EventResource},
        framework::Profiles,
    };

    fn queue() -> Queue {
        Queue::new(Arc::new(Profiles::for_tests()), Backoff::default())
    }

    fn pod(name: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
        let gates = if gated { json!([{"name": "wait"}]) } else { json!([]) };
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name},
                         "spec": {"priority": priority, "schedulingGates": gates, "containers": []}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    async fn pop(queue: &Queue) -> Option<Arc<QueuedPod>> {
        tokio::time::timeout(Duration::from_millis(10), queue.pop()).await.ok()
    }

    async fn pop_name(queue: &Queue) -> Option<String> {
        Some(pop(queue).await?.info.key().name.clone())
    }

    fn by(plugin: &str) -> BTreeSet<Arc<str>> {
        BTreeSet::from([plugin.into()])
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_goes_first_then_who_came_first() {
        let queue = queue();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.set(pod(name, priority, false));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        queue.delete("d");
        let mut order = Vec::new();
        while let Some(name) = pop_name(&queue).await {
            order.push(name);
        }
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_from_one_second_to_ten() {
        let queue = queue();
        queue.set(pod("a", 0, false));
        for seconds in [1, 2, 4, 8, 10, 10] {
            let pod = queue.pop().await;
            let failed = Instant::now();
            queue.retry(&pod, BTreeSet::new());
            let again = queue.pop().await;
            assert_eq!(failed.elapsed().as_secs(), seconds);
            // Put it back as if it had never been popped a second time.
            let again = QueuedPod { attempts: again.attempts - 1, ..(*again).clone() };
            queue.done("a");
            let mut state = queue.state.lock();
            state.put(again, Place::Active, &queue.profiles);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unschedulable_pods_wait_for_a_change_that_helps() {
        let queue = queue();
        queue.set(pod("a", 0, false));
        let popped = queue.pop().await;
        queue.retry(&popped, by("NodeResourcesFit"));
        assert_eq!(queue.lengths().unschedulable, 1);
        tokio::time::advance(Duration::from_secs(20)).await;
        queue.changed(&ClusterChange::of(EventResource::StorageClass, Actions::ADD));
        assert_eq!(pop_name(&queue).await, None, "a change that does not concern the plugin");
        queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
        assert_eq!(pop_name(&queue).await.as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_cycle_is_not_lost() {
        let queue = queue();
        queue.set(pod("a", 0, false));
        let popped = queue.pop().await;
        queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
        queue.retry(&popped, by("NodeResourcesFit"));
        let lengths = queue.lengths();
        assert_eq!((lengths.backoff, lengths.unschedulable), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_forgotten() {
        let queue = queue();
        queue.set(pod("a", 0, false));
        let popped = queue.pop().await;
        queue.retry(&popped, by("NodeResourcesFit"));
        let start = Instant::now();
        queue.pop().await;
        assert_eq!(start.elapsed().as_secs(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn gated_pods_wait_for_their_gates() {
        let queue = queue();
        queue.set(pod("a", 0, true));
        assert_eq!((pop_name(&queue).await, queue.lengths().gated), (None, 1));
        queue.set(pod("a", 0, false));
        assert_eq!(pop_name(&queue).await.as_deref(), Some("a"));
        queue.delete("a");
        queue.retry(&popped_of("a"), BTreeSet::new());
        assert_eq!(queue.lengths(), QueueLengths::default(), "deleted in flight");
    }

    fn popped_of(name: &str) -> QueuedPod {
        QueuedPod {
            info: pod(name, 0, false),
            since: Instant::now(),
            arrived: Instant::now(),
            began: Instant::now(),
            attempts: 1,
            rejected_by: BTreeSet::new(),
            sequence: 0,
            backoff_until: Instant::now(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize),
        Delete(usize),
        Pop,
        Reject(usize),
        Fault(usize),
        Done(usize),
        Change,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pods = 0..6usize;
        let step = prop_oneof![
            pods.clone().prop_map(Step::Set),
            pods.clone().prop_map(Step::Delete),
            Just(Step::Pop),
            pods.clone().prop_map(Step::Reject),
            pods.clone().prop_map(Step::Fault),
            pods.prop_map(Step::Done),
            Just(Step::Change),
            (0..400u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// Carries out the steps and gives the pods that must still come out, and those that do.
    async fn run(steps: Vec<Step>) -> (BTreeSet<String>, BTreeSet<String>) {
        let queue = queue();
        let (mut expected, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        let mut flying: HashMap<String, Arc<QueuedPod>> = HashMap::new();
        for step in steps {
            match step {
                Step::Set(n) => {
                    let name = n.to_string();
                    if !flying.contains_key(&name) {
                        expected.insert(name.clone());
                    }
                    deleted.remove(&name);
                    queue.set(pod(&name, (n % 3) as i32, false));
                }
                Step::Delete(n) => {
                    queue.delete(&n.to_string());
                    expected.remove(&n.to_string());
                    deleted.insert(n.to_string());
                }
                Step::Pop => {
                    if let Some(popped) = pop(&queue).await {
                        let name = popped.info.key().name.clone();
                        assert!(expected.remove(&name), "{name} came out without being in");
                        flying.insert(name, popped);
                    }
                }
                Step::Reject(n) | Step::Fault(n) => {
                    let rejected = matches!(step, Step::Reject(_));
                    if let Some(popped) = flying.remove(&n.to_string()) {
                        let by = if rejected { by("NodeResourcesFit") } else { BTreeSet::new() };
                        queue.retry(&popped, by);
                        if !deleted.contains(&n.to_string()) {
                            expected.insert(n.to_string());
                        }
                    }
                }
                Step::Done(n) => {
                    if flying.remove(&n.to_string()).is_some() {
                        queue.done(&n.to_string());
                    }
                }
                Step::Change => {
                    let change = ClusterChange::of(EventResource::AssignedPod, Actions::DELETE);
                    queue.changed(&change);
                }
                Step::Wait(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
            }
        }
        tokio::time::advance(UNSCHEDULABLE_MAX + Backoff::default().max).await;
        let mut out = BTreeSet::new();
        while let Some(name) = pop_name(&queue).await {
            out.insert(name);
        }
        (expected, out)
    }

    proptest! {
        #[test]
        fn no_pod_is_lost_and_none_comes_out_twice(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let (expected, out) = runtime.block_on(run(steps));
            prop_assert_eq!(expected, out);
        }
    }
}
