//! The index that the memory store is and the durable store has: keys in order with their
//! histories, the log of changes, watchers and leases.

mod answer;
pub(crate) mod draft;
pub(crate) mod index;
pub(crate) mod leases;
mod state;
mod stream;
pub(crate) mod version;
mod watchers;

use std::{sync::Arc, time::Duration};

use imbl::Vector;
use orch_core::Environment;
use parking_lot::{RwLock, RwLockWriteGuard};

pub(crate) use self::state::State;
use self::{
    answer::Source,
    index::Index,
    state::first_after,
    stream::{CatchUp, EngineStream, Position},
    version::Version,
};
use crate::{
    StoreError,
    store::{
        Event, KeyRange, RangeRequest, RangeResponse, Revision, WatchItem, WatchRequest,
        WatchStream, Write,
    },
};

/// So many changes of the past go into one item of a watch.
const REPLAY_BATCH: usize = 1024;

/// So many changes of the past are looked at before others get their turn.
const REPLAY_SCAN: usize = 65_536;

/// How often a change tries to get the lock before its thread sleeps, and how many turns of the
/// processor's pause lie between: some microseconds in all.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: u32 = 8;

/// How watches of an engine behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchOptions {
    pub(crate) buffer: usize,
    pub(crate) progress_interval: Option<Duration>,
}

/// Refuses a write that no store takes.
pub(crate) fn check_write(write: &Write) -> Result<(), StoreError> {
    if write.key.is_empty() {
        return Err(StoreError::Invalid("the key is empty".into()));
    }
    Ok(())
}

/// A state that many read and one changes.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) state: RwLock<State>,
    environment: Environment,
    watch: WatchOptions,
}

/// The whole store as one revision left it, with its history.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) keys: Index,
    history: Vector<Arc<Version>>,
    pub(crate) revision: Revision,
    compacted: Revision,
}

impl Frozen {
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let (current, compacted) = (self.revision, self.compacted);
        let at = state::readable(request.revision, current, compacted)?;
        let source = Source { keys: &self.keys, history: &self.history, current };
        Ok(source.range(request, at))
    }
}

impl Engine {
    pub(crate) fn new(state: State, environment: Environment, watch: WatchOptions) -> Arc<Self> {
        Arc::new(Self { state: RwLock::new(state), environment, watch })
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Takes the lock for a change. Waits actively for a moment first: a change is made in less time
    /// than a thread needs to fall asleep and wake.
    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, State> {
        for _ in 0..LOCK_ATTEMPTS {
            if let Some(state) = self.state.try_write() {
                return state;
            }
            for _ in 0..LOCK_PAUSE {
                std::hint::spin_loop();
            }
        }
        self.state.write()
    }

    /// A store of its own that begins as this one is.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Self::new(self.state.read().fork(), self.environment.clone(), self.watch)
    }

    /// Everything as it is now, in constant time.
    pub(crate) fn freeze(&self) -> Frozen {
        let state = self.state.read();
        Frozen {
            keys: state.keys.clone(),
            history: state.history.clone(),
            revision: state.revision,
            compacted: state.compacted,
        }
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        if request.range.single().is_some() {
            // One key is faster read than a snapshot is taken.
            let state = self.state.read();
            let at = state::readable(request.revision, state.revision, state.compacted)?;
            return Ok(state.source().range(request, at));
        }
        self.freeze().range(request)
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        request: WatchRequest,
    ) -> Result<WatchStream, StoreError> {
        let mut state = self.state.write();
        let next = request.from.filter(|from| *from > 0).unwrap_or(state.revision + 1);
        if next <= state.compacted {
            return Err(StoreError::Compacted { requested: next, compacted: state.compacted });
        }
        let position = if next > state.revision {
            Position::Live(state.watchers.add(&request.range, next, self.watch.buffer))
        } else {
            Position::Behind { progress_requests: state.watchers.progress_requests }
        };
        drop(state);
        Ok(Box::pin(EngineStream::new(self, request.range, next, position)))
    }

    /// One step of a watcher towards the present.
    fn catch_up(
        &self,
        range: &KeyRange,
        next: Revision,
        progress_requests: u64,
    ) -> Result<CatchUp, StoreError> {
        let state = self.state.read();
        if next <= state.compacted {
            return Err(StoreError::Compacted { requested: next, compacted: state.compacted });
        }
        if next <= state.revision {
            // Held for this step only: a slow watcher keeps nothing that a compaction forgets.
            let (history, revision) = (state.history.clone(), state.revision);
            drop(state);
            let start = first_after(&history, next - 1);
            if start == history.len() {
                // Revision 1, which nobody wrote.
                return Ok(CatchUp::Nothing { next: revision + 1, more: false });
            }
            return Ok(replay(&history, start, range));
        }
        drop(state);
        let mut state = self.state.write();
        if next <= state.revision {
            // Something was committed between the two locks.
            return Ok(CatchUp::Nothing { next, more: false });
        }
        let registration = state.watchers.add(range, next, self.watch.buffer);
        let asked = registration.progress_requests != progress_requests;
        let item = asked.then_some(WatchItem::Progress(state.revision));
        Ok(CatchUp::Reached(registration, item))
    }

    /// Forgets a part of the past, so that writers need not wait for all of it; `true` if there
    /// is more.
    pub(crate) fn compact_step(&self, revision: Revision) -> bool {
        let forgotten = self.state.write().compact_step(revision);
        forgotten.more
    }

    pub(crate) fn request_progress(&self) {
        // The write lock orders this after every commit that is visible.
        let state = &mut *self.state.write();
        state.watchers.progress(state.revision);
    }
}

/// The next watched changes of the past, from a position in the history on; a revision is never
/// split.
fn replay(history: &Vector<Arc<Version>>, start: usize, range: &KeyRange) -> CatchUp {
    let mut batch: Vec<Event> = Vec::new();
    let (mut next, mut more) = (0, false);
    for (index, version) in history.focus().narrow(start..).into_iter().enumerate() {
        let revision = version.entry.mod_revision;
        let full = batch.len() >= REPLAY_BATCH || index >= REPLAY_SCAN;
        if full && revision >= next {
            more = true;
            break;
        }
        next = revision + 1;
        if range.contains(&version.entry.key) {
            batch.push(version.event());
        }
    }
    match batch.is_empty() {
        true => CatchUp::Nothing { next, more },
        false => CatchUp::Item(WatchItem::Events(batch.into())),
    }
}
