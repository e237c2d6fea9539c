//! Giving space back: a snapshot takes the place of the log before it.

use std::{
    path::PathBuf,
    thread::{self, JoinHandle},
};

use super::{log::Log, snapshot};
use crate::{StoreError, engine::Engine, store::Revision};

/// The snapshots of a folder, one at a time.
pub(super) struct Snapshots {
    folder: PathBuf,
    /// A snapshot is written when it makes so many bytes of log superfluous.
    bytes_min: u64,
    running: Option<Running>,
}

struct Running {
    revision: Revision,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl Snapshots {
    pub(super) fn new(folder: PathBuf, bytes_min: u64) -> Self {
        Self { folder, bytes_min: bytes_min.max(1), running: None }
    }

    /// Starts one at a revision that was compacted just now, if it is worth it and none runs.
    pub(super) fn start(&mut self, engine: &Engine, log: &mut Log, revision: Revision) {
        if self.running.as_ref().is_some_and(|running| !running.thread.is_finished()) {
            return;
        }
        if let Some(revision) = self.wait() {
            log.forget(revision);
        }
        let (superfluous, bytes) = log.reclaimable(revision);
        if bytes < self.bytes_min {
            return;
        }
        let source = snapshot::Source::of(engine, Some(revision));
        let folder = self.folder.clone();
        let work = move || snapshot::replace(&folder, &source, &superfluous);
        match thread::Builder::new().name("orch-snapshot".into()).spawn(work) {
            Ok(thread) => self.running = Some(Running { revision, thread }),
            Err(error) => tracing::error!(%error, "a snapshot could not be started"),
        }
    }

    /// Waits for the one that runs; gives its revision if it succeeded.
    pub(super) fn wait(&mut self) -> Option<Revision> {
        let Running { revision, thread } = self.running.take()?;
        match thread.join() {
            Ok(Ok(())) => Some(revision),
            Ok(Err(error)) => {
                // Nothing is lost: what the snapshot was to replace is still there.
                tracing::error!(%error, "a snapshot could not be written");
                None
            }
            Err(_) => None,
        }
    }
}
