//! The index that the memory store is and the durable store has: keys in order with their
//! histories, the log of changes, watchers and leases.

pub(crate) mod leases;
mod stream;
pub(crate) mod version;
mod watchers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use orch_core::Environment;
use parking_lot::RwLock;

use self::{leases::LeaseTable, stream::EngineStream, version::Version, watchers::Watchers};
use crate::store::{
    Event, KeyRange, Operation, Precondition, RangeRequest, RangeResponse, Revision, StoreError,
    WatchItem, WatchRequest, WatchStream, Write, WriteOutcome,
};

/// So many changes of the past go into one item of a watch.
const REPLAY_BATCH: usize = 1024;

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

/// What a write comes to.
pub(crate) struct Decision {
    pub(crate) outcome: WriteOutcome,
    /// The change to commit; none if nothing changes.
    pub(crate) version: Option<Arc<Version>>,
}

/// Decides a write on a key whose newest version is `head`, in a store at `revision`.
pub(crate) fn decide(
    head: Option<&Arc<Version>>,
    write: Write,
    revision: Revision,
    lease_exists: impl FnOnce(i64) -> bool,
) -> Result<Decision, StoreError> {
    let live = head.and_then(|head| head.live());
    let holds = match write.precondition {
        Precondition::None => true,
        Precondition::Absent => live.is_none(),
        Precondition::ModRevision(expected) => {
            live.map_or(0, |entry| entry.mod_revision) == expected
        }
    };
    if !holds {
        let outcome = WriteOutcome::PreconditionFailed { current: live.cloned(), revision };
        return Ok(Decision { outcome, version: None });
    }
    let version = match write.operation {
        Operation::Put { value, lease } => {
            if let Some(id) = lease
                && !lease_exists(id)
            {
                return Err(StoreError::LeaseNotFound(id));
            }
            Some(Version::put(write.key, value, lease, revision + 1, head))
        }
        Operation::Delete => live.and(head).map(|head| Version::tombstone(revision + 1, head)),
    };
    let revision = version.as_ref().map_or(revision, |version| version.entry.mod_revision);
    let outcome = WriteOutcome::Committed { revision, previous: live.cloned() };
    Ok(Decision { outcome, version })
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
        let at = request.revision.filter(|at| *at > 0).unwrap_or(current);
        if at > current {
            return Err(StoreError::Future { requested: at, current });
        }
        if at < state.compacted {
            return Err(StoreError::Compacted { requested: at, compacted: state.compacted });
        }
        let range = &request.range;
        if *range == KeyRange::key(range.start.clone()) {
            // One key is faster read than a snapshot is taken.
            let entry = state.keys.get(&range.start).and_then(|head| head.at(at));
            let entry = entry.into_iter();
            return Ok(collect(entry, current, request));
        }
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(RangeResponse { revision: current, ..RangeResponse::default() });
        }
        let keys = state.keys.clone();
        drop(state);
        let entries = match &range.end {
            Some(end) => keys.range::<_, Bytes>(&range.start..end),
            None => keys.range::<_, Bytes>(&range.start..),
        };
        Ok(collect(entries.filter_map(|(_, head)| head.at(at)), current, request))
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        request: &WatchRequest,
    ) -> Result<WatchStream, StoreError> {
        let mut state = self.state.write();
        let from = request.from.filter(|from| *from > 0).unwrap_or(state.revision + 1);
        if from <= state.compacted {
            return Err(StoreError::Compacted { requested: from, compacted: state.compacted });
        }
        let registration = state.watchers.add(&request.range, from, self.watch.buffer);
        let past = (from <= state.revision).then(|| state.history.clone());
        drop(state);
        let replay = past.map_or_else(Vec::new, |mut history| {
            let start = first_after(&history, from - 1);
            batches(history.split_off(start).iter(), &request.range)
        });
        Ok(Box::pin(EngineStream::new(self, registration, replay, self.watch.progress_interval)))
    }

    /// Forgets the past in steps, so that writers need not wait for all of it.
    pub(crate) fn compact(&self, revision: Revision) {
        while self.state.write().compact_step(revision) {}
    }

    pub(crate) fn request_progress(&self) {
        // The write lock orders this after every commit that is visible.
        let state = self.state.write();
        state.watchers.progress(state.revision);
    }
}

fn collect<'a>(
    entries: impl Iterator<Item = &'a crate::store::Entry>,
    revision: Revision,
    request: &RangeRequest,
) -> RangeResponse {
    let limit = if request.count_only { 0 } else { request.limit.unwrap_or(usize::MAX) };
    let mut response = RangeResponse { revision, ..RangeResponse::default() };
    for entry in entries {
        if response.count < limit {
            response.entries.push(entry.clone());
        }
        response.count += 1;
    }
    response.more = !request.count_only && response.count > response.entries.len();
    response
}

/// The watched changes of the past as items, a revision never split.
fn batches<'a>(
    history: impl Iterator<Item = &'a Arc<Version>>,
    range: &KeyRange,
) -> Vec<WatchItem> {
    let mut items = Vec::new();
    let mut batch: Vec<Event> = Vec::new();
    for version in history.filter(|version| range.contains(&version.entry.key)) {
        let next = version.entry.mod_revision;
        let starts = batch.last().is_some_and(|event| event.entry.mod_revision != next);
        if batch.len() >= REPLAY_BATCH && starts {
            items.push(WatchItem::Events(std::mem::take(&mut batch).into()));
        }
        batch.push(version.event());
    }
    if !batch.is_empty() {
        items.push(WatchItem::Events(batch.into()));
    }
    items
}
