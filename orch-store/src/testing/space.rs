//! The key space that the conformance suite works in, and what it does there all the time.

use std::fmt;

use bytes::Bytes;

use super::watcher::Watcher;
use crate::{
    StoreError,
    store::{
        Compare, Entry, KeyRange, Operand, Operator, Precondition, Put, PutLease, RangeRequest,
        RangeResponse, Revision, Step, StepResult, Store, Transaction, TransactionOutcome,
        WatchRequest, Write, WriteOutcome,
    },
};

pub(super) const ROOT: &str = "/conformance/";

/// A key of the suite.
pub(super) fn key(name: impl fmt::Display) -> Bytes {
    format!("{ROOT}{name}").into()
}

/// A key of the suite whose name is no text.
pub(super) fn raw_key(name: &[u8]) -> Bytes {
    [ROOT.as_bytes(), name].concat().into()
}

/// All keys of the suite.
pub(super) fn all() -> KeyRange {
    KeyRange::prefix(ROOT)
}

/// The question for all keys of the suite.
pub(super) fn everything(revision: Option<Revision>) -> RangeRequest {
    RangeRequest { revision, ..RangeRequest::new(all()) }
}

/// The names of entries, without the suite's prefix.
pub(super) fn names(entries: &[Entry]) -> Vec<String> {
    let name = |entry: &Entry| String::from_utf8_lossy(&entry.key[ROOT.len()..]).into_owned();
    entries.iter().map(name).collect()
}

/// A put within a transaction.
pub(super) fn put_step(name: &str, value: &str) -> Step {
    let value = Some(value.to_owned().into());
    Step::Put(Put { key: key(name), value, lease: PutLease::Set(None) })
}

/// A comparison of one key.
pub(super) fn compare(name: &str, operator: Operator, operand: Operand) -> Compare {
    Compare { range: KeyRange::key(key(name)), operator, operand }
}

/// A transaction that does `success` whatever is there.
pub(super) fn always(success: Vec<Step>) -> Transaction {
    Transaction { success, ..Transaction::default() }
}

/// A store, as the suite uses it.
#[derive(Clone, Copy)]
pub(super) struct Space<'a> {
    pub(super) store: &'a dyn Store,
}

impl<'a> Space<'a> {
    /// Removes what is there.
    pub(super) async fn cleared(store: &'a dyn Store) -> Self {
        let space = Self { store };
        for entry in space.range(everything(None)).await.entries {
            space.committed(Write::delete(entry.key, Precondition::None)).await;
        }
        space
    }

    pub(super) async fn range(&self, request: RangeRequest) -> RangeResponse {
        match self.store.range(request.clone()).await {
            Ok(response) => response,
            Err(error) => panic!("{request:?} failed: {error}"),
        }
    }

    /// The store's newest revision.
    pub(super) async fn revision(&self) -> Revision {
        self.range(everything(None)).await.revision
    }

    pub(super) async fn get(&self, name: &str) -> Option<Entry> {
        let found = self.range(RangeRequest::new(KeyRange::key(key(name)))).await;
        assert!(found.entries.len() <= 1, "one key has several entries: {found:?}");
        found.entries.into_iter().next()
    }

    /// Keys and values at a revision.
    pub(super) async fn values(&self, revision: Option<Revision>) -> Vec<(Bytes, Bytes)> {
        let found = self.range(everything(revision)).await;
        found.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    pub(super) async fn committed(&self, write: Write) -> (Revision, Option<Entry>) {
        match self.store.write(write.clone()).await {
            Ok(WriteOutcome::Committed { revision, previous }) => (revision, previous),
            other => panic!("{write:?} was not committed: {other:?}"),
        }
    }

    /// A write whose guard does not hold; gives what the store says is there.
    pub(super) async fn refused(&self, write: Write) -> (Option<Entry>, Revision) {
        match self.store.write(write.clone()).await {
            Ok(WriteOutcome::PreconditionFailed { current, revision }) => (current, revision),
            other => panic!("{write:?} must be refused, as a value: {other:?}"),
        }
    }

    pub(super) async fn put(&self, name: &str, value: &str) -> Revision {
        self.committed(Write::put(key(name), value.to_owned())).await.0
    }

    pub(super) async fn delete(&self, name: &str) -> Revision {
        self.committed(Write::delete(key(name), Precondition::None)).await.0
    }

    pub(super) async fn transact(&self, transaction: Transaction) -> TransactionOutcome {
        match self.store.transact(transaction.clone()).await {
            Ok(outcome) => outcome,
            Err(error) => panic!("{transaction:?} failed: {error}"),
        }
    }

    /// A transaction that must fail, and change nothing.
    pub(super) async fn fails(&self, transaction: Transaction, why: &str) -> StoreError {
        let before = self.range(everything(None)).await;
        let error = match self.store.transact(transaction.clone()).await {
            Err(error) => error,
            Ok(outcome) => panic!("{why}: {transaction:?} must fail, not give {outcome:?}"),
        };
        let after = self.range(everything(None)).await;
        assert_eq!(after, before, "{why}: a transaction that failed ({error}) changed something");
        error
    }

    pub(super) async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Watcher {
        let request = WatchRequest { range, from };
        match self.store.watch(request.clone()).await {
            Ok(stream) => Watcher::new(stream),
            Err(error) => panic!("{request:?} failed: {error}"),
        }
    }
}

/// The previous entry that a put within a transaction tells.
pub(super) fn replaced(result: &StepResult) -> Option<&Entry> {
    match result {
        StepResult::Put(previous) => previous.as_ref(),
        other => panic!("a put gave {other:?}"),
    }
}

/// The answer of a range within a transaction.
pub(super) fn found(result: &StepResult) -> &RangeResponse {
    match result {
        StepResult::Range(response) => response,
        other => panic!("a range gave {other:?}"),
    }
}

/// What a deletion within a transaction removed.
pub(super) fn removed(result: &StepResult) -> &[Entry] {
    match result {
        StepResult::Delete(entries) => entries,
        other => panic!("a deletion gave {other:?}"),
    }
}
