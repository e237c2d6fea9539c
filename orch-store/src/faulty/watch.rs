//! Watches whose connection breaks, stalls or is slow.

use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::{
    Chance,
    control::{Shared, Signals},
    unavailable,
};
use crate::{
    StoreError,
    store::{WatchItem, WatchStream},
};

/// A watch's connection. It does not keep the store alive.
pub(super) struct Connection {
    chance: Chance,
    shared: Arc<Shared>,
    /// What it has been told. It breaks when there is a newer generation than at its beginning.
    known: Signals,
}

type Item = Result<WatchItem, StoreError>;

impl Connection {
    /// A connection that breaks with all others that are open from now on.
    pub(super) fn open(chance: &Chance, shared: &Arc<Shared>) -> Self {
        let known = shared.signals();
        Self { chance: chance.clone(), shared: shared.clone(), known }
    }

    /// The items that come out at its other end.
    pub(super) fn carry(self, items: WatchStream) -> WatchStream {
        // Wherever the reader stops waiting, what is under way stays in the stream.
        Box::pin(stream::unfold(Some((items, self)), async |state| {
            let (mut items, mut connection) = state?;
            let item = connection.next(&mut items).await?;
            let ended = item.is_err();
            Some((item, (!ended).then_some((items, connection))))
        }))
    }

    async fn next(&mut self, items: &mut WatchStream) -> Option<Item> {
        let item = loop {
            if let Some(broken) = self.released().await {
                return Some(broken);
            }
            tokio::select! {
                biased;
                () = self.shared.other_signals(self.known) => {}
                item = items.next() => break item?,
            }
        };
        if let Some(broken) = self.hold_back().await {
            return Some(broken);
        }
        if self.chance.strikes(self.chance.faults.watch_drop) {
            return Some(self.broken());
        }
        Some(item)
    }

    /// Waits as long as chance has it, or until the connection breaks.
    async fn hold_back(&mut self) -> Option<Item> {
        let (chance, shared) = (self.chance.clone(), self.shared.clone());
        let mut held = std::pin::pin!(async move {
            chance.delay().await;
            if chance.strikes(chance.faults.watch_stall) {
                shared.count(|struck| struck.watch_stalls += 1);
                chance.environment.clock.sleep(chance.faults.stall).await;
            }
        });
        loop {
            if let Some(broken) = self.released().await {
                return Some(broken);
            }
            tokio::select! {
                biased;
                () = self.shared.other_signals(self.known) => {}
                () = &mut held => return self.released().await,
            }
        }
    }

    /// Waits as long as watches are stalled; gives the end of a connection that is broken.
    async fn released(&mut self) -> Option<Item> {
        loop {
            let signals = self.shared.signals();
            if signals.generation != self.known.generation {
                return Some(self.broken());
            }
            self.known = signals;
            if !signals.stalled {
                return None;
            }
            self.shared.other_signals(signals).await;
        }
    }

    fn broken(&self) -> Item {
        self.shared.count(|struck| struck.watch_drops += 1);
        Err(unavailable("the watch broke"))
    }
}
