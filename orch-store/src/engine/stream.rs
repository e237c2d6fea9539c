//! The stream that a watcher reads.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, future::BoxFuture};

use super::{Engine, watchers::Registration};
use crate::{
    StoreError,
    store::{KeyRange, Revision, WatchItem},
};

/// Follows the present, or reads the past until it has caught up. Dropping it ends the watch.
pub(super) struct EngineStream {
    engine: Weak<Engine>,
    range: KeyRange,
    /// The first revision that has not been delivered.
    next: Revision,
    position: Position,
    progress: Option<Progress>,
}

pub(super) enum Position {
    /// Changes come into a buffer as they are committed.
    Live(Registration),
    /// Changes are read from the history. Holds the number of the progress requests that are
    /// answered already.
    Behind {
        progress_requests: u64,
    },
    Ended,
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
        range: KeyRange,
        next: Revision,
        position: Position,
    ) -> Self {
        let progress = engine.watch.progress_interval.map(|interval| {
            let clock = engine.environment.clock.clone();
            Progress { interval, timer: clock.sleep(interval), clock }
        });
        Self { engine: Arc::downgrade(engine), range, next, position, progress }
    }

    /// A progress item, if the interval has passed without any item.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<WatchItem> {
        let Position::Live(registration) = &self.position else { return Poll::Pending };
        let Some(progress) = &mut self.progress else { return Poll::Pending };
        while progress.timer.as_mut().poll(context).is_ready() {
            progress.restart();
            // Changes enter the buffer before their revision becomes visible: what is visible
            // now and not in the buffer has been delivered.
            let Some(engine) = self.engine.upgrade() else { return Poll::Pending };
            let revision = engine.state.read().revision;
            if registration.receiver.is_empty() {
                return Poll::Ready(WatchItem::Progress(revision));
            }
        }
        Poll::Pending
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchItem, StoreError>> {
        let stopped = || Err(StoreError::Unavailable("the store is shut down".into()));
        loop {
            match &mut self.position {
                Position::Live(registration) => match registration.receiver.poll_recv(context) {
                    Poll::Ready(Some(item)) => return Poll::Ready(Ok(item)),
                    Poll::Ready(None) if registration.has_lagged() => {
                        // What did not fit into the buffer is in the history.
                        let progress_requests = registration.progress_requests;
                        self.position = Position::Behind { progress_requests };
                    }
                    Poll::Ready(None) => return Poll::Ready(stopped()),
                    Poll::Pending => return self.poll_progress(context).map(Ok),
                },
                Position::Behind { progress_requests } => {
                    let Some(engine) = self.engine.upgrade() else {
                        return Poll::Ready(stopped());
                    };
                    let step = engine.catch_up(&self.range, self.next, *progress_requests);
                    match step {
                        Err(error) => return Poll::Ready(Err(error)),
                        Ok(CatchUp::Item(item)) => return Poll::Ready(Ok(item)),
                        Ok(CatchUp::Nothing { next, more }) => {
                            self.next = next;
                            if more {
                                // A long stretch without interest: others have their turn.
                                context.waker().wake_by_ref();
                                return Poll::Pending;
                            }
                        }
                        Ok(CatchUp::Reached(registration, item)) => {
                            self.position = Position::Live(registration);
                            if let Some(item) = item {
                                return Poll::Ready(Ok(item));
                            }
                        }
                    }
                }
                // The caller has seen the end.
                Position::Ended => return Poll::Pending,
            }
        }
    }
}

/// One step of reading the past.
pub(super) enum CatchUp {
    /// The next changes.
    Item(WatchItem),
    /// Nothing of interest before `next`. Whether that was as far as one step goes.
    Nothing { next: Revision, more: bool },
    /// The present, and a progress item if one was asked for meanwhile.
    Reached(Registration, Option<WatchItem>),
}

impl Stream for EngineStream {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.position, Position::Ended) {
            return Poll::Ready(None);
        }
        let item = futures::ready!(self.poll_item(context));
        match &item {
            Ok(WatchItem::Events(events)) => {
                let last = events.last().map_or(0, |event| event.entry.mod_revision);
                self.next = self.next.max(last + 1);
            }
            Ok(WatchItem::Progress(revision)) => self.next = self.next.max(revision + 1),
            Err(_) => self.position = Position::Ended,
        }
        if let Some(progress) = &mut self.progress {
            progress.restart();
        }
        Poll::Ready(Some(item))
    }
}

impl Drop for EngineStream {
    fn drop(&mut self) {
        if let (Position::Live(registration), Some(engine)) =
            (&self.position, self.engine.upgrade())
        {
            engine.state.write().watchers.remove(registration.id);
        }
    }
}
