//! Changes, as watchers see them.

use std::sync::Arc;

use futures::stream::BoxStream;

use super::{Entry, KeyRange, Revision};
use crate::StoreError;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The entry after the change. For a deletion the key and, as `mod_revision`, the revision of
    /// the deletion; the value is empty.
    pub entry: Entry,
    /// The entry before the change, where there was one.
    pub previous: Option<Entry>,
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was removed.
    Delete,
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// All of the watched changes of one or more consecutive revisions, in order. A revision is
    /// never split between two items.
    Events(Arc<[Event]>),
    /// Every watched change up to and including this revision has been delivered.
    Progress(Revision),
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to deliver (inclusive, as etcd's `start_revision`); `None` (and 0)
    /// starts with the next change after the call returned. It may be in the future.
    pub from: Option<Revision>,
}

/// Changes in revision order, without gaps or repeats.
///
/// A watcher may be as slow as it likes and holds up nobody: what does not fit into its bounded
/// buffer it reads from the store's history later, as etcd's unsynced watchers do. Only a
/// compaction that passes its position ends it. An `Err` is the last item:
/// [`StoreError::Compacted`] where what comes next has been compacted away,
/// [`StoreError::Unavailable`] where the store has been shut down or the connection to it is lost
/// for good; watching again after the last revision seen loses nothing.
pub type WatchStream = BoxStream<'static, Result<WatchItem, StoreError>>;
