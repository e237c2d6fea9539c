//! The one thread that writes: it decides writes in order and logs a batch of them with one sync.
//! Only then they become visible, and their callers are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::sync::mpsc;

use super::{
    compaction::Snapshots,
    format::{self, FRAME_HEADER, PAYLOAD_MAX, Record},
    log::Log,
    pipeline::{Answer, Durable, Pipeline, Reply},
};
use crate::{
    StoreError,
    engine::{
        Engine,
        draft::{Draft, Heads, Hidden},
        leases,
        version::Version,
    },
    store::{LeaseId, Operation, Revision, Transaction, TransactionOutcome, Write, WriteOutcome},
};

/// A batch is logged when it has so many writes or bytes, or nothing more is waiting.
const BATCH_WRITES: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

/// What the thread is asked to do.
pub(super) enum Command {
    Write(Write, Reply<WriteOutcome>),
    Transact(Transaction, Reply<TransactionOutcome>),
    Compact(Revision, Reply<()>),
    Grant(Option<LeaseId>, i64, Reply<LeaseId>),
    Revoke { id: LeaseId, only_expired: bool, reply: Reply<bool> },
}

/// Refuses what does not fit into a frame.
pub(super) fn check_size(write: &Write) -> Result<(), StoreError> {
    let value = match &write.operation {
        Operation::Put { value, .. } => value.len(),
        Operation::Delete => 0,
    };
    check_bytes(write.key.len() + value)
}

fn check_bytes(bytes: usize) -> Result<(), StoreError> {
    if bytes > PAYLOAD_MAX - BATCH_BYTES {
        return Err(StoreError::Invalid("the write is too large to be stored".into()));
    }
    Ok(())
}

/// What a change takes in the log at most.
fn logged_bytes(version: &Arc<Version>) -> usize {
    version.entry.key.len() + version.entry.value.len() + 32
}

/// The thread's state.
pub(super) struct Writer {
    engine: Arc<Engine>,
    log: Log,
    /// How far the log is written, for those who ask.
    log_bytes: Arc<AtomicU64>,
    pipeline: Pipeline,
    snapshots: Snapshots,
    /// The newest revision that is on disk.
    revision: Revision,
    /// Why nothing is written any more.
    failed: Option<String>,
}

/// Writes that are decided and not yet logged.
#[derive(Default)]
struct Batch {
    /// The newest versions of the keys that this batch changes.
    heads: Heads,
    /// The changes in the order of their revisions.
    versions: Vec<Arc<Version>>,
    answers: Vec<Answer>,
    frame: Vec<u8>,
}

impl Batch {
    fn new() -> Self {
        Self { frame: vec![0; FRAME_HEADER], ..Self::default() }
    }

    /// Takes in the changes of one write, which may be none.
    fn add(&mut self, versions: &[Arc<Version>], answer: Answer) {
        self.answers.push(answer);
        format::put_commit(&mut self.frame, versions);
        for version in versions {
            self.heads.insert(version.entry.key.clone(), version.clone());
            self.versions.push(version.clone());
        }
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= BATCH_WRITES || self.frame.len() >= BATCH_BYTES
    }
}

/// What is decided and not visible: batches that are on disk already, and the one in hand.
struct Undone<'a>(&'a Pipeline, &'a Heads);

impl Hidden for Undone<'_> {
    fn head(&self, key: &[u8]) -> Option<&Arc<Version>> {
        self.1.head(key).or_else(|| self.0.head(key))
    }

    fn heads(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.0.heads().chain(self.1.heads())
    }
}

