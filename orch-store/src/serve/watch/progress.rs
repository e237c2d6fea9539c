//! Progress: what a stream has delivered completely, and how the store is asked for it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::{NO_WATCH, Session};
use crate::{
    serve::{refusal, shared::Shared},
    store::Revision,
};

/// The store is asked at most this often, because it tells every watch of every stream.
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// A watch whose buffer was full was not told; it is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The shortest interval of notifications.
const NOTIFY_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Asks a store for progress on behalf of all streams.
#[derive(Debug, Default)]
pub(in crate::serve) struct ProgressHub {
    /// How many times the store was asked; counted before each.
    asked: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl ProgressHub {
    /// What tells a request for progress from those before it.
    fn ticket(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Asks the store, unless somebody did after `ticket` was taken; gives how long to wait first
    /// where that would be too often.
    async fn ask(&self, shared: &Shared, ticket: u64) -> Result<Option<Duration>, Status> {
        {
            let mut last = self.last.lock();
            if self.asked.load(Ordering::Acquire) > ticket {
                return Ok(None);
            }
            let since = last.map(|last| last.elapsed()).filter(|since| *since < ASK_INTERVAL);
            if let Some(since) = since {
                return Ok(Some(ASK_INTERVAL - since));
            }
            *last = Some(Instant::now());
            self.asked.fetch_add(1, Ordering::AcqRel);
        }
        shared.store.request_progress().await.map_err(refusal::of)?;
        Ok(None)
    }
}

/// A client waits to be told that the whole stream has reached a revision.
#[derive(Debug)]
pub(super) struct Pending {
    revision: Revision,
    /// The watches that are not known to have reached it.
    behind: BTreeSet<i64>,
}

impl Pending {
    /// A watch was added.
    pub(super) fn joined(&mut self, id: i64, delivered: Revision) {
        if delivered < self.revision {
            self.behind.insert(id);
        }
    }

    /// A watch is gone.
    pub(super) fn left(&mut self, id: i64) {
        self.behind.remove(&id);
    }

    /// A watch has delivered; whether all have reached the revision.
    pub(super) fn delivered(&mut self, id: i64, revision: Revision) -> bool {
        if revision >= self.revision {
            self.behind.remove(&id);
        }
        self.behind.is_empty()
    }
}

/// When the store is asked next.
pub(super) struct Asking {
    ticket: u64,
    timer: BoxFuture<'static, ()>,
}

/// Completes with the timer, which is gone then; never without one.
pub(super) async fn wait(timer: &mut Option<BoxFuture<'static, ()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
    *timer = None;
}

/// Completes when it is time to ask; never if nobody wants to.
pub(super) async fn wait_to_ask(asking: &mut Option<Asking>) {
    match asking {
        Some(asking) => (&mut asking.timer).await,
        None => std::future::pending().await,
    }
}

/// Until the next tick: the interval and up to a tenth, so that the watches of a client that has
/// just restarted are not all notified at once.
pub(super) fn ticker(shared: &Shared) -> BoxFuture<'static, ()> {
    let environment = &shared.options.environment;
    let interval = shared.options.watch_progress_interval.max(NOTIFY_INTERVAL_MIN);
    let interval = interval.mul_f64(1.0 + environment.random.unit() / 10.0);
    environment.clock.sleep(interval)
}

impl Session {
    /// The client asks how far the stream is.
    pub(super) async fn progress_requested(&mut self) -> Result<(), Status> {
        if self.watches.is_empty() {
            return Ok(());
        }
        let ticket = self.shared.progress.ticket();
        let revision = self.shared.revision().await?;
        if self.watches.values().any(|watch| watch.start > revision + 1) {
            return Ok(());
        }
        if self.pending.is_some() {
            // Answered by the next one, so that a client that asks often is answered at all.
            self.pending_next = Some(revision);
            return Ok(());
        }
        self.wait_for(revision, ticket);
        self.answer_or_ask().await
    }

    fn wait_for(&mut self, revision: Revision, ticket: u64) {
        let behind = self.watches.iter().filter(|(_, watch)| watch.delivered < revision);
        let behind = behind.map(|(id, _)| *id).collect();
        self.pending = Some(Pending { revision, behind });
        self.ask_after(ticket, Duration::ZERO);
    }

    async fn answer_or_ask(&mut self) -> Result<(), Status> {
        self.answer_progress();
        if self.pending.is_some() { self.ask().await } else { Ok(()) }
    }

    fn ask_after(&mut self, ticket: u64, wait: Duration) {
        let timer = self.shared.options.environment.clock.sleep(wait);
        self.asking = Some(Asking { ticket, timer });
    }

    /// Asks the store for progress, now or as soon as that is not too often.
    pub(super) async fn ask(&mut self) -> Result<(), Status> {
        let Some(Asking { ticket, .. }) = self.asking.take() else { return Ok(()) };
        match self.shared.progress.ask(&self.shared, ticket).await? {
            Some(wait) => self.ask_after(ticket, wait),
            None if self.pending.is_some() => {
                self.ask_after(self.shared.progress.ticket(), ASK_AGAIN);
            }
            None => {}
        }
        Ok(())
    }

    /// Answers the client if all watches have reached what it waits for.
    pub(super) fn answer_progress(&mut self) {
        let Some(pending) = self.pending.take_if(|pending| pending.behind.is_empty()) else {
            return;
        };
        self.asking = None;
        if self.watches.is_empty() {
            self.pending_next = None;
            return;
        }
        self.queue.push_back(self.shared.progress_of(NO_WATCH, pending.revision));
        if let Some(revision) = self.pending_next.take() {
            self.wait_for(revision, self.shared.progress.ticket());
            self.answer_progress();
        }
    }

    /// Notifies the watches that asked for it and were silent since the last tick.
    pub(super) async fn tick(&mut self) -> Result<(), Status> {
        self.ticker = Some(ticker(&self.shared));
        let ticket = self.shared.progress.ticket();
        let revision = self.shared.revision().await?;
        let mut asks = false;
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.notifies_progress) {
            let was_quiet = std::mem::replace(&mut watch.is_quiet, true);
            if !was_quiet || watch.start > revision + 1 {
                continue;
            }
            if watch.delivered >= revision {
                self.queue.push_back(self.shared.progress_of(*id, watch.delivered));
            } else {
                watch.notification = Some(revision);
                asks = true;
            }
        }
        if asks {
            self.ask_after(ticket, Duration::ZERO);
            self.ask().await?;
        }
        Ok(())
    }
}
