//! Compaction.

use futures::{StreamExt as _, stream};

use crate::{
    StoreError,
    store::{KeyRange, Step, Store, WatchRequest, Write},
    testing::{
        space::{Space, all, always, everything, key},
        watcher::{Watcher, revisions},
    },
};

/// What is forgotten, what stays, and who is told.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn compaction(store: &dyn Store) {
    let space = Space::cleared(store).await;
    let first = space.put("a", "1").await;
    space.put("gone", "1").await;
    space.delete("gone").await;
    let kept = space.put("a", "2").await;
    let newest = space.put("a", "3").await;
    store.compact(kept).await.expect("a compaction of a revision that was reached");
    for old in [first, kept - 1] {
        let old = store.range(everything(Some(old))).await;
        assert!(matches!(old, Err(StoreError::Compacted { .. })), "behind a compaction: {old:?}");
    }
    let step = Step::Range(everything(Some(kept - 1)));
    let old = space.fails(always(vec![step]), "a range behind a compaction").await;
    assert!(matches!(old, StoreError::Compacted { .. }), "behind a compaction: {old:?}");
    let at = space.values(Some(kept)).await;
    assert_eq!(at, [(key("a"), "2".into())], "the compacted revision itself can be read");
    let now = space.values(None).await;
    assert_eq!(now, [(key("a"), "3".into())], "the newest value of every key stays");
    assert_eq!(space.revision().await, newest, "a compaction takes no revision");
    let history = space.get("a").await.expect("the newest value of every key stays");
    assert_eq!((history.create_revision, history.version), (first, 3), "a key's history stays");

    let behind = WatchRequest { range: all(), from: Some(first) };
    let behind = match store.watch(behind).await {
        Ok(stream) => Watcher::new(stream).until(newest).await.1,
        Err(error) => Some(error),
    };
    assert!(matches!(behind, Some(StoreError::Compacted { .. })), "a watch behind: {behind:?}");
    let mut on = space.watch(all(), Some(kept + 1)).await;
    let event = on.events(1).await.remove(0);
    let previous = event.previous.map(|entry| entry.mod_revision);
    assert_eq!((event.entry.mod_revision, previous), (newest, Some(kept)), "a watch from there");

    for again in [kept, first] {
        let again = store.compact(again).await;
        assert!(matches!(again, Err(StoreError::Compacted { .. })), "compacting twice: {again:?}");
    }
    let future = store.compact(newest + 1_000_000).await;
    assert!(matches!(future, Err(StoreError::Future { .. })), "the future: {future:?}");
    store.compact(newest).await.expect("a compaction of the newest revision");
    assert_eq!(space.values(Some(newest)).await, now, "the newest revision can be read");
    overtaken(space).await;
}

/// A watcher that a compaction overtakes sees a gapless beginning of what happened, and then
/// either the rest of it or the end.
async fn overtaken(space: Space<'_>) {
    const CHANGES: usize = 3000;
    let mut behind = space.watch(all(), None).await;
    let write = async |number: usize| {
        let key = key(format_args!("overtaken/{}", number % 10));
        space.committed(Write::put(key, number.to_string())).await.0
    };
    let written = stream::iter(0..CHANGES).map(write).buffer_unordered(64);
    let mut written: Vec<_> = written.collect().await;
    written.sort_unstable();
    let newest = written[CHANGES - 1];
    space.store.compact(newest).await.expect("a compaction of the newest revision");
    let (events, ended) = behind.until(newest).await;
    let seen = revisions(&events);
    assert!(seen == written[..seen.len()], "a watcher that was overtaken skipped changes");
    match ended {
        Some(_) => assert!(seen.len() < CHANGES, "a watch that has everything is not behind"),
        None => {
            let next = space.put("overtaken/0", "next").await;
            assert_eq!(revisions(&behind.events(1).await), [next], "the watch goes on");
        }
    }
    // Watching again behind the compaction goes on without a gap.
    let mut again = space.watch(KeyRange::prefix(key("overtaken/")), Some(newest + 1)).await;
    let next = space.put("overtaken/0", "again").await;
    let (events, ended) = again.until(next).await;
    let seen = revisions(&events);
    assert!(ended.is_none() && seen.last() == Some(&next), "behind a compaction: {seen:?}");
}
