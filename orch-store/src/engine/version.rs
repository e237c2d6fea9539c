//! One key's history: a chain of immutable versions, newest first.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Entry, Event, EventKind, LeaseId, Revision};

/// A key as one revision left it, linked to what was there before.
///
/// Nodes never change, so a reader that holds a map of heads holds a consistent snapshot of every
/// revision up to then, whatever is written or compacted meanwhile.
#[derive(Debug)]
pub(crate) struct Version {
    /// The entry; for a tombstone the key and the revision of the deletion.
    pub(crate) entry: Entry,
    /// Whether this is a tombstone.
    pub(crate) deleted: bool,
    older: Option<Arc<Version>>,
}

impl Version {
    /// The version that a put at `revision` puts before `head`.
    pub(crate) fn put(
        key: Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
        revision: Revision,
        head: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let live = head.and_then(|head| head.live());
        let entry = Entry {
            key: live.map_or(key, |entry| entry.key.clone()),
            value,
            create_revision: live.map_or(revision, |entry| entry.create_revision),
            mod_revision: revision,
            version: live.map_or(1, |entry| entry.version + 1),
            lease,
        };
        Arc::new(Self { entry, deleted: false, older: head.cloned() })
    }

    /// The tombstone that a deletion at `revision` puts before `head`.
    pub(crate) fn tombstone(revision: Revision, head: &Arc<Self>) -> Arc<Self> {
        let entry = Entry {
            key: head.entry.key.clone(),
            value: Bytes::new(),
            create_revision: 0,
            mod_revision: revision,
            version: 0,
            lease: None,
        };
        Arc::new(Self { entry, deleted: true, older: Some(head.clone()) })
    }

    /// A version read back from disk, without history.
    pub(crate) fn restored(entry: Entry) -> Arc<Self> {
        Arc::new(Self { entry, deleted: false, older: None })
    }

    /// The entry, unless this is a tombstone.
    pub(crate) fn live(&self) -> Option<&Entry> {
        (!self.deleted).then_some(&self.entry)
    }

    /// The live entry as it was at `revision`.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Entry> {
        let mut version = self;
        while version.entry.mod_revision > revision {
            version = version.older.as_deref()?;
        }
        version.live()
    }

    /// The version before, unless there is none or it is forgotten.
    pub(crate) fn older(&self) -> Option<&Arc<Self>> {
        self.older.as_ref()
    }

    /// The live entry that this version replaced.
    pub(crate) fn previous(&self) -> Option<&Entry> {
        self.older.as_ref().and_then(|older| older.live())
    }

    /// The revision of the version before, or 0 where there is none or it is forgotten.
    pub(crate) fn older_revision(&self) -> Revision {
        self.older.as_ref().map_or(0, |older| older.entry.mod_revision)
    }

    /// The change that made this version.
    pub(crate) fn event(&self) -> Event {
        Event {
            kind: if self.deleted { EventKind::Delete } else { EventKind::Put },
            entry: self.entry.clone(),
            previous: self.previous().cloned(),
        }
    }

    /// The chain without what compacting at `revision` forgets; `None` where nothing is left.
    /// Gives back the same node where there is nothing to forget.
    pub(crate) fn compacted(self: &Arc<Self>, revision: Revision) -> Option<Arc<Self>> {
        let mut newer = Vec::new();
        let mut version = self;
        while version.entry.mod_revision > revision {
            newer.push(version);
            match &version.older {
                Some(older) => version = older,
                None => return Some(self.clone()),
            }
        }
        let base = match (version.deleted, &version.older) {
            (true, _) => None,
            (false, None) => return Some(self.clone()),
            (false, Some(_)) => Some(Self::restored(version.entry.clone())),
        };
        newer.into_iter().rev().fold(base, |older, version| {
            let entry = version.entry.clone();
            Some(Arc::new(Self { entry, deleted: version.deleted, older }))
        })
    }
}

impl Drop for Version {
    /// Takes a long chain apart node by node: the derived drop would recurse once per version.
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut version) = next.and_then(Arc::into_inner) {
            next = version.older.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(revisions: std::ops::RangeInclusive<Revision>) -> Arc<Version> {
        let mut head = None;
        for revision in revisions {
            head = Some(Version::put("k".into(), "v".into(), None, revision, head.as_ref()));
        }
        head.unwrap()
    }

    #[test]
    fn compaction_keeps_what_can_still_be_read() {
        let head = chain(2..=6).compacted(4).unwrap();
        assert_eq!(head.at(3), None);
        for revision in 4..=6 {
            assert_eq!(head.at(revision).unwrap().mod_revision, revision);
        }
        assert_eq!(head.event().previous.unwrap().mod_revision, 5);
        assert!(Version::tombstone(7, &head).compacted(7).is_none());
        assert!(Version::tombstone(7, &head).compacted(6).is_some());
    }

    #[test]
    fn a_long_chain_drops_without_recursion() {
        drop(chain(2..=300_000));
    }
}