impl Writer {
    pub(super) fn start(
        engine: Arc<Engine>,
        log: Log,
        snapshots: Snapshots,
        log_bytes: Arc<AtomicU64>,
    ) -> std::io::Result<Self> {
        let pipeline = Pipeline::start(engine.clone())?;
        let revision = engine.state.read().revision;
        Ok(Self { engine, log, log_bytes, pipeline, snapshots, revision, failed: None })
    }

    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = None;
        while let Some(command) = waiting.take().or_else(|| commands.blocking_recv()) {
            match command {
                write @ (Command::Write(..) | Command::Transact(..)) => {
                    waiting = self.write_batch(write, &mut commands);
                }
                other => {
                    // Decided on what is visible, and visible before the next write is decided.
                    self.pipeline.drain();
                    self.run_alone(other);
                }
            }
        }
        self.pipeline.drain();
        self.snapshots.wait();
        if self.failed.is_none()
            && let Err(error) = self.log.close()
        {
            tracing::error!(%error, "the log could not be closed");
        }
    }

    fn run_alone(&mut self, command: Command) {
        match command {
            Command::Compact(revision, reply) => drop(reply.send(self.compact(revision))),
            Command::Grant(id, ttl_s, reply) => drop(reply.send(self.grant(id, ttl_s))),
            Command::Revoke { id, only_expired, reply } => {
                drop(reply.send(self.revoke(id, only_expired)));
            }
            Command::Write(..) | Command::Transact(..) => {
                unreachable!("writes go into batches")
            }
        }
    }

    /// Decides a write and those that wait behind it, logs them together, and hands them on.
    /// Gives back the first command that is not a write.
    fn write_batch(
        &mut self,
        first: Command,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        let mut batch = Batch::new();
        let mut next = Some(first);
        let mut waiting = None;
        while let Some(command) = next {
            waiting = self.decide(&mut batch, command);
            let last = batch.is_full() || waiting.is_some();
            next = if last { None } else { commands.try_recv().ok() };
        }
        self.finish(batch);
        waiting
    }

    /// Takes a write into the batch; gives back a command that is none.
    fn decide(&self, batch: &mut Batch, command: Command) -> Option<Command> {
        let state = self.engine.state.read();
        let newest = batch.versions.last().map_or(self.revision, |last| last.entry.mod_revision);
        let undone = Undone(&self.pipeline, &batch.heads);
        let draft = Draft::new(&state, &undone, newest);
        match command {
            Command::Write(write, reply) => {
                let decided = draft.write(write);
                drop(state);
                match decided {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok((outcome, version)) => {
                        batch.add(version.as_slice(), Answer::Write(reply, outcome));
                    }
                }
            }
            Command::Transact(transaction, reply) => {
                let decided = draft.transact(transaction).and_then(|(outcome, versions)| {
                    check_bytes(versions.iter().map(logged_bytes).sum())?;
                    Ok((outcome, versions))
                });
                drop(state);
                match decided {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok((outcome, versions)) => {
                        batch.add(&versions, Answer::Transact(reply, outcome));
                    }
                }
            }
            other => return Some(other),
        }
        None
    }

    fn finish(&mut self, mut batch: Batch) {
        // Outcomes that change nothing were decided on what is on disk already.
        if let Some(last) = batch.versions.last() {
            let revision = last.entry.mod_revision;
            if let Err(error) = self.append(&mut batch.frame, revision) {
                let refusal = || match &error {
                    StoreError::NoSpace(path) => StoreError::NoSpace(path.clone()),
                    StoreError::Invalid(what) => StoreError::Invalid(what.clone()),
                    _ => self.refusal(),
                };
                batch.answers.into_iter().for_each(|answer| answer.send(Err(refusal())));
                return;
            }
            self.revision = revision;
        }
        let Batch { heads, versions, answers, .. } = batch;
        self.pipeline.hand_over(Durable { versions, answers }, heads);
    }

    fn refusal(&self) -> StoreError {
        let why = self.failed.as_deref().unwrap_or("a write failed");
        StoreError::Io(why.into(), std::io::Error::other("the store takes no more writes"))
    }

    fn append(&mut self, frame: &mut [u8], revision: Revision) -> Result<(), StoreError> {
        if self.failed.is_some() {
            return Err(self.refusal());
        }
        if frame.len() > PAYLOAD_MAX {
            return Err(StoreError::Invalid("too much is changed at once".into()));
        }
        self.log.reserve(frame.len()).inspect_err(|error| {
            tracing::warn!(%error, "there is no room for a write in the log");
        })?;
        self.log.append(frame, revision).inspect_err(|error| {
            // What a failed write or sync left on the disk is unknown, and trying again proves
            // nothing: the kernel may have dropped the pages.
            tracing::error!(%error, "the log cannot be written: the store takes no more writes");
            self.failed = Some(error.to_string());
        })?;
        self.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn append_record(&mut self, record: &Record) -> Result<(), StoreError> {
        let mut frame = vec![0; FRAME_HEADER];
        format::put_record(&mut frame, record);
        self.append(&mut frame, self.revision)
    }

    fn grant(&mut self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError> {
        let random = &*self.engine.environment().random;
        let id = leases::choose(&self.engine.state.read().leases, id, random)?;
        self.append_record(&Record::Grant { id, ttl_s })?;
        self.engine.state.write().leases.grant(id, ttl_s);
        Ok(id)
    }

    fn revoke(&mut self, id: LeaseId, only_expired: bool) -> Result<bool, StoreError> {
        let deletions = {
            let state = self.engine.state.read();
            if only_expired && !state.leases.is_expired(id) {
                return Ok(false);
            }
            state.revocation(id, self.revision + 1)
        };
        let Some(deletions) = deletions else { return Ok(false) };
        let mut frame = vec![0; FRAME_HEADER];
        format::put_commit(&mut frame, &deletions);
        format::put_record(&mut frame, &Record::Revoke { id });
        let revision = self.revision + u64::from(!deletions.is_empty());
        self.append(&mut frame, revision)?;
        self.revision = revision;
        let mut state = self.engine.state.write();
        state.commit(&deletions);
        state.leases.remove(id);
        Ok(true)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.engine.state.read().check_compact(revision)?;
        self.append_record(&Record::Compact { revision })?;
        while self.engine.compact_step(revision) {
            thread::yield_now();
        }
        self.snapshots.start(&self.engine, &mut self.log, revision);
        Ok(())
    }
}
