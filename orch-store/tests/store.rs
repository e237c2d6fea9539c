//! The stores' public behaviour.

use futures::StreamExt as _;
use orch_store::{
    EventKind, KeyRange, MemoryStore, Precondition, RangeRequest, Store, StoreError, StoreReader,
    WatchItem, WatchRequest, Write, WriteOutcome,
};

#[tokio::test]
async fn memory_watch_and_compaction() {
    let store = MemoryStore::default();
    let request = WatchRequest { range: KeyRange::prefix("/a/"), from: None };
    let mut live = store.watch(request.clone()).await.unwrap();
    store.write(Write::create("/a/x", "1")).await.unwrap();
    store.write(Write::put("/b/x", "1")).await.unwrap();
    store.write(Write::delete("/a/x", Precondition::ModRevision(2))).await.unwrap();
    let refused = store.write(Write::update("/b/x", 9, "2")).await.unwrap();
    assert!(matches!(refused, WriteOutcome::PreconditionFailed { current: Some(_), revision: 4 }));
    let mut past = store.watch(WatchRequest { from: Some(2), ..request.clone() }).await.unwrap();
    let Some(Ok(WatchItem::Events(replay))) = past.next().await else { panic!() };
    assert_eq!(replay.len(), 2);
    for expected in [(EventKind::Put, 2), (EventKind::Delete, 4)] {
        let Some(Ok(WatchItem::Events(events))) = live.next().await else { panic!() };
        assert_eq!((events[0].kind, events[0].entry.mod_revision), expected);
    }
    let at = |revision| RangeRequest { revision, ..RangeRequest::new(KeyRange::prefix("/")) };
    assert_eq!(store.range(at(Some(3))).await.unwrap().count, 2);
    assert_eq!(store.range(at(None)).await.unwrap().count, 1);
    store.compact(4).await.unwrap();
    assert!(matches!(store.range(at(Some(3))).await, Err(StoreError::Compacted { .. })));
    let behind = store.watch(WatchRequest { from: Some(3), ..request }).await;
    assert!(matches!(behind.err(), Some(StoreError::Compacted { .. })));
}
