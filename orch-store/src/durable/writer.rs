//! The one thread that writes: it decides writes in order, logs a batch of them with one fsync,
//! and only then makes them visible and answers.

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    format::{self, FRAME_HEADER, PAYLOAD_MAX, Record},
    log::Log,
    snapshot,
};
use crate::{
    StoreError,
    engine::{
        Engine,
        draft::{Draft, Heads},
        leases,
        version::Version,
    },
    store::{LeaseId, Operation, Revision, Transaction, TransactionOutcome, Write, WriteOutcome},
};

/// A batch is logged when it has so many writes or bytes, or nothing more is waiting.
const BATCH_WRITES: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

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
    if write.key.len() + value > PAYLOAD_MAX - BATCH_BYTES - 1024 {
        return Err(StoreError::Invalid("the value is too large to be stored".into()));
    }
    Ok(())
}

/// The thread's state.
pub(super) struct Writer {
    engine: Arc<Engine>,
    log: Log,
    folder: PathBuf,
    snapshot_bytes_min: u64,
    /// Why nothing is written any more.
    failed: Option<String>,
    snapshot: Option<JoinHandle<()>>,
}

/// Writes that are decided and not yet logged.
#[derive(Default)]
struct Batch {
    /// The newest versions, not yet visible, of the keys that this batch changes.
    heads: Heads,
    /// The changes in the order of their revisions.
    versions: Vec<Arc<Version>>,
    /// How many revisions they are.
    revisions: u64,
    answers: Vec<Answer>,
    frame: Vec<u8>,
}

/// What is told to a caller once its write is durable.
enum Answer {
    Write(Reply<WriteOutcome>, WriteOutcome),
    Transact(Reply<TransactionOutcome>, TransactionOutcome),
}

impl Answer {
    fn send(self, logged: Result<(), StoreError>) {
        match self {
            Self::Write(reply, outcome) => drop(reply.send(logged.map(|()| outcome))),
            Self::Transact(reply, outcome) => drop(reply.send(logged.map(|()| outcome))),
        }
    }
}

impl Batch {
    /// Takes in the changes of one write, which may be none.
    fn add(&mut self, versions: &[Arc<Version>], answer: Answer) {
        self.answers.push(answer);
        format::put_commit(&mut self.frame, versions);
        self.revisions += u64::from(!versions.is_empty());
        for version in versions {
            self.heads.insert(version.entry.key.clone(), version.clone());
            self.versions.push(version.clone());
        }
    }
}

