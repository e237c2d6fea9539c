//! A component that crashes and comes back.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use orch_core::{Client, awaited::Awaited};
use parking_lot::Mutex;

use super::link::{Connection, Life, Line, Link};

/// What a component does with its connection, for one life.
pub(super) type Start = Box<dyn Fn(Arc<dyn Client>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A component with its connection, for all of its lives.
pub(super) struct Process {
    pub(super) line: Arc<Line>,
    client: Arc<dyn Client>,
    start: Start,
    restart: Mutex<Duration>,
    /// Counts the times that it was told to crash.
    killed: Awaited<u64>,
}

impl Process {
    pub(super) fn new(line: Line, client: Arc<dyn Client>, start: Start) -> Arc<Self> {
        Arc::new(Self {
            line: Arc::new(line),
            client,
            start,
            restart: Mutex::new(Duration::from_secs(1)),
            killed: Awaited::new(0),
        })
    }

    /// How long it takes until it is started again after a crash.
    pub(super) fn set_restart(&self, restart: Duration) {
        *self.restart.lock() = restart;
    }

    /// Crashes it now.
    pub(super) fn kill(&self) {
        self.killed.update(|count| {
            *count += 1;
            true
        });
    }

    /// Runs it, one life after the other.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let life = Life::new();
            let connection = Connection { line: self.line.clone(), life: life.clone() };
            let link = Link { inner: self.client.clone(), connection };
            let killed = self.killed.get();
            tokio::select! {
                biased;
                _ = self.killed.wait_for(|count| count != killed) => {}
                () = life.crashed() => {}
                () = (self.start)(Arc::new(link)) => {}
            }
            life.end();
            let restart = *self.restart.lock();
            tokio::time::sleep(restart).await;
        }
    }
}
