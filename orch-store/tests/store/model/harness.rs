//! A store and the model, side by side.

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use orch_store::{
    Event, KeyRange, LeasedStore, Operation as Change, RangeRequest, Revision, Step, StoreError,
    Transaction, WatchItem, WatchRequest, WatchStream, Write, testing::Model,
};

use super::operations::{Operation, Plan, Question, precondition, revision};

/// A lease that is over has ended after so many turns of the runtime, or never will.
const TURNS: u32 = 1_000_000;

/// A range as the store is asked for it, which is at `newest`.
pub(super) fn request(question: &Question, newest: Option<Revision>) -> RangeRequest {
    let Question { range, back, limit, count_only, keys_only } = question.clone();
    let number = |back| newest.map_or(back, |newest| revision(newest, back));
    RangeRequest { range, revision: back.map(number), limit, count_only, keys_only }
}

/// Fills in the revisions of a transaction.
fn fill_in(transaction: &mut Transaction, newest: Revision) {
    use orch_store::Operand::{CreateRevision, ModRevision};
    for compare in &mut transaction.compare {
        if let CreateRevision(number) | ModRevision(number) = &mut compare.operand {
            *number = revision(newest, *number);
        }
    }
    for step in transaction.success.iter_mut().chain(&mut transaction.failure) {
        match step {
            Step::Range(RangeRequest { revision: Some(number), .. }) => {
                *number = revision(newest, *number);
            }
            Step::Transaction(inner) => fill_in(inner, newest),
            _ => {}
        }
    }
}

/// The same answer, or an error that says the same.
fn same<T: PartialEq + std::fmt::Debug>(
    told: &Result<T, StoreError>,
    expected: &Result<T, StoreError>,
    what: &dyn std::fmt::Debug,
) {
    match (told, expected) {
        (Ok(told), Ok(expected)) => assert_eq!(told, expected, "{what:?}"),
        // The words are the store's own.
        (Err(StoreError::Invalid(_)), Err(StoreError::Invalid(_))) => {}
        (Err(told), Err(expected)) => {
            assert_eq!(told.to_string(), expected.to_string(), "{what:?}");
        }
        _ => panic!("{told:?} instead of {expected:?} for {what:?}"),
    }
}

/// A watch, and what the model says that it has to deliver.
struct Watcher {
    stream: WatchStream,
    range: KeyRange,
    /// The first revision that it has not delivered.
    next: Revision,
}

impl Watcher {
    /// Reads up to so many items that are there; `false` if the watch has ended.
    fn read(&mut self, model: &Model, items: usize) -> bool {
        for _ in 0..items {
            let due = model.events(&self.range, self.next);
            match self.stream.next().now_or_never() {
                None => {
                    assert_eq!(due, [], "a watch of {:?} is silent", self.range);
                    return true;
                }
                Some(Some(Ok(WatchItem::Progress(revision)))) => {
                    let late = due.first().is_some_and(|due| due.entry.mod_revision <= revision);
                    assert!(!late, "progress to {revision} came before {due:?}");
                    self.next = self.next.max(revision + 1);
                }
                Some(Some(Ok(WatchItem::Events(events)))) => self.deliver(&events, &due),
                Some(Some(Err(StoreError::Compacted { compacted, .. }))) => {
                    assert_eq!(compacted, model.compacted());
                    assert!(self.next <= compacted, "a watch at {} has ended", self.next);
                    assert!(self.stream.next().now_or_never().is_some_and(|end| end.is_none()));
                    return false;
                }
                other => panic!("{other:?}"),
            }
        }
        true
    }

    fn deliver(&mut self, events: &[Event], due: &[Event]) {
        let same = due.get(..events.len()).is_some_and(|due| due == events);
        assert!(same && !events.is_empty(), "{events:?} instead of {due:?}");
        let last = events[events.len() - 1].entry.mod_revision;
        let split = due.get(events.len()).is_some_and(|next| next.entry.mod_revision == last);
        assert!(!split, "revision {last} was split");
        self.next = last + 1;
    }

