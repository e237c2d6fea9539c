//! Hands every step of a cluster to its observer.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use orch_core::Key;
use orch_store::{KeyRange, MemoryStore, StoreReader, WatchItem, WatchRequest};

use super::Parts;

/// Hands every revision to the observer, once everybody who wrote it has been told so.
pub(super) async fn follow(parts: std::sync::Weak<Parts>, store: MemoryStore) {
    let request = WatchRequest { range: KeyRange::prefix("/"), from: Some(1) };
    let mut items = store.watch(request).await.expect("a watch");
    while let Some(item) = items.next().await {
        let Ok(WatchItem::Events(events)) = item else { continue };
        let Some(time) = parts.upgrade().map(|parts| parts.environment.clock.now()) else { return };
        let mut waiting = vec![(time, events)];
        // Virtual time moves when everything that can run has run: who wrote what is noted then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(parts) = parts.upgrade() else { return };
        while let Some(Some(Ok(item))) = items.next().now_or_never() {
            if let WatchItem::Events(events) = item {
                waiting.push((time, events));
            }
        }
        let (mut observer, mut journal) = (parts.observer.lock(), parts.journal.lock());
        for (time, events) in waiting {
            for step in events.chunk_by(|a, b| a.entry.mod_revision == b.entry.mod_revision) {
                let revision = step[0].entry.mod_revision;
                let of = key_of(&step[0].entry.key);
                let writer = journal.writer(revision, &of.0, &of.1).map(str::to_owned);
                observer.step(step, time, writer.as_deref());
                journal.forget(revision);
            }
        }
        parts.violated.update(|violated| {
            let (known, found) = (*violated, observer.violation().is_some());
            *violated = found;
            known != found
        });
    }
}

/// Kind and key of what lies under a key of the store, as far as it matters for deletions.
fn key_of(key: &[u8]) -> (String, Key) {
    let text = String::from_utf8_lossy(key);
    let mut parts = text.rsplitn(3, '/');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or_default();
    let place = parts.next().unwrap_or_default();
    let kind = if place.ends_with("/pods") { "Pod" } else { place };
    (kind.to_owned(), Key::new(namespace, name))
}
