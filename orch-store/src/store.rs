//! The store contract: revisioned keys with etcd v3's semantics, as Kubernetes uses them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// The global, strictly increasing number of a committed change. The first write of a new store
/// gets revision 2, as etcd's does: an empty store is at revision 1.
pub type Revision = u64;

/// Why a store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision has been compacted away. `compacted` is the oldest one that can be read, or
    /// 0 where the store does not tell.
    #[error("required revision {requested} has been compacted (compaction revision {compacted})")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The compaction revision.
        compacted: Revision,
    },
    /// The revision has not been reached yet.
    #[error("required revision {requested} is a future revision (current is {current})")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision, or 0 where the store does not tell.
        current: Revision,
    },
    /// The watcher fell too far behind and was ended; watch again from the last revision seen.
    #[error("the watcher fell too far behind")]
    Lagged,
    /// Whether the write took place is unknown: the connection broke or the deadline passed
    /// after it was sent.
    #[error("the outcome of the write is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be reached or is shut down. Nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is on disk is damaged. The store refuses to serve it.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The request makes no sense: an empty key, a time to live out of range. Nothing was written.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// There is no such lease; the write that wanted it did not take place.
    #[error("lease {0} does not exist")]
    LeaseNotFound(LeaseId),
    /// A lease with that id exists already.
    #[error("lease {0} exists already")]
    LeaseExists(LeaseId),
    /// Another process holds the folder.
    #[error("{0} is in use by another process")]
    Locked(String),
    /// Reading or writing the folder failed. The store takes no more writes; whether the write
    /// that met the failure is there after the next start is unknown.
    #[error("storage input/output failed: {0}")]
    Io(String, #[source] std::io::Error),
}

impl StoreError {
    /// Whether the same call may succeed later. After [`StoreError::Unknown`] a retried write must
    /// be guarded by the revision that it expects.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Unavailable(_) | Self::Lagged)
    }
}

/// A key with its value and history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value, shared, never copied.
    pub value: Bytes,
    /// The revision that created the key (in its present life).
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub mod_revision: Revision,
    /// How often it was written since it was created; 1 after the creation.
    pub version: u64,
    /// The lease that it is attached to, if any.
    pub lease: Option<LeaseId>,
}

/// A lease's id.
pub type LeaseId = i64;

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists and this is its mod revision. 0 is as [`Precondition::Absent`].
    ModRevision(Revision),
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value.
    Put {
        /// The value.
        value: Bytes,
        /// The lease to attach the key to.
        lease: Option<LeaseId>,
    },
    /// Removes the key.
    Delete,
}

/// A change of one key, guarded by a precondition. Atomic: it happens wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key; not empty.
    pub key: Bytes,
    /// The guard.
    pub precondition: Precondition,
    /// The change.
    pub operation: Operation,
}

impl Write {
    /// Sets a key, whatever is there.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let operation = Operation::Put { value: value.into(), lease: None };
        Self { key: key.into(), precondition: Precondition::None, operation }
    }

    /// Sets a key that must not exist yet.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { precondition: Precondition::Absent, ..Self::put(key, value) }
    }

    /// Sets a key that must be as `revision` left it.
    pub fn update(key: impl Into<Bytes>, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self { precondition: Precondition::ModRevision(revision), ..Self::put(key, value) }
    }

    /// Removes a key under a precondition.
    pub fn delete(key: impl Into<Bytes>, precondition: Precondition) -> Self {
        Self { key: key.into(), precondition, operation: Operation::Delete }
    }
}

/// How a write ended. A failed precondition is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The change was committed as `revision` (deleting an absent key changes nothing and gives
    /// the store's current revision). `previous` is what it replaced.
    Committed {
        /// The revision of the change.
        revision: Revision,
        /// The entry before.
        previous: Option<Entry>,
    },
    /// The precondition did not hold; `current` is the key as it is.
    PreconditionFailed {
        /// The entry as it is.
        current: Option<Entry>,
        /// The store's revision at which that was seen.
        revision: Revision,
    },
}

