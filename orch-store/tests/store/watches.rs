//! Watchers that are slow, overtaken, or silent.

use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use orch_core::Environment;
use orch_store::{
    KeyRange, MemoryOptions, MemoryStore, Revision, Store, StoreError, StoreReader, WatchItem,
    WatchRequest, Write,
};

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

#[tokio::test]
async fn a_watch_of_an_empty_store_may_begin_at_its_first_revision() {
    let store = MemoryStore::default();
    let request = WatchRequest { range: KeyRange::prefix("/"), from: Some(1) };
    let mut watch = store.watch(request).await.unwrap();
    assert!(watch.next().now_or_never().is_none());
    store.write(Write::put("/k", "x")).await.unwrap();
    assert_eq!(take(&mut watch, 1).await[0].entry.mod_revision, 2);
}
