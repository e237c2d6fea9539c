//! What a store holds, and how it changes.

use std::sync::Arc;

use imbl::Vector;

use super::{
    answer::Source, index::Index, leases::LeaseTable, version::Version, watchers::Watchers,
};
use crate::{StoreError, store::Revision};

/// So many changes are forgotten before others get their turn.
const COMPACTION_STEP: usize = 256;

/// Everything that the lock guards. The collections are persistent: a reader clones them in
/// constant time and leaves the lock before it looks at a single key.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) keys: Index,
    /// Every change after the compaction, in the order of revisions.
    pub(super) history: Vector<Arc<Version>>,
    pub(super) watchers: Watchers,
    pub(crate) leases: LeaseTable,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            keys: Index::default(),
            history: Vector::new(),
            watchers: Watchers::default(),
            leases: LeaseTable::default(),
        }
    }
}

/// Where in a history the changes after `revision` begin.
pub(super) fn first_after(history: &Vector<Arc<Version>>, revision: Revision) -> usize {
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

/// The revision that a read of `requested` is of, in a store that is at `current`.
pub(super) fn readable(
    requested: Option<Revision>,
    current: Revision,
    compacted: Revision,
) -> Result<Revision, StoreError> {
    let at = requested.filter(|at| *at > 0).unwrap_or(current);
    if at > current {
        return Err(StoreError::Future { requested: at, current });
    }
    if at < compacted {
        return Err(StoreError::Compacted { requested: at, compacted });
    }
    Ok(at)
}

impl State {
    /// What ranges are read from.
    pub(super) fn source(&self) -> Source<'_> {
        Source { keys: &self.keys, history: &self.history, current: self.revision }
    }

    /// Makes the changes of one revision visible and tells the watchers.
    pub(crate) fn commit(&mut self, versions: &[Arc<Version>]) {
        let Some(first) = versions.first() else { return };
        self.revision = first.entry.mod_revision;
        for version in versions {
            let previous = self.keys.insert(version.clone());
            let old_lease = previous.as_ref().and_then(|previous| previous.entry.lease);
            self.leases.attach(&version.entry.key, old_lease, version.entry.lease);
            self.history.push_back(version.clone());
        }
        if !self.watchers.is_empty() {
            self.watchers.notify(self.revision, versions);
        }
    }

    /// The tombstones that ending a lease makes, as one revision.
    pub(crate) fn revocation(&self, id: i64, revision: Revision) -> Option<Vec<Arc<Version>>> {
        let keys = self.leases.keys(id)?.iter();
        let heads = keys.filter_map(|key| self.keys.get(key)).filter(|head| !head.deleted);
        Some(heads.map(|head| Version::tombstone(revision, head)).collect())
    }

    /// Ends a lease and deletes its keys, as one revision; `false` if there was no such lease.
    pub(crate) fn end_lease(&mut self, id: i64) -> bool {
        let Some(deletions) = self.revocation(id, self.revision + 1) else { return false };
        self.commit(&deletions);
        self.leases.remove(id);
        true
    }

    /// The same store with a future of its own, in constant time. Nobody watches it yet.
    pub(crate) fn fork(&self) -> Self {
        Self {
            revision: self.revision,
            compacted: self.compacted,
            keys: self.keys.clone(),
            history: self.history.clone(),
            watchers: Watchers::default(),
            leases: self.leases.clone(),
        }
    }

    /// Takes back what came after `revision`, which can be read; the work is that of the changes
    /// since. Leases stay as they are.
    pub(crate) fn rewind(&mut self, revision: Revision) {
        let undone = self.history.split_off(first_after(&self.history, revision));
        for version in undone.iter().rev() {
            let entry = &version.entry;
            let older = version.older();
            self.leases.attach(&entry.key, entry.lease, older.and_then(|older| older.entry.lease));
            match older {
                Some(older) => drop(self.keys.insert(older.clone())),
                None => drop(self.keys.remove(&entry.key)),
            }
        }
        self.revision = revision;
    }

    /// Whether `revision` can be read.
    pub(crate) fn check_readable(&self, revision: Revision) -> Result<(), StoreError> {
        readable(Some(revision), self.revision, self.compacted).map(drop)
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

    /// Forgets the past up to `revision`, as far as this goes in one step. Reads see the whole
    /// compaction from the first step on.
    pub(crate) fn compact_step(&mut self, revision: Revision) -> Forgotten {
        // Somebody else may have gone further between two steps.
        self.compacted = self.compacted.max(revision);
        let revision = self.compacted;
        let count = first_after(&self.history, revision);
        let step = count.min(COMPACTION_STEP);
        let newer = self.history.split_off(step);
        let changes = std::mem::replace(&mut self.history, newer);
        let mut heads = Vec::new();
        for version in &changes {
            let key = &version.entry.key;
            let Some(head) = self.keys.get(key) else { continue };
            match head.compacted(revision) {
                None => heads.extend(self.keys.remove(key)),
                Some(kept) if Arc::ptr_eq(&kept, head) => {}
                Some(kept) => {
                    self.replace_in_history(&kept, revision);
                    heads.extend(self.keys.insert(kept));
                }
            }
        }
        Forgotten { more: step < count, _changes: changes, _heads: heads }
    }

    /// Puts the versions of a chain that was made anew into the place of the old ones, which
    /// would keep alive what was forgotten.
    fn replace_in_history(&mut self, head: &Arc<Version>, compacted: Revision) {
        let mut version = Some(head);
        while let Some(kept) = version.filter(|kept| kept.entry.mod_revision > compacted) {
            let revision = kept.entry.mod_revision;
            let mut index = first_after(&self.history, revision - 1);
            while let Some(old) = self.history.get(index)
                && old.entry.mod_revision == revision
            {
                if old.entry.key == kept.entry.key {
                    self.history.set(index, kept.clone());
                    break;
                }
                index += 1;
            }
            version = kept.older();
        }
    }

    /// All steps at once, where nobody waits.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.compact_step(revision).more {}
    }
}

/// What a step of a compaction took out, to be dropped when the lock is free.
#[must_use]
pub(crate) struct Forgotten {
    /// Whether there is more to forget.
    pub(crate) more: bool,
    _changes: Vector<Arc<Version>>,
    _heads: Vec<Arc<Version>>,
}
