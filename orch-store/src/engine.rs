//! The index that the memory store is and the durable store has: keys in order with their
//! histories, the log of changes, watchers and leases.

pub(crate) mod answer;
pub(crate) mod draft;
pub(crate) mod leases;
mod stream;
pub(crate) mod version;
mod watchers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use orch_core::Environment;
use parking_lot::RwLock;

use self::{
    leases::LeaseTable,
    stream::{CatchUp, EngineStream, Position},
    version::Version,
    watchers::Watchers,
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

/// So many changes are forgotten before writers get their turn.
const COMPACTION_STEP: usize = 4096;

/// How watches of an engine behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchOptions {
    pub(crate) buffer: usize,
    pub(crate) progress_interval: Option<Duration>,
}

/// Everything that the lock guards. Both collections are persistent: a reader clones them in
/// constant time and leaves the lock before it looks at a single key.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) keys: OrdMap<Bytes, Arc<Version>>,
    /// Every change after the compaction, in the order of revisions.
    history: Vector<Arc<Version>>,
    watchers: Watchers,
    pub(crate) leases: LeaseTable,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            keys: OrdMap::new(),
            history: Vector::new(),
            watchers: Watchers::default(),
            leases: LeaseTable::default(),
        }
    }
}

/// Refuses a write that no store takes.
pub(crate) fn check_write(write: &Write) -> Result<(), StoreError> {
    if write.key.is_empty() {
        return Err(StoreError::Invalid("the key is empty".into()));
    }
    Ok(())
}

impl State {
    /// Makes the changes of one revision visible and tells the watchers.
    pub(crate) fn commit(&mut self, versions: &[Arc<Version>]) {
        let Some(first) = versions.first() else { return };
        self.revision = first.entry.mod_revision;
        for version in versions {
            let entry = &version.entry;
            let previous = self.keys.insert(entry.key.clone(), version.clone());
            let old_lease = previous.as_ref().and_then(|previous| previous.entry.lease);
            self.leases.attach(&entry.key, old_lease, entry.lease);
            self.history.push_back(version.clone());
        }
        if !self.watchers.is_empty() {
            let events: Vec<Event> = versions.iter().map(|version| version.event()).collect();
            self.watchers.notify(self.revision, &events);
        }
    }

    /// The tombstones that ending a lease makes, as one revision.
    pub(crate) fn revocation(&self, id: i64, revision: Revision) -> Option<Vec<Arc<Version>>> {
        let keys = self.leases.keys(id)?.iter();
        let heads = keys.filter_map(|key| self.keys.get(key)).filter(|head| !head.deleted);
        Some(heads.map(|head| Version::tombstone(revision, head)).collect())
    }

    /// The revision that a read of `requested` is of, in a store that is at `current`.
    pub(crate) fn readable(
        &self,
        requested: Option<Revision>,
        current: Revision,
    ) -> Result<Revision, StoreError> {
        let at = requested.filter(|at| *at > 0).unwrap_or(current);
        if at > current {
            return Err(StoreError::Future { requested: at, current });
        }
        if at < self.compacted {
            return Err(StoreError::Compacted { requested: at, compacted: self.compacted });
        }
        Ok(at)
    }

    /// Whether compacting at `revision` is allowed.
    pub(crate) fn check_compact(&self, revision: Revision) -> Result<(), StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::Future { requested: revision, current: self.revision });
        }
        Ok(())
    }

    /// Forgets the past up to `revision`, as far as this goes in one step; `true` if there is
    /// more to forget. Reads see the whole compaction from the first step on.
    pub(crate) fn compact_step(&mut self, revision: Revision) -> bool {
        // Somebody else may have gone further between two steps.
        self.compacted = self.compacted.max(revision);
        let revision = self.compacted;
        let count = self.first_after(revision);
        let step = count.min(COMPACTION_STEP);
        let newer = self.history.split_off(step);
        let forgotten = std::mem::replace(&mut self.history, newer);
        for version in &forgotten {
            let key = &version.entry.key;
            let Some(head) = self.keys.get(key) else { continue };
            match head.compacted(revision) {
                None => drop(self.keys.remove(key)),
                Some(kept) if Arc::ptr_eq(&kept, head) => {}
                Some(kept) => drop(self.keys.insert(key.clone(), kept)),
            }
        }
        step < count
    }

    /// All steps at once, where nobody waits.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.compact_step(revision) {}
    }

    /// Where in the history the changes after `revision` begin.
    fn first_after(&self, revision: Revision) -> usize {
        first_after(&self.history, revision)
    }
}

fn first_after(history: &Vector<Arc<Version>>, revision: Revision) -> usize {
    let search = history.binary_search_by(|version| {
        // Never equal: this finds the boundary, whatever number of changes a revision has.
        if version.entry.mod_revision <= revision {
            std::cmp::Ordering::Less
        } else {
            std::cmp::Ordering::Greater
        }
    });
    search.unwrap_or_else(|index| index)
}

/// A state that many read and one changes.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) state: RwLock<State>,
    environment: Environment,
    watch: WatchOptions,
}

impl Engine {
    pub(crate) fn new(state: State, environment: Environment, watch: WatchOptions) -> Arc<Self> {
        Arc::new(Self { state: RwLock::new(state), environment, watch })
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let state = self.state.read();
        let current = state.revision;
        let at = state.readable(request.revision, current)?;
        if request.range.single().is_some() {
            // One key is faster read than a snapshot is taken.
            return Ok(answer::range(&state.keys, request, at, current));
        }
        let keys = state.keys.clone();
        drop(state);
        Ok(answer::range(&keys, request, at, current))
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

    /// Forgets the past in steps, so that writers need not wait for all of it.
    pub(crate) fn compact(&self, revision: Revision) {
        while self.state.write().compact_step(revision) {}
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
