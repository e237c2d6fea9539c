//! What happens after a batch of writes is on disk: its changes become visible and its callers are
//! told, while the next batch is on its way to the disk.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::{
    StoreError,
    engine::{
        Engine,
        draft::{Heads, Hidden},
        version::Version,
    },
    store::{TransactionOutcome, WriteOutcome},
};

/// So many changes become visible under one lock, so that readers are never kept out for long.
const COMMIT_STEP: usize = 64;

/// So many callers are told at once where that takes less time than to wake the other thread.
const INLINE_MAX: usize = 8;

/// So many batches may be durable and not visible yet.
const DEPTH: usize = 2;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is told to a caller once its write is durable.
pub(super) enum Answer {
    Write(Reply<WriteOutcome>, WriteOutcome),
    Transact(Reply<TransactionOutcome>, TransactionOutcome),
}

impl Answer {
    pub(super) fn send(self, logged: Result<(), StoreError>) {
        // A caller that is gone does not want to know.
        match self {
            Self::Write(reply, outcome) => drop(reply.send(logged.map(|()| outcome))),
            Self::Transact(reply, outcome) => drop(reply.send(logged.map(|()| outcome))),
        }
    }
}

/// A batch that is on disk.
pub(super) struct Durable {
    /// The changes in the order of their revisions.
    pub(super) versions: Vec<Arc<Version>>,
    pub(super) answers: Vec<Answer>,
}

impl Durable {
    fn commit(self, engine: &Engine) {
        let same =
            |a: &Arc<Version>, b: &Arc<Version>| a.entry.mod_revision == b.entry.mod_revision;
        let mut revisions = self.versions.chunk_by(same).peekable();
        while revisions.peek().is_some() {
            let mut state = engine.lock();
            revisions.by_ref().take(COMMIT_STEP).for_each(|versions| state.commit(versions));
        }
        self.answers.into_iter().for_each(|answer| answer.send(Ok(())));
    }
}

enum Job {
    Commit(Durable),
    /// Tells when everything before it is done.
    Tell(SyncSender<()>),
}

impl Hidden for Pipeline {
    fn head(&self, key: &[u8]) -> Option<&Arc<Version>> {
        self.hidden.iter().rev().find_map(|(_, heads)| heads.get(key))
    }

    fn heads(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.hidden.iter().flat_map(|(_, heads)| heads.values())
    }
}

/// The stage behind the disk. Batches become visible in the order in which they are handed over.
pub(super) struct Pipeline {
    engine: Arc<Engine>,
    sender: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// How many batches were handed over, and how many of them are visible.
    sent: u64,
    visible: Arc<AtomicU64>,
    /// The heads of batches that may not be visible yet, with the number of the batch.
    hidden: VecDeque<(u64, Heads)>,
}

impl Pipeline {
    pub(super) fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(DEPTH - 1);
        let visible = Arc::new(AtomicU64::new(0));
        let (shared, count) = (engine.clone(), visible.clone());
        let run = move || {
            while let Ok(job) = receiver.recv() {
                match job {
                    Job::Commit(batch) => {
                        batch.commit(&shared);
                        count.fetch_add(1, Ordering::Release);
                    }
                    Job::Tell(sender) => drop(sender.send(())),
                }
            }
        };
        let thread = thread::Builder::new().name("orch-store-commit".into()).spawn(run)?;
        Ok(Self {
            engine,
            sender: Some(sender),
            thread: Some(thread),
            sent: 0,
            visible,
            hidden: VecDeque::new(),
        })
    }

    /// Waits until everything that was handed over is visible.
    pub(super) fn drain(&mut self) {
        if !self.is_idle()
            && let Some(sender) = &self.sender
        {
            let (told, wait) = mpsc::sync_channel(1);
            if sender.send(Job::Tell(told)).is_ok() {
                let _ = wait.recv();
            }
        }
        self.hidden.clear();
    }

    fn is_idle(&self) -> bool {
        self.visible.load(Ordering::Acquire) == self.sent
    }

    /// Hands over a batch; waits while too many are under way.
    pub(super) fn hand_over(&mut self, batch: Durable, heads: Heads) {
        let visible = self.visible.load(Ordering::Acquire);
        while self.hidden.front().is_some_and(|(number, _)| *number <= visible) {
            self.hidden.pop_front();
        }
        if self.is_idle() && batch.answers.len() <= INLINE_MAX {
            return batch.commit(&self.engine);
        }
        self.sent += 1;
        self.hidden.push_back((self.sent, heads));
        // The thread ends only with this; if it panicked, the callers learn that their answer is
        // lost.
        if let Some(sender) = &self.sender {
            let _ = sender.send(Job::Commit(batch));
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
