//! A component that crashes and comes back.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use orch_core::awaited::Awaited;
use parking_lot::Mutex;

use super::link::{Connection, Life, Line};

/// What a component does with its connection, for one life.
pub(crate) type Start = Box<dyn Fn(Connection) -> BoxFuture<'static, ()> + Send + Sync>;

/// A component that runs behind a line, for all of its lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) line: Arc<Line>,
    restart: Mutex<Duration>,
    /// Counts the times that it was told to crash.
    killed: Awaited<u64>,
    /// Whether it is to stay down.
    down: Awaited<bool>,
    /// What it said when it panicked for the first time.
    panicked: Mutex<Option<String>>,
}

impl Process {
    pub(crate) fn new(line: Arc<Line>) -> Arc<Self> {
        Arc::new(Self {
            line,
            restart: Mutex::new(Duration::from_secs(1)),
            killed: Awaited::new(0),
            down: Awaited::new(false),
            panicked: Mutex::default(),
        })
    }

    /// How long it takes until it is started again after a crash.
    pub(crate) fn set_restart(&self, restart: Duration) {
        *self.restart.lock() = restart;
    }

    /// Crashes it now.
    pub(crate) fn kill(&self) {
        self.killed.update(|count| {
            *count += 1;
            true
        });
    }

    /// Crashes it and keeps it down, or lets it run again.
    pub(crate) fn keep_down(&self, down: bool) {
        self.down.set(down);
        if down {
            self.kill();
        }
    }

    /// What it said when it panicked.
    pub(crate) fn panic(&self) -> Option<String> {
        self.panicked.lock().clone()
    }

    /// Runs it, one life after the other. A panic ends a life as a crash does, and is noted.
    pub(crate) async fn run(self: Arc<Self>, start: Start) {
        loop {
            self.down.wait_for(|down| !down).await;
            let life = Life::new();
            let connection = Connection { line: self.line.clone(), life: life.clone() };
            let killed = self.killed.get();
            let work = AssertUnwindSafe(async { start(connection).await }).catch_unwind();
            tokio::select! {
                biased;
                _ = self.killed.wait_for(|count| count != killed) => {}
                () = life.crashed() => {}
                done = work => if let Err(panic) = done {
                    self.panicked.lock().get_or_insert_with(|| said(&*panic));
                },
            }
            life.end();
            if !self.down.get() {
                let restart = *self.restart.lock();
                tokio::time::sleep(restart).await;
            }
        }
    }
}

/// What a panic said.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
