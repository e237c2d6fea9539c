//! The stream that a watcher reads.

use std::{
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, future::BoxFuture};

use super::{
    Engine,
    watchers::{Registration, WatcherId},
};
use crate::store::{StoreError, WatchItem};

/// Replays the past, then follows the present. Dropping it ends the watch.
pub(super) struct EngineStream {
    engine: Weak<Engine>,
    id: WatcherId,
    registration: Registration,
    replay: std::vec::IntoIter<WatchItem>,
    progress: Option<Progress>,
    ended: bool,
}

struct Progress {
    interval: Duration,
    clock: Arc<dyn orch_core::clock::Clock>,
    timer: BoxFuture<'static, ()>,
}

impl Progress {
    fn restart(&mut self) {
        self.timer = self.clock.sleep(self.interval);
    }
}

impl EngineStream {
    pub(super) fn new(
        engine: &Arc<Engine>,
        registration: Registration,
        replay: Vec<WatchItem>,
        interval: Option<Duration>,
    ) -> Self {
        let progress = interval.map(|interval| {
            let clock = engine.environment.clock.clone();
            Progress { interval, timer: clock.sleep(interval), clock }
        });
        Self {
            engine: Arc::downgrade(engine),
            id: registration.id,
            registration,
            replay: replay.into_iter(),
            progress,
            ended: false,
        }
    }

    fn end(&mut self) -> StoreError {
        self.ended = true;
        if self.registration.lagged.load(Ordering::Acquire) {
            StoreError::Lagged
        } else {
            StoreError::Unavailable("the store is shut down".into())
        }
    }

    /// A progress item, if the interval has passed without any item.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<WatchItem> {
        let Some(progress) = &mut self.progress else { return Poll::Pending };
        while progress.timer.as_mut().poll(context).is_ready() {
            progress.restart();
            // Changes enter the buffer before their revision becomes visible: what is visible
            // now and not in the buffer has been delivered.
            let Some(engine) = self.engine.upgrade() else { return Poll::Pending };
            let revision = engine.state.read().revision;
            if self.registration.receiver.is_empty() {
                return Poll::Ready(WatchItem::Progress(revision));
            }
        }
        Poll::Pending
    }
}

impl Stream for EngineStream {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(item) = this.replay.next() {
            return Poll::Ready(Some(Ok(item)));
        }
        match this.registration.receiver.poll_recv(context) {
            Poll::Ready(Some(item)) => {
                if let Some(progress) = &mut this.progress {
                    progress.restart();
                }
                Poll::Ready(Some(Ok(item)))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(this.end()))),
            Poll::Pending => this.poll_progress(context).map(|item| Some(Ok(item))),
        }
    }
}

impl Drop for EngineStream {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.state.write().watchers.remove(self.id);
        }
    }
}
