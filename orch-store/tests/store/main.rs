//! The stores' public behaviour.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use orch_core::Environment;
use orch_store::{
    DurableOptions, DurableStore, Entry, EventKind, Faults, FaultyStore, KeyRange, MemoryOptions,
    MemoryStore, Precondition, RangeRequest, Revision, Store, StoreError, StoreReader, WatchItem,
    WatchRequest, Write, WriteOutcome, testing,
};
use proptest::prelude::*;

#[tokio::test]
async fn memory_conforms() {
    let store = MemoryStore::default();
    testing::conformance(Arc::new(store)).await;
}

#[tokio::test(start_paused = true)]
async fn memory_leases_conform() {
    testing::lease_conformance(&MemoryStore::default()).await;
}

#[tokio::test]
async fn durable_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let options = DurableOptions { segment_bytes: 2048, snapshot_bytes_min: 1, ..<_>::default() };
    let store = DurableStore::open(folder.path(), options.clone()).unwrap();
    testing::conformance(Arc::new(store.clone())).await;
    testing::lease_conformance(&store).await;
    let revision = store.revision();
    drop(store);
    assert_eq!(DurableStore::open(folder.path(), options).unwrap().revision(), revision);
}

#[tokio::test]
async fn faulty_without_faults_conforms() {
    let environment = Environment::system();
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), environment, Faults::default());
    testing::conformance(Arc::new(store)).await;
}

/// A client that guards its writes survives every fault: retried increments are never lost and
/// never doubled.
#[tokio::test(start_paused = true)]
async fn guarded_writes_survive_faults() {
    let store = Arc::new(MemoryStore::default());
    let faults = Faults {
        unavailable: 0.1,
        conflict: 0.1,
        unknown: 0.2,
        watch_drop: 0.1,
        delay_max: Duration::from_millis(10),
    };
    let environment = Environment::seeded(Default::default(), 42);
    let faulty = FaultyStore::new(store.clone(), environment, faults);
    let (mut done, mut unknown) = (0u64, 0);
    while done < 100 {
        let Ok(found) = faulty.range(RangeRequest::new(KeyRange::key("/n"))).await else {
            continue;
        };
        let current = found.entries.first();
        done = current.map_or(0, |e| String::from_utf8_lossy(&e.value).parse().unwrap());
        let revision = current.map_or(0, |entry| entry.mod_revision);
        let next = (done + 1).to_string();
        if let Err(StoreError::Unknown(_)) = faulty.write(Write::update("/n", revision, next)).await
        {
            unknown += 1;
        }
    }
    assert!(unknown > 5, "{unknown}");
    let current = store.range(RangeRequest::new(KeyRange::key("/n"))).await.unwrap();
    let entry = &current.entries[0];
    let value: u64 = String::from_utf8_lossy(&entry.value).parse().unwrap();
    assert_eq!(entry.version, value, "one write per increment");
}

