//! What happened in a cluster, as its store remembers it, and when.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use orch_core::{Environment, clock::Clock};
use orch_store::{
    Event, KeyRange, MemoryStore, RangeRequest, Revision, StoreError, StoreReader, WatchItem,
    WatchRequest,
};
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

use super::timeline::Timeline;
use crate::sim::view::{View, is_heartbeat};

/// Where objects lie in the store.
const ROOT: &str = "/registry/";
/// What has not come to rest after a day never does.
const RESTLESS: Duration = Duration::from_secs(86_400);

/// Follows a store and notes when what was committed.
pub(super) struct History {
    store: Arc<MemoryStore>,
    notes: Arc<Notes>,
    following: AbortHandle,
}

struct Notes {
    /// Each revision that was seen, and when: in order.
    times: Mutex<Vec<(Revision, Timestamp)>>,
    /// When something was written last that is no heartbeat, and what.
    moved: Mutex<(Instant, String)>,
}

impl Drop for History {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl History {
    /// Begins to follow: what is written from now on is noted. `times` are those of before.
    pub(super) fn follow(
        store: Arc<MemoryStore>,
        environment: Environment,
        times: Vec<(Revision, Timestamp)>,
    ) -> Self {
        let moved = Mutex::new((Instant::now(), String::new()));
        let notes = Arc::new(Notes { times: Mutex::new(times), moved });
        let from = store.revision() + 1;
        let task = note(store.clone(), environment, notes.clone(), from);
        Self { store, notes, following: tokio::spawn(task).abort_handle() }
    }

    pub(super) fn times(&self) -> Vec<(Revision, Timestamp)> {
        self.notes.times.lock().clone()
    }

    pub(super) async fn at(&self, revision: Revision) -> Result<View, StoreError> {
        let mut request = RangeRequest::new(KeyRange::prefix(ROOT));
        request.revision = Some(revision);
        let found = self.store.range(request).await?;
        Ok(View::of_entries(&found.entries, revision, self.time_of(revision)))
    }

    /// When a revision was committed; the epoch if it was before anybody followed.
    fn time_of(&self, revision: Revision) -> Timestamp {
        let times = self.notes.times.lock();
        let at = times.partition_point(|(seen, _)| *seen < revision);
        times.get(at).or(times.last()).map_or(Timestamp::UNIX_EPOCH, |(_, time)| *time)
    }

    pub(super) async fn bisect(
        &self,
        mut holds: impl FnMut(&View) -> bool,
    ) -> Result<Option<Revision>, StoreError> {
        let newest = self.store.revision();
        if holds(&self.at(newest).await?) {
            return Ok(None);
        }
        let (mut good, mut bad) = (0, newest);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match self.at(middle).await {
                Ok(view) if holds(&view) => good = middle,
                Ok(_) => bad = middle,
                // Forgotten: what it was like nobody knows.
                Err(StoreError::Compacted { compacted, .. }) => good = compacted.max(middle),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(bad))
    }

    pub(super) async fn timeline(&self) -> Result<Timeline, StoreError> {
        let events = self.events(ROOT).await?;
        Ok(Timeline::of(&events, |revision| self.time_of(revision)))
    }

    /// Everything that was ever written below a prefix.
    pub(super) async fn events(&self, prefix: &'static str) -> Result<Vec<Event>, StoreError> {
        let newest = self.store.revision();
        let request = WatchRequest { range: KeyRange::prefix(prefix), from: Some(1) };
        let mut stream = self.store.watch(request).await?;
        let mut events: Vec<Event> = Vec::new();
        while events.last().is_none_or(|event| event.entry.mod_revision < newest) {
            match stream.next().await.transpose()? {
                Some(WatchItem::Events(some)) => events.extend(some.iter().cloned()),
                Some(WatchItem::Progress(reached)) if reached >= newest => break,
                Some(WatchItem::Progress(_)) => {}
                None => break,
            }
        }
        Ok(events)
    }

    /// The timeline without waiting, for a thread that is about to end.
    pub(super) fn timeline_now(&self) -> Option<Timeline> {
        self.timeline().now_or_never()?.ok()
    }

    /// Waits until nothing has moved for as long as `quiet`.
    pub(super) async fn settle(&self, clock: &Arc<dyn Clock>, quiet: Duration) -> Duration {
        let (begun, since) = (Instant::now(), Instant::now());
        loop {
            let (moved, what) = self.notes.moved.lock().clone();
            let still = Instant::now() - moved.max(since);
            if still >= quiet {
                return (moved.max(since)) - begun;
            }
            assert!(begun.elapsed() < RESTLESS, "it never comes to rest; last written: {what}");
            clock.sleep(quiet - still).await;
        }
    }
}

/// Notes everything that is committed from a revision on.
async fn note(
    store: Arc<MemoryStore>,
    environment: Environment,
    notes: Arc<Notes>,
    from: Revision,
) {
    let request = WatchRequest { range: KeyRange::prefix(ROOT), from: Some(from) };
    let Ok(mut stream) = store.watch(request).await else { return };
    drop(store);
    while let Some(Ok(item)) = stream.next().await {
        let WatchItem::Events(events) = item else { continue };
        let now = environment.clock.now();
        let mut times = notes.times.lock();
        for event in events.iter() {
            times.push((event.entry.mod_revision, now));
        }
        drop(times);
        if let Some(event) = events.iter().rev().find(|event| !is_heartbeat(event)) {
            let what = String::from_utf8_lossy(&event.entry.key).into_owned();
            *notes.moved.lock() = (Instant::now(), what);
        }
    }
}