    /// Reads what is left when the store is gone.
    async fn outlive(mut self, model: &Model) {
        loop {
            let due = model.events(&self.range, self.next);
            match self.stream.next().await {
                Some(Ok(WatchItem::Events(events))) => self.deliver(&events, &due),
                Some(Ok(WatchItem::Progress(_))) => {}
                Some(Err(StoreError::Unavailable(_) | StoreError::Compacted { .. })) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(self.stream.next().await.is_none(), "an error is the last item");
    }
}

/// A store and the model.
pub(super) struct Harness<S> {
    store: S,
    model: Model,
    watchers: Vec<Watcher>,
    /// Keeps the paused clock from moving by itself while a store's own threads are at work.
    _still: mpsc::Sender<()>,
}

impl<S: LeasedStore> Harness<S> {
    pub(super) fn new(store: S) -> Self {
        let (still, dropped) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || dropped.recv());
        Self { store, model: Model::default(), watchers: Vec::new(), _still: still }
    }

    pub(super) async fn run(&mut self, operation: Operation) {
        let newest = self.model.revision();
        match operation {
            Operation::Put { key, value, guard, lease } => {
                let precondition = precondition(guard, newest, self.present(&key));
                let operation = Change::Put { value, lease };
                self.write(Write { key, precondition, operation }).await;
            }
            Operation::Delete { key, guard } => {
                let precondition = precondition(guard, newest, self.present(&key));
                self.write(Write::delete(key, precondition)).await;
            }
            Operation::Transact(Plan(mut transaction)) => {
                fill_in(&mut transaction, newest);
                self.transact(transaction).await;
            }
            Operation::Range(question) => {
                let request = request(&question, Some(newest));
                let expected = self.model.range(&request);
                same(&self.store.range(request.clone()).await, &expected, &request);
            }
            Operation::Compact(back) => {
                let revision = revision(newest, back);
                let expected = self.model.compact(revision);
                same(&self.store.compact(revision).await, &expected, &revision);
            }
            Operation::Watch { range, back } => {
                let from = back.map(|back| revision(newest, back));
                self.watch(range, from).await;
            }
            Operation::Read { watcher, items } => self.read(watcher, items),
            Operation::Leave(watcher) if watcher < self.watchers.len() => {
                drop(self.watchers.swap_remove(watcher));
            }
            Operation::Progress => self.store.request_progress().await.unwrap(),
            Operation::Leave(_) | Operation::Reopen => {}
            lease => self.lease(lease).await,
        }
        self.compare_leases().await;
    }

    fn present(&self, key: &Bytes) -> Option<Revision> {
        self.model.keys().get(key).map(|entry| entry.mod_revision)
    }

    async fn write(&mut self, write: Write) {
        let expected = self.model.write(&write);
        same(&self.store.write(write.clone()).await, &expected, &write);
    }

    async fn transact(&mut self, transaction: Transaction) {
        let mut after = self.model.clone();
        let expected = after.transact(&transaction);
        let made = after.events(&KeyRange::prefix(""), self.model.revision() + 1);
        let keys: BTreeSet<_> = made.iter().map(|event| &event.entry.key).collect();
        if keys.len() < made.len() {
            // A key that is put by one inner transaction and deleted by a later one: etcd lets
            // that through, and the contract does not say what comes of it.
            return;
        }
        self.model = after;
        same(&self.store.transact(transaction.clone()).await, &expected, &transaction);
    }

    async fn watch(&mut self, range: KeyRange, from: Option<Revision>) {
        let request = WatchRequest { range: range.clone(), from };
        let start = from.filter(|from| *from > 0);
        let next = start.unwrap_or(self.model.revision() + 1);
        match self.store.watch(request).await {
            Ok(stream) if next > self.model.compacted() => {
                self.watchers.push(Watcher { stream, range, next });
            }
            Err(StoreError::Compacted { .. }) => {
                assert!(next <= self.model.compacted(), "a watch from {next} is refused");
            }
            other => panic!("a watch from {next}: {:?}", other.map(drop)),
        }
    }

    fn read(&mut self, watcher: usize, items: usize) {
        let Some(chosen) = self.watchers.get_mut(watcher) else { return };
        if !chosen.read(&self.model, items) {
            self.watchers.swap_remove(watcher);
        }
    }

    async fn lease(&mut self, operation: Operation) {
        match operation {
            Operation::Grant { id, ttl_s } => {
                let expected = self.model.grant(id, ttl_s).map(|()| id);
                same(&self.store.grant(Some(id), ttl_s).await, &expected, &("grant", id));
            }
            Operation::KeepAlive(id) => {
                assert_eq!(self.store.keep_alive(id).await.unwrap(), self.model.keep_alive(id));
            }
            Operation::Revoke(id) => {
                assert_eq!(self.store.revoke(id).await.unwrap(), self.model.revoke(id));
            }
            Operation::Advance(seconds) => {
                // Not whole seconds, so that no lease ends at the very moment that is looked at.
                let time = Duration::from_millis(seconds * 1000 + 7);
                self.model.advance(time);
                tokio::time::advance(time).await;
                self.settle().await;
            }
            other => panic!("{other:?} is nothing about leases"),
        }
    }

    /// Lets the store end the leases whose time is over.
    async fn settle(&self) {
        let expected = self.model.leases();
        for _ in 0..TURNS {
            if self.store.leases().await.unwrap() == expected {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
        panic!("leases do not end: {:?} instead of {expected:?}", self.store.leases().await);
    }

    async fn compare_leases(&self) {
        let expected = self.model.leases();
        assert_eq!(self.store.leases().await.unwrap(), expected);
        for id in expected {
            assert_eq!(self.store.lease(id).await.unwrap(), self.model.lease(id), "lease {id}");
        }
    }

    /// Compares all that can be read.
    pub(super) async fn end(mut self) {
        self.watch(KeyRange::prefix(""), Some(self.model.compacted() + 1)).await;
        for watcher in &mut self.watchers {
            watcher.read(&self.model, usize::MAX);
        }
        for revision in 1..=self.model.revision() + 1 {
            let everything = KeyRange::prefix("");
            let at = RangeRequest { revision: Some(revision), ..RangeRequest::new(everything) };
            same(&self.store.range(at.clone()).await, &self.model.range(&at), &at);
        }
        self.compare_leases().await;
    }

    /// Closes the store and opens it anew.
    pub(super) async fn reopen(self, open: impl Fn() -> Result<S, StoreError>) -> Self {
        let Self { store, mut model, watchers, _still } = self;
        drop(store);
        for watcher in watchers {
            watcher.outlive(&model).await;
        }
        model.reopen();
        let (store, watchers) = (open().unwrap(), Vec::new());
        let mut reopened = Self { store, model, watchers, _still };
        let (newest, compacted) = (reopened.model.revision(), reopened.model.compacted());
        for revision in [newest, compacted.max(1), (newest + compacted).div_ceil(2)] {
            let everything = KeyRange::prefix("");
            let at = RangeRequest { revision: Some(revision), ..RangeRequest::new(everything) };
            same(&reopened.store.range(at.clone()).await, &reopened.model.range(&at), &at);
        }
        reopened.watch(KeyRange::prefix(""), Some(compacted + 1)).await;
        reopened.read(0, usize::MAX);
        reopened.compare_leases().await;
        reopened
    }
}