/// The next `count` events of a stream.
async fn take(stream: &mut orch_store::WatchStream, count: usize) -> Vec<orch_store::Event> {
    let mut events = Vec::new();
    while events.len() < count {
        match stream.next().await {
            Some(Ok(WatchItem::Events(batch))) => events.extend(batch.iter().cloned()),
            Some(Ok(WatchItem::Progress(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    events
}

#[tokio::test]
async fn a_slow_watcher_misses_nothing_and_holds_up_nobody() {
    let options = MemoryOptions { watch_buffer: 4, ..MemoryOptions::default() };
    let store = MemoryStore::new(Environment::system(), options);
    let request = WatchRequest { range: KeyRange::prefix("/"), from: None };
    let mut slow = store.watch(request.clone()).await.unwrap();
    let mut quick = store.watch(request).await.unwrap();
    for i in 0..5000 {
        store.write(Write::put("/k", i.to_string())).await.unwrap();
        assert!(matches!(quick.next().await, Some(Ok(WatchItem::Events(_)))));
    }
    // It catches up from the history, and is live again.
    let revisions = |events: Vec<orch_store::Event>| -> Vec<Revision> {
        events.iter().map(|event| event.entry.mod_revision).collect()
    };
    assert_eq!(revisions(take(&mut slow, 5000).await), Vec::from_iter(2..5002));
    store.write(Write::put("/k", "last")).await.unwrap();
    assert_eq!(revisions(take(&mut slow, 1).await), [5002]);
    assert!(slow.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_slow_watcher_ends_where_a_compaction_has_passed_it() {
    let options = MemoryOptions { watch_buffer: 4, ..MemoryOptions::default() };
    let store = MemoryStore::new(Environment::system(), options);
    let request = WatchRequest { range: KeyRange::prefix("/"), from: None };
    let mut slow = store.watch(request).await.unwrap();
    for i in 0..20 {
        store.write(Write::put("/k", i.to_string())).await.unwrap();
    }
    store.compact(15).await.unwrap();
    take(&mut slow, 4).await;
    let end = slow.next().await;
    let Some(Err(StoreError::Compacted { requested: 6, compacted: 15 })) = end else {
        panic!("{end:?}")
    };
    assert!(slow.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_tells_its_progress() {
    let progress_interval = Some(Duration::from_secs(60));
    let options = MemoryOptions { progress_interval, ..MemoryOptions::default() };
    let store = MemoryStore::new(Environment::system(), options);
    let request = WatchRequest { range: KeyRange::prefix("/a/"), from: None };
    let mut silent = store.watch(request).await.unwrap();
    store.write(Write::put("/b/1", "x")).await.unwrap();
    assert_eq!(silent.next().await.unwrap().unwrap(), WatchItem::Progress(2));
    store.write(Write::put("/a/1", "x")).await.unwrap();
    assert!(matches!(silent.next().await, Some(Ok(WatchItem::Events(_)))));
    drop(store);
    assert!(matches!(silent.next().await, Some(Err(StoreError::Unavailable(_)))));
}

/// What a store does, naively: every state that ever was.
#[derive(Default)]
struct Model {
    states: Vec<BTreeMap<Bytes, Entry>>,
    changes: VecDeque<(EventKind, Bytes, Revision, Option<Entry>)>,
}

impl Model {
    fn now(&self) -> BTreeMap<Bytes, Entry> {
        self.states.last().cloned().unwrap_or_default()
    }

    fn revision(&self) -> Revision {
        self.states.len() as Revision + 1
    }

    fn write(&mut self, write: &Write) -> WriteOutcome {
        let mut state = self.now();
        let current = state.get(&write.key).cloned();
        let holds = match write.precondition {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::ModRevision(r) => current.as_ref().is_some_and(|e| e.mod_revision == r),
        };
        let revision = self.revision();
        if !holds {
            return WriteOutcome::PreconditionFailed { current, revision };
        }
        let revision = revision + 1;
        let kind = match &write.operation {
            orch_store::Operation::Put { value, lease } => {
                let entry = Entry {
                    key: write.key.clone(),
                    value: value.clone(),
                    create_revision: current.as_ref().map_or(revision, |e| e.create_revision),
                    mod_revision: revision,
                    version: current.as_ref().map_or(1, |e| e.version + 1),
                    lease: *lease,
                };
                state.insert(write.key.clone(), entry);
                EventKind::Put
            }
            orch_store::Operation::Delete if current.is_none() => {
                return WriteOutcome::Committed { revision: revision - 1, previous: None };
            }
            orch_store::Operation::Delete => {
                state.remove(&write.key);
                EventKind::Delete
            }
        };
        self.states.push(state);
        self.changes.push_back((kind, write.key.clone(), revision, current.clone()));
        WriteOutcome::Committed { revision, previous: current }
    }
}

fn arbitrary_write() -> impl Strategy<Value = (u8, u8, u8, u64)> {
    (0u8..6, 0u8..3, 0u8..4, 0u64..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: orch_core::testing::rounds(64), failure_persistence: None, ..<_>::default() })]

    /// Every answer, every state of the past and every watch is the model's.
    #[test]
    fn memory_does_what_the_model_does(
        writes in proptest::collection::vec(arbitrary_write(), 1..80),
        compact_at in 1u64..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, mut model) = (MemoryStore::default(), Model::default());
            let all = KeyRange::prefix("/");
            let request = WatchRequest { range: all.clone(), from: None };
            let mut live = store.watch(request).await.unwrap();
            for (name, guard, operation, back) in writes {
                let key = format!("/{name}");
                let precondition = match guard {
                    0 => Precondition::None,
                    1 => Precondition::Absent,
                    _ => Precondition::ModRevision((model.revision() + 1).saturating_sub(back).max(1)),
                };
                let write = match operation {
                    0 => Write::delete(key, precondition),
                    _ => Write { precondition, ..Write::put(key, back.to_string()) },
                };
                let expected = model.write(&write);
                assert_eq!(store.write(write).await.unwrap(), expected);
            }
            let compacted = compact_at.min(model.revision());
            store.compact(compacted).await.unwrap();
            for (index, state) in model.states.iter().enumerate() {
                let revision = index as Revision + 2;
                let at = RangeRequest { revision: Some(revision), ..RangeRequest::new(all.clone()) };
                match store.range(at).await {
                    Ok(found) => assert_eq!(found.entries, state.values().cloned().collect::<Vec<_>>()),
                    Err(error) => assert!(
                        matches!(error, StoreError::Compacted { .. }) && revision < compacted
                    ),
                }
            }
            let from = Some(compacted + 1);
            let mut resumed = store.watch(WatchRequest { range: all, from }).await.unwrap();
            for (stream, first) in [(&mut live, 0), (&mut resumed, compacted + 1)] {
                let mut events = VecDeque::new();
                for change in model.changes.iter().filter(|change| change.2 >= first) {
                    if events.is_empty() {
                        let Some(Ok(WatchItem::Events(batch))) = stream.next().await else { panic!() };
                        events.extend(batch.iter().cloned());
                    }
                    let event = events.pop_front().unwrap();
                    let told = (event.kind, event.entry.key, event.entry.mod_revision, event.previous);
                    assert_eq!(&told, change);
                }
                assert!(events.is_empty() && stream.next().now_or_never().is_none());
            }
        });
    }
}
