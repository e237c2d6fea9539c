//! The store contract: revisioned keys with etcd v3's semantics, as Kubernetes uses them.

mod entry;
mod lease;
mod pages;
mod transaction;
mod watch;
mod write;

use std::fmt;

use async_trait::async_trait;

pub use self::{
    entry::{Entry, KeyRange, RangeRequest, RangeResponse},
    lease::{LeaseId, LeaseReader, LeaseStatus, Leases},
    pages::pages,
    transaction::{
        Compare, Operand, Operator, Put, PutLease, Step, StepResult, Transaction,
        TransactionOutcome,
    },
    watch::{Event, EventKind, WatchItem, WatchRequest, WatchStream},
    write::{Operation, Precondition, Write, WriteOutcome},
};
use crate::StoreError;

/// The global, strictly increasing number of a committed change. The first write of a new store
/// gets revision 2, as etcd's does: an empty store is at revision 1.
pub type Revision = u64;

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

    /// Compares and changes several keys at one revision.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty key or one that is changed twice,
    /// [`StoreError::NothingToKeep`], [`StoreError::LeaseNotFound`], and the errors of the ranges
    /// in it. After an error nothing was changed.
    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError>;

    /// Forgets what was overwritten or deleted at or before `revision`: ranges and watches below
    /// it get [`StoreError::Compacted`], and so may a watch from exactly it. The newest value of
    /// every key stays, and `revision` itself can be read.
    ///
    /// # Errors
    /// [`StoreError::Future`] for a revision not reached yet, [`StoreError::Compacted`] for one
    /// that has been compacted before.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
}

/// A store that has leases too: all of etcd's key space, as one object.
pub trait LeasedStore: Store + Leases {}

impl<S: Store + Leases> LeasedStore for S {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_are_object_safe() {
        fn check(_: Option<&dyn StoreReader>, _: Option<&dyn Store>) {}
        fn check_leases(_: Option<&dyn Leases>, _: Option<&dyn LeasedStore>) {}
        check(None, None);
        check_leases(None, None);
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
