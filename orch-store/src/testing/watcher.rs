//! Reads a watch and makes sure that it keeps the rules of every watch.

use std::time::Duration;

use futures::StreamExt as _;

use crate::{
    StoreError,
    store::{Event, Revision, WatchItem, WatchStream},
};

/// A watch that has something to tell and does not do so for so long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Watcher {
    stream: WatchStream,
    /// The revision of the newest event.
    last: Revision,
}

impl Watcher {
    pub(super) fn new(stream: WatchStream) -> Self {
        Self { stream, last: 0 }
    }

    /// The next item; events are in order and whole revisions.
    pub(super) async fn next(&mut self) -> Option<Result<WatchItem, StoreError>> {
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        let Ok(item) = next else {
            panic!("a watch has been silent for {PATIENCE:?} after revision {}", self.last)
        };
        if let Some(Ok(WatchItem::Events(batch))) = &item {
            assert!(!batch.is_empty(), "an item of a watch has no events");
            let first = batch[0].entry.mod_revision;
            let last = self.last;
            assert!(first > last, "a revision ({first}) was split, repeated or late, after {last}");
            let ordered = batch.is_sorted_by_key(|event| event.entry.mod_revision);
            assert!(ordered, "an item is not in the order of revisions: {batch:?}");
            self.last = batch[batch.len() - 1].entry.mod_revision;
        }
        item
    }

    /// The events of the next item that has some.
    pub(super) async fn batch(&mut self) -> Vec<Event> {
        loop {
            match self.next().await {
                Some(Ok(WatchItem::Events(batch))) => return batch.to_vec(),
                Some(Ok(WatchItem::Progress(_))) => {}
                other => panic!("a watch ended after revision {}: {other:?}", self.last),
            }
        }
    }

    /// The next `count` events.
    pub(super) async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        while events.len() < count {
            events.extend(self.batch().await);
        }
        assert_eq!(events.len(), count, "a watch delivered what nobody wrote: {events:?}");
        events
    }

    /// Everything up to the event of `revision`, or up to where the watch ends with
    /// [`StoreError::Compacted`].
    pub(super) async fn until(&mut self, revision: Revision) -> (Vec<Event>, Option<StoreError>) {
        let mut events = Vec::new();
        while self.last < revision {
            match self.next().await {
                Some(Ok(WatchItem::Events(batch))) => events.extend(batch.iter().cloned()),
                Some(Ok(WatchItem::Progress(_))) => {}
                Some(Err(error @ StoreError::Compacted { .. })) => {
                    let after = self.next().await;
                    assert!(after.is_none(), "an error is a watch's last item, not {after:?}");
                    return (events, Some(error));
                }
                other => panic!("a watch ended after revision {}: {other:?}", self.last),
            }
        }
        (events, None)
    }
}

/// The revisions of events.
pub(super) fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.entry.mod_revision).collect()
}