impl Writer {
    pub(super) fn new(
        engine: Arc<Engine>,
        log: Log,
        folder: PathBuf,
        snapshot_bytes_min: u64,
    ) -> Self {
        Self { engine, log, folder, snapshot_bytes_min, failed: None, snapshot: None }
    }

    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = None;
        while let Some(command) = waiting.take().or_else(|| commands.blocking_recv()) {
            match command {
                write @ (Command::Write(..) | Command::Transact(..)) => {
                    waiting = self.write_batch(write, &mut commands);
                }
                Command::Compact(revision, reply) => {
                    let _ = reply.send(self.compact(revision));
                }
                Command::Grant(id, ttl_s, reply) => {
                    let _ = reply.send(self.grant(id, ttl_s));
                }
                Command::Revoke { id, only_expired, reply } => {
                    let _ = reply.send(self.revoke(id, only_expired));
                }
            }
        }
        if let Err(error) = self.log.sync() {
            tracing::error!(%error, "the log could not be synced at the end");
        }
        if let Some(snapshot) = self.snapshot.take() {
            let _ = snapshot.join();
        }
    }

    /// Decides a write and those that wait behind it, logs them together, and answers. Gives back
    /// the first command that is not a write.
    fn write_batch(
        &mut self,
        first: Command,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        let mut batch = Batch { frame: vec![0; FRAME_HEADER], ..Batch::default() };
        let mut next = Some(first);
        let mut waiting = None;
        while let Some(command) = next {
            waiting = self.decide(&mut batch, command);
            let full = batch.answers.len() >= BATCH_WRITES || batch.frame.len() >= BATCH_BYTES;
            next = if full || waiting.is_some() { None } else { commands.try_recv().ok() };
        }
        self.finish(batch);
        waiting
    }

    /// Takes a write into the batch; gives back a command that is none.
    fn decide(&self, batch: &mut Batch, command: Command) -> Option<Command> {
        let state = self.engine.state.read();
        let draft = Draft::new(&state, &batch.heads, state.revision + batch.revisions);
        match command {
            Command::Write(write, reply) => match draft.write(write) {
                Err(error) => drop(reply.send(Err(error))),
                Ok((outcome, version)) => {
                    batch.add(version.as_slice(), Answer::Write(reply, outcome));
                }
            },
            Command::Transact(transaction, reply) => match draft.transact(transaction) {
                Err(error) => drop(reply.send(Err(error))),
                Ok((outcome, versions)) => {
                    batch.add(&versions, Answer::Transact(reply, outcome));
                }
            },
            other => return Some(other),
        }
        None
    }

    fn finish(&mut self, mut batch: Batch) {
        let logged = match batch.versions.last() {
            // Outcomes that change nothing were decided on what is durable already.
            None => Ok(()),
            Some(last) => self.append(&mut batch.frame, last.entry.mod_revision),
        };
        if let Err(error) = logged {
            let mut first = Some(error);
            for answer in batch.answers {
                answer.send(Err(first.take().unwrap_or_else(|| self.refusal())));
            }
            return;
        }
        let same =
            |a: &Arc<Version>, b: &Arc<Version>| a.entry.mod_revision == b.entry.mod_revision;
        for versions in batch.versions.chunk_by(same) {
            // One lock for each, so that readers are never kept out for a whole batch.
            self.engine.state.write().commit(versions);
        }
        batch.answers.into_iter().for_each(|answer| answer.send(Ok(())));
    }

    fn refusal(&self) -> StoreError {
        let why = self.failed.as_deref().unwrap_or("a write failed");
        StoreError::Io(why.into(), std::io::Error::other("the store takes no more writes"))
    }

    fn append(&mut self, frame: &mut [u8], revision: Revision) -> Result<(), StoreError> {
        if self.failed.is_some() {
            return Err(self.refusal());
        }
        self.log.append(frame, revision).inspect_err(|error| {
            // What a failed write or fsync left on the disk is unknown, and trying again proves
            // nothing: the kernel may have dropped the pages.
            tracing::error!(%error, "the log cannot be written: the store takes no more writes");
            self.failed = Some(error.to_string());
        })
    }

    fn append_record(&mut self, record: &Record) -> Result<(), StoreError> {
        let mut frame = vec![0; FRAME_HEADER];
        format::put_record(&mut frame, record);
        let revision = self.engine.state.read().revision;
        self.append(&mut frame, revision)
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
            state.revocation(id, state.revision + 1)
        };
        let Some(deletions) = deletions else { return Ok(false) };
        let mut frame = vec![0; FRAME_HEADER];
        format::put_commit(&mut frame, &deletions);
        format::put_record(&mut frame, &Record::Revoke { id });
        let current = self.engine.state.read().revision;
        let revision = deletions.first().map_or(current, |first| first.entry.mod_revision);
        self.append(&mut frame, revision)?;
        let mut state = self.engine.state.write();
        state.commit(&deletions);
        state.leases.remove(id);
        Ok(true)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.engine.state.read().check_compact(revision)?;
        self.append_record(&Record::Compact { revision })?;
        while self.engine.compact_step(revision) {}
        self.start_snapshot(revision);
        Ok(())
    }

    /// Gives space back once enough of the log is superfluous.
    fn start_snapshot(&mut self, revision: Revision) {
        let running = self.snapshot.as_ref().is_some_and(|thread| !thread.is_finished());
        if running || self.log.reclaimable(revision) < self.snapshot_bytes_min.max(1) {
            return;
        }
        let source = {
            let state = self.engine.state.read();
            let leases = state.leases.iter().collect();
            snapshot::Source { revision, keys: state.keys.clone(), leases }
        };
        let superfluous = self.log.take_superfluous(revision);
        let folder = self.folder.clone();
        let work = move || {
            if let Err(error) = snapshot::write(&folder, &source, &superfluous) {
                // Nothing is lost: the log that the snapshot was to replace is still there.
                tracing::error!(%error, "a snapshot could not be written");
            }
        };
        match thread::Builder::new().name("orch-snapshot".into()).spawn(work) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => tracing::error!(%error, "a snapshot could not be started"),
        }
    }
}