/// A range of keys: from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// First key that is not in the range; `None` is open-ended.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// Every key that starts with `prefix`. The empty prefix is everything.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start, end: Some(end.into()) };
            }
        }
        Self { start, end: None }
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// A question for the keys of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; `None` (and 0, as in etcd) is the newest.
    pub revision: Option<Revision>,
    /// At most so many entries; `None` is without limit.
    pub limit: Option<usize>,
    /// Count the keys, but give no entries.
    pub count_only: bool,
}

impl RangeRequest {
    /// Everything in `range`, at the newest revision.
    pub fn new(range: KeyRange) -> Self {
        Self { range, revision: None, limit: None, count_only: false }
    }
}

/// The keys of a range at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's newest revision when the range was read (also the revision read, if none was
    /// asked for).
    pub revision: Revision,
    /// The entries in the order of their keys.
    pub entries: Vec<Entry>,
    /// Whether the limit cut entries off. The next page starts at the last key followed by a zero
    /// byte.
    pub more: bool,
    /// How many keys the whole range holds, the limit notwithstanding.
    pub count: usize,
}

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

/// Changes in revision order, without gaps or repeats. An `Err` is the last item:
/// [`StoreError::Lagged`] for a watcher that did not keep up with its bounded buffer,
/// [`StoreError::Compacted`] where the start has been compacted away.
pub type WatchStream = BoxStream<'static, Result<WatchItem, StoreError>>;

/// Reads a store.
#[async_trait]
pub trait StoreReader: Send + Sync + fmt::Debug + 'static {
    /// The keys of a range at one revision: a consistent snapshot, whatever is being written.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;

    /// The changes of a range. When the call returns, the watch is established: no change
    /// committed from then on (or from `from` on) is missed.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError>;

    /// Asks for a [`WatchItem::Progress`] on every open watch of this reader, with a revision at
    /// least as new as the store's when this was called. Returns without waiting for delivery. A
    /// watcher whose buffer is full gets none: it has changes to read first.
    async fn request_progress(&self) -> Result<(), StoreError>;
}

/// A revisioned key-value store with etcd v3's semantics, as Kubernetes uses them.
///
/// - **Order.** Commits have one global order, their revisions. A write that was acknowledged is
///   seen by every range that starts later (linearizable).
/// - **Durability.** An acknowledged write of a durable store survives the process and the
///   machine's power, unless the store was opened in a mode whose name says otherwise.
/// - **Cancellation.** A write whose future is dropped may or may not be committed, wholly in
///   either case; it never blocks later ones.
/// - **Leases.** A key attached to a lease is deleted, as an ordinary change, when the lease
///   expires or is revoked.
///
/// Source: etcd's `rpc.proto`, and `k8s.io/apiserver/pkg/storage/etcd3`.
#[async_trait]
pub trait Store: StoreReader {
    /// Changes one key if its precondition holds.
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError>;

    /// Forgets what was overwritten or deleted at or before `revision`: ranges and watches below
    /// it get [`StoreError::Compacted`], and so may a watch from exactly it. The newest value of
    /// every key stays, and `revision` itself can be read.
    ///
    /// # Errors
    /// [`StoreError::Future`] for a revision not reached yet, [`StoreError::Compacted`] for one
    /// that has been compacted before.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
}

/// Keys with a time to live. A part of the contract of its own, because not every user of a store
/// needs it.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug + 'static {
    /// Grants a lease of `ttl_s` seconds (at least 1); `id` of `None` lets the store choose.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`] for an id in use.
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError>;

    /// Starts the time to live anew; gives the seconds granted, or `None` if the lease is gone.
    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError>;

    /// Ends a lease and deletes its keys; `false` if there was no such lease.
    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_are_object_safe() {
        fn check(_: Option<&dyn StoreReader>, _: Option<&dyn Store>, _: Option<&dyn Leases>) {}
        check(None, None, None);
    }

    #[test]
    fn prefix_ends_carry_over() {
        let check = |prefix: &[u8], end: Option<&[u8]>| {
            assert_eq!(KeyRange::prefix(prefix.to_vec()).end.as_deref(), end, "{prefix:?}");
        };
        check(b"", None);
        check(b"a", Some(b"b"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
    }
}
