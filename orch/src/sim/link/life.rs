//! Whether a component still lives.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use orch_core::awaited::Awaited;

/// Whether a component still lives.
#[derive(Debug)]
pub(crate) struct Life {
    over: AtomicBool,
    crashed: Awaited<bool>,
}

impl Life {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { over: AtomicBool::new(false), crashed: Awaited::new(false) })
    }

    /// Ends it: what it still does has no effect.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.crashed.set(true);
    }

    /// Waits until it has crashed at one of its calls.
    pub(crate) async fn crashed(&self) {
        self.crashed.wait_for(|crashed| crashed).await;
    }

    pub(super) async fn stop_if_over(&self) {
        if self.over.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }
}
