//! The work queue between what changes and who reconciles it.
//!
//! Source: `k8s.io/client-go/util/workqueue`.

mod limits;
mod metrics;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use limits::RateLimits;
pub use metrics::{IgnoreMetrics, QueueMetrics};
use orch_core::Key;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use limits::Limiter;

/// What may be queued.
pub trait QueueItem: Clone + Eq + Hash + Send + Sync + fmt::Debug + 'static {}

impl<T: Clone + Eq + Hash + Send + Sync + fmt::Debug + 'static> QueueItem for T {}

/// A queue of distinct items, first in, first out.
///
/// - An item that is queued already is not queued twice.
/// - An item that somebody works on is queued again only when that work is done, so that no two
///   workers ever hold the same one.
/// - Items can be added later ([`WorkQueue::add_after`]) and with a back-off per item and an
///   overall rate ([`WorkQueue::add_rate_limited`]). Of several delayed adds the earliest counts.
///
/// It holds at most every distinct item three times (waiting, delayed, in work): its memory is
/// bounded by the number of objects, not of changes. Cheap to clone.
pub struct WorkQueue<T = Key> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Notify,
    metrics: OnceLock<Arc<dyn QueueMetrics>>,
}

impl<T> Shared<T> {
    fn metrics(&self) -> &dyn QueueMetrics {
        self.metrics.get().map_or(&IgnoreMetrics, |metrics| &**metrics)
    }
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Queued, or to be queued once the work on it is done; since when.
    dirty: HashMap<T, Instant>,
    /// Since when.
    in_work: HashMap<T, Instant>,
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_until: HashMap<T, (Instant, u64)>,
    sequence: u64,
    limiter: Limiter<T>,
    closed: bool,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("WorkQueue")
            .field("waiting", &state.waiting.len())
            .field("delayed", &state.delayed.len())
            .field("in_work", &state.in_work.len())
            .finish()
    }
}

impl<T: QueueItem> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new(RateLimits::default())
    }
}

impl<T: QueueItem> WorkQueue<T> {
    /// An empty queue that tells `metrics` what happens.
    pub fn measured(limits: RateLimits, metrics: Arc<dyn QueueMetrics>) -> Self {
        let queue = Self::new(limits);
        queue.measure(metrics);
        queue
    }

    /// Tells `metrics` what happens from now on, unless somebody is told already. Gives whether it
    /// does.
    pub fn measure(&self, metrics: Arc<dyn QueueMetrics>) -> bool {
        self.shared.metrics.set(metrics).is_ok()
    }

    /// How long the items that are in work have been so: all together, and the longest.
    pub fn under_way(&self) -> (Duration, Duration) {
        let state = self.shared.state.lock();
        let mut times = (Duration::ZERO, Duration::ZERO);
        for worked in state.in_work.values().map(Instant::elapsed) {
            times = (times.0 + worked, times.1.max(worked));
        }
        times
    }

