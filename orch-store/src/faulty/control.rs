//! Misbehaviour on demand.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::unavailable;
use crate::{StoreError, store::Revision};

/// How a change fails that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With [`StoreError::Unavailable`], before it is done.
    Unavailable,
    /// A guarded write is refused, a transaction with comparisons takes its other branch; what has
    /// neither is not meant and goes on as it is.
    Conflict,
    /// With [`StoreError::Unknown`], and it was done.
    UnknownDone,
    /// With [`StoreError::Unknown`], and it was not done.
    UnknownNotDone,
}

/// How often each fault has struck, by chance or on demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// Calls that found the store unavailable, those refused on demand or during a crash included.
    pub unavailable: u64,
    /// Guards that were taken not to hold.
    pub conflicts: u64,
    /// Changes of unknown outcome that were done.
    pub unknown_done: u64,
    /// Changes of unknown outcome that were not done.
    pub unknown_not_done: u64,
    /// Watches that were ended.
    pub watch_drops: u64,
    /// Watches that stalled by chance.
    pub watch_stalls: u64,
    /// Watches that began earlier than they were asked to.
    pub watch_repeats: u64,
    /// Compactions at the worst moment.
    pub compactions: u64,
    /// Crashes.
    pub crashes: u64,
}

/// What open watches are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// Grows whenever all watches that are open are to end.
    pub(super) generation: u64,
    pub(super) stalled: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing happens by chance.
    spared: bool,
    refusing: bool,
    crashed: bool,
    /// So many calls are served before the crash.
    calls_left: Option<u64>,
    failures: VecDeque<Failure>,
    compact_next: bool,
    repeat_next: Revision,
    signals: Signals,
    struck: Struck,
}

/// What the clones of a faulty store, its watches and its controls share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes watches in the order in which they wait (a tokio `watch` channel does so at random,
    /// and a seed's course would not be the same again).
    signalled: Notify,
}

impl Shared {
    pub(super) fn new(crash_after: Option<u64>) -> Self {
        let state = State { calls_left: crash_after, ..State::default() };
        Self { state: Mutex::new(state), signalled: Notify::new() }
    }

    pub(super) fn signals(&self) -> Signals {
        self.state.lock().signals
    }

    /// Waits until the signals are others than these.
    pub(super) async fn other_signals(&self, known: Signals) {
        loop {
            let mut signalled = pin!(self.signalled.notified());
            signalled.as_mut().enable();
            if self.signals() != known {
                return;
            }
            signalled.await;
        }
    }

    /// Whether nothing happens by chance.
    pub(super) fn spares(&self) -> bool {
        self.state.lock().spared
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut self.state.lock().signals);
        self.signalled.notify_waiters();
    }

    /// Lets a call in, unless the store is down, or goes down before it.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        match &mut state.calls_left {
            Some(0) => {
                state.calls_left = None;
                state.crashed = true;
                state.struck.crashes += 1;
                state.signals.generation += 1;
                self.signalled.notify_waiters();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if !state.crashed && !state.refusing {
            return Ok(());
        }
        state.struck.unavailable += 1;
        Err(unavailable(if state.crashed { "the store has crashed" } else { "refused" }))
    }

    /// How the change that comes next is to fail.
    pub(super) fn next_failure(&self, guarded: bool) -> Option<Failure> {
        let mut state = self.state.lock();
        state.failures.pop_front_if(|failure| guarded || *failure != Failure::Conflict)
    }

    /// Whether a compaction was ordered for this moment.
    pub(super) fn takes_compaction(&self) -> bool {
        std::mem::take(&mut self.state.lock().compact_next)
    }

    /// By how many revisions the watch that comes next is to begin too early.
    pub(super) fn takes_repetition(&self) -> Revision {
        std::mem::take(&mut self.state.lock().repeat_next)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Struck)) {
        count(&mut self.state.lock().struck);
    }
}

/// Makes a [`FaultyStore`](super::FaultyStore) misbehave when a test says so. Cheap to clone;
/// takes effect at once, for every clone of the store.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next change (a write, a transaction, a compaction, a grant, a keep-alive or a
    /// revocation) fails so. Called again, the one after it, too.
    pub fn fail_next(&self, failure: Failure) {
        self.shared.state.lock().failures.push_back(failure);
    }

    /// Nothing happens by chance from now on, or everything again. What is said on demand is not
    /// concerned.
    pub fn spare(&self, spared: bool) {
        self.shared.state.lock().spared = spared;
    }

    /// Every watch that is open ends with [`StoreError::Unavailable`], whether or not it has
    /// something to deliver.
    pub fn drop_watches(&self) {
        self.shared.signal(|signals| signals.generation += 1);
    }

    /// Watches deliver nothing any more, those that are opened later neither, until
    /// [`release_watches`](Self::release_watches). They lose nothing.
    pub fn stall_watches(&self) {
        self.shared.signal(|signals| signals.stalled = true);
    }

    /// Ends what [`stall_watches`](Self::stall_watches) began.
    pub fn release_watches(&self) {
        self.shared.signal(|signals| signals.stalled = false);
    }

    /// The store is compacted at its newest revision right before the next range at an old
    /// revision or watch from one.
    pub fn compact_at_worst_moment(&self) {
        self.shared.state.lock().compact_next = true;
    }

    /// The next watch that is opened at a revision begins so many revisions earlier. This breaks
    /// the contract.
    pub fn repeat_in_next_watch(&self, revisions: Revision) {
        self.shared.state.lock().repeat_next = revisions;
    }

    /// Every call fails with [`StoreError::Unavailable`], until [`accept`](Self::accept). Open
    /// watches go on.
    pub fn refuse(&self) {
        self.shared.state.lock().refusing = true;
    }

    /// Ends what [`refuse`](Self::refuse) began.
    pub fn accept(&self) {
        self.shared.state.lock().refusing = false;
    }

    /// So many more calls are served; at the next one the store is down: every call fails with
    /// [`StoreError::Unavailable`] and every watch has ended, until [`restart`](Self::restart).
    pub fn crash_after(&self, calls: u64) {
        self.shared.state.lock().calls_left = Some(calls);
    }

    /// Whether the store is down.
    pub fn has_crashed(&self) -> bool {
        self.shared.state.lock().crashed
    }

    /// Ends a crash. Nothing that was acknowledged is lost.
    pub fn restart(&self) {
        self.shared.state.lock().crashed = false;
    }

    /// How often each fault has struck.
    pub fn struck(&self) -> Struck {
        self.shared.state.lock().struck
    }
}