    /// An empty queue that measures nothing.
    pub fn new(limits: RateLimits) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            dirty: HashMap::new(),
            in_work: HashMap::new(),
            delayed: BTreeMap::new(),
            delayed_until: HashMap::new(),
            sequence: 0,
            limiter: Limiter::new(limits),
            closed: false,
        };
        let shared =
            Shared { state: Mutex::new(state), ready: Notify::new(), metrics: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues an item now.
    pub fn add(&self, item: T) {
        let mut state = self.shared.state.lock();
        if state.add(item, Instant::now()) {
            self.shared.metrics().added(state.waiting.len());
            drop(state);
            self.shared.ready.notify_one();
        }
    }

    /// Queues an item once `delay` has passed. If it is to be queued earlier already, that stays.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let mut state = self.shared.state.lock();
        state.add_at(item, Instant::now() + delay);
        drop(state);
        self.shared.ready.notify_one();
    }

    /// Queues an item after its back-off, and when the overall rate allows.
    pub fn add_rate_limited(&self, item: T) {
        let delay = self.shared.state.lock().limiter.delay(&item, Instant::now());
        self.shared.metrics().retried();
        self.add_after(item, delay);
    }

    /// Resets the back-off of an item.
    pub fn forget(&self, item: &T) {
        self.shared.state.lock().limiter.forget(item);
    }

    /// How often an item was added with back-off since it was last forgotten.
    pub fn retries(&self, item: &T) -> u32 {
        self.shared.state.lock().limiter.retries(item)
    }

    /// How many items wait, without those that are delayed or in work.
    pub fn len(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits, is delayed or is in work.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.waiting.is_empty() && state.delayed.is_empty() && state.in_work.is_empty()
    }

    /// Takes nothing in any more and lets [`WorkQueue::get`] end.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.ready.notify_waiters();
        // Stored for a worker that is between its look at the queue and its wait.
        self.shared.ready.notify_one();
    }

    /// The next item, or `None` once the queue is closed. Dropping the future loses nothing.
    pub async fn get(&self) -> Option<Work<T>> {
        loop {
            let ready = self.shared.ready.notified();
            tokio::pin!(ready);
            // Registers before looking, so that no addition in between goes unnoticed.
            ready.as_mut().enable();
            let next_delayed = match self.take() {
                Taken::Item(work) => return Some(work),
                Taken::Closed => {
                    self.shared.ready.notify_one();
                    return None;
                }
                Taken::Nothing { next_delayed } => next_delayed,
            };
            match next_delayed {
                None => ready.await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = ready => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    fn take(&self) -> Taken<T> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Taken::Closed;
        }
        let now = Instant::now();
        state.promote(now);
        let Some(item) = state.waiting.pop_front() else {
            let next_delayed = state.delayed.keys().next().map(|(at, _)| *at);
            return Taken::Nothing { next_delayed };
        };
        let since = state.dirty.remove(&item).unwrap_or(now);
        state.in_work.insert(item.clone(), now);
        let depth = state.waiting.len();
        // This worker is busy from here on: another must look after what is left.
        let more = depth > 0 || !state.delayed.is_empty();
        drop(state);
        if more {
            self.shared.ready.notify_one();
        }
        self.shared.metrics().taken(depth, now.saturating_duration_since(since));
        Taken::Item(Work { item, started: now, queue: self.clone() })
    }

    fn done(&self, item: &T, started: Instant) {
        let mut state = self.shared.state.lock();
        state.in_work.remove(item);
        let again = state.dirty.contains_key(item);
        if again {
            state.waiting.push_back(item.clone());
        }
        drop(state);
        if again {
            self.shared.ready.notify_one();
        }
        self.shared.metrics().finished(started.elapsed());
    }
}

enum Taken<T: QueueItem> {
    Item(Work<T>),
    Nothing { next_delayed: Option<Instant> },
    Closed,
}

impl<T: QueueItem> State<T> {
    /// Whether the item newly waits.
    fn add(&mut self, item: T, now: Instant) -> bool {
        if self.closed || self.dirty.contains_key(&item) {
            return false;
        }
        self.dirty.insert(item.clone(), now);
        if self.in_work.contains_key(&item) {
            return false;
        }
        self.waiting.push_back(item);
        true
    }

    fn add_at(&mut self, item: T, at: Instant) {
        if self.closed {
            return;
        }
        if let Some(known) = self.delayed_until.get(&item) {
            if known.0 <= at {
                return;
            }
            let known = *known;
            self.delayed.remove(&known);
        }
        self.sequence += 1;
        let position = (at, self.sequence);
        self.delayed_until.insert(item.clone(), position);
        self.delayed.insert(position, item);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let item = entry.remove();
            self.delayed_until.remove(&item);
            self.add(item, now);
        }
    }
}

/// An item in work. Nobody else gets the same item until this is dropped.
pub struct Work<T: QueueItem = Key> {
    item: T,
    started: Instant,
    queue: WorkQueue<T>,
}

impl<T: QueueItem> Work<T> {
    /// The item.
    pub fn item(&self) -> &T {
        &self.item
    }
}

impl<T: QueueItem> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({:?})", self.item)
    }
}

impl<T: QueueItem> Drop for Work<T> {
    fn drop(&mut self) {
        self.queue.done(&self.item, self.started);
    }
}
