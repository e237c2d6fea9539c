//! A store in one folder, durable before it answers.
//!
//! The index is the memory store's: everything is held in memory, and the folder is the log from
//! which it is built when the store is opened.
//!
//! # How a write becomes durable and visible
//! One thread takes the writes that wait, decides them in order on what is visible and what was
//! decided before, and encodes them into one frame of the log. The frame is written and synced.
//! Behind that, a second thread makes the changes visible to readers and watchers and answers the
//! callers, while the first is at the next batch. So a change is visible only when it is durable,
//! and its caller is told only when it is visible.
//!
//! # On disk (format version 2)
//! All integers are little-endian; checksums are CRC-32C.
//!
//! - `LOCK`: empty; the process that has the store open holds an exclusive lock on it.
//! - `log-<number>.wal`: a segment of the log. `<number>` (20 digits) is that of its first frame;
//!   frames are numbered from 1 without gaps across segments. A segment is made at its full
//!   length, which its header tells; what was not written yet is zero. One that is continued in
//!   the next is cut to what it holds.
//! - `CLOSED`: where the log ended, there only while the store is closed after an orderly end: the
//!   header of a file with the number of the last segment and the offset of its end.
//! - `snapshot-<revision>.snap`: the live keys at a compacted revision and the leases. Segments
//!   that hold nothing newer are removed. A backup is such a file. `*.tmp` was never finished.
//!
//! | a file's header (32 bytes) | | a frame's header (20 bytes) | |
//! |---|---|---|---|
//! | `ORCHWAL\n`, `ORCHSNP\n` or `ORCHEND\n` | 8 bytes | length of the payload | u32 |
//! | format version | u32 | number | u64 |
//! | first frame's number, or revision | u64 | checksum of the payload | u32 |
//! | length or offset, 0 for a snapshot | u64 | checksum of the above | u32 |
//! | checksum of the above | u32 | | |
//!
//! A payload is a sequence of records, which take effect together; `bytes` is a u32 length and
//! the bytes, and a lease of 0 is none:
//!
//! | tag | record | content |
//! |---|---|---|
//! | 1 | commit | revision u64, count u32, then changes: 1 put (key bytes, lease i64, value bytes) or 2 delete (key bytes) |
//! | 2 | grant | lease i64, time to live in seconds i64 |
//! | 3 | revoke | lease i64 (the deletions are a commit before it) |
//! | 4 | compact | revision u64 |
//! | 5 | entry (snapshots) | create, mod revision u64, version u64, lease i64, key bytes, value bytes |
//! | 6 | end (snapshots) | number of entries u64 |
//!
//! # Damage
//! A frame is begun only when the one before it is on disk, so that only the last can be cut off
//! by a crash, and nobody was told of it: it is removed. It is recognised by a sector that was
//! never written, with nothing behind it. Everything else is [`StoreError::Corrupt`], with the
//! file and the offset, and the store does not open: also a file that is missing, or shorter than
//! it was made or than the log was when it was closed. After a failed write or sync the store
//! answers reads and takes no more writes. A full disk is met before anything is written:
//! [`StoreError::NoSpace`], and the store goes on.

mod backup;
mod compaction;
mod disk;
mod format;
mod log;
mod pipeline;
mod segment;
mod snapshot;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use orch_core::{Environment, clock::Clock};
use tokio::sync::{mpsc, oneshot};

use self::{
    compaction::Snapshots,
    disk::{Disk, RealDisk, io_error, remove_unfinished},
    format::{Change, Record},
    log::Log,
    pipeline::Reply,
    writer::{Command, Writer},
};
use crate::{
    Snapshot, StoreError,
    engine::{
        self, Engine, State, WatchOptions,
        leases::{self, Expire, Expirer},
        version::Version,
    },
    store::{
        LeaseId, LeaseReader, LeaseStatus, Leases, RangeRequest, RangeResponse, Revision, Store,
        StoreReader, Transaction, TransactionOutcome, WatchRequest, WatchStream, Write,
        WriteOutcome,
    },
};

/// What an acknowledged write has behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk: it survives the process and the machine's power.
    #[default]
    SyncedBeforeAck,
    /// It is with the operating system: it survives the process, not the machine's power.
    LostOnPowerFailure,
}

/// How a [`DurableStore`] behaves.
#[derive(Clone, Debug)]
pub struct DurableOptions {
    /// What an acknowledged write has behind it. Default: [`Durability::SyncedBeforeAck`].
    pub durability: Durability,
    /// The log is continued in a new file at this size in bytes, and each file has that size from
    /// its beginning. Default: 64 MiB.
    pub segment_bytes: u64,
    /// A compaction writes a snapshot when at least so many bytes of log become superfluous by
    /// it; whole segments only. Default: 64 MiB.
    pub snapshot_bytes_min: u64,
    /// How many writes may wait to be logged; further ones wait to be taken. At least 1.
    /// Default: 8192.
    pub queue: usize,
    /// As [`MemoryOptions::watch_buffer`](crate::MemoryOptions::watch_buffer). Default: 1024.
    pub watch_buffer: usize,
    /// As [`MemoryOptions::progress_interval`](crate::MemoryOptions::progress_interval).
    /// Default: none.
    pub progress_interval: Option<Duration>,
    /// Time (for leases) and randomness (for their ids). Default: the machine's.
    pub environment: Environment,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            durability: Durability::SyncedBeforeAck,
            segment_bytes: 64 << 20,
            snapshot_bytes_min: 64 << 20,
            queue: 8192,
            watch_buffer: 1024,
            progress_interval: None,
            environment: Environment::system(),
        }
    }
}

/// A store in one folder. Cheap to clone; clones are the same store. Dropping the last one waits
/// until the folder is closed and unlocked.
///
/// Leases start their time to live anew when the store is opened.
#[derive(Clone, Debug)]
pub struct DurableStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    folder: PathBuf,
    /// How far the log is written.
    log_bytes: Arc<AtomicU64>,
    /// None only while it is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    expirer: Expirer,
}

impl DurableStore {
    /// Opens the store in a folder, which is created if it is not there. Blocks while it reads
    /// the log.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Corrupt`] for damage
    /// or an unknown format version, [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>, options: DurableOptions) -> Result<Self, StoreError> {
        Self::open_on(path.as_ref(), options, Arc::new(RealDisk))
    }

    fn open_on(
        folder: &Path,
        options: DurableOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        remove_unfinished(folder)?;
        let mut state = State::default();
        let snapshot = snapshot::read(folder, &mut state)?;
        let log =
            Log::open(folder, &options, disk, !snapshot, &mut |record| replay(&mut state, record))?;
        let has_leases = state.leases.next_deadline().is_some();
        let DurableOptions { watch_buffer: buffer, progress_interval, .. } = options;
        let watch = WatchOptions { buffer, progress_interval };
        let engine = Engine::new(state, options.environment, watch);
        let (commands, receiver) = mpsc::channel(options.queue.max(1));
        let minimum = options.snapshot_bytes_min;
        let log_bytes = Arc::new(AtomicU64::new(log.bytes()));
        let snapshots = Snapshots::new(folder.to_owned(), minimum);
        let writer = Writer::start(engine.clone(), log, snapshots, log_bytes.clone());
        let writer = writer.map_err(io_error(folder))?;
        // Deadlines of leases are in the runtime's time, which may be virtual, also where the
        // thread sets and judges them.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let run = move || {
            let _time = runtime.as_ref().map(tokio::runtime::Handle::enter);
            writer.run(receiver);
            drop(lock);
        };
        let thread = thread::Builder::new().name("orch-store".into()).spawn(run);
        let writer = Some(thread.map_err(io_error(folder))?);
        let inner = Inner {
            engine,
            folder: folder.to_owned(),
            log_bytes,
            commands: Some(commands),
            writer,
            expirer: Expirer::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        if has_leases && tokio::runtime::Handle::try_current().is_ok() {
            store.wake_expirer();
        }
        Ok(store)
    }

    /// Everything as it is now, to be read later: taken in constant time, and never changing.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.engine.freeze())
    }

    /// How many bytes the store takes on disk: its log as far as it is written, and its snapshot.
    pub fn bytes_on_disk(&self) -> u64 {
        let count = |suffix: &str| -> u64 {
            let files = fs::read_dir(&self.inner.folder).into_iter().flatten().flatten();
            let files = files.filter(|file| file.file_name().to_string_lossy().ends_with(suffix));
            files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
        };
        count(".snap") + self.inner.log_bytes.load(Ordering::Relaxed)
    }

    /// The newest revision that is durable.
    pub fn revision(&self) -> Revision {
        self.inner.engine.state.read().revision
    }

    fn wake_expirer(&self) {
        let Inner { engine, commands, .. } = &*self.inner;
        if let Some(commands) = commands {
            let ending = Ending {
                engine: Arc::downgrade(engine),
                commands: commands.downgrade(),
                clock: engine.environment().clock.clone(),
            };
            self.inner.expirer.wake(ending, engine.environment());
        }
    }
}

impl Inner {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store is shut down".into());
        let commands = self.commands.as_ref().ok_or_else(stopped)?;
        commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|error| StoreError::Unknown(error.into()))?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // Whoever opens the folder next must find it unlocked. At most one batch is waited for.
            let _ = writer.join();
        }
    }
}

/// Creates the folder if need be and takes its lock, which lasts as long as the file is open.
fn lock(folder: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let path = folder.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(folder.display().to_string())),
        Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

/// Does to the state what a record tells; gives the revision that it is at then.
fn replay(state: &mut State, record: Record) -> Result<Revision, String> {
    match record {
        // A snapshot has what is not newer than it.
        Record::Commit { revision, .. } if revision <= state.revision => {}
        Record::Commit { revision, changes } => {
            if revision != state.revision + 1 {
                let current = state.revision;
                return Err(format!("revision {revision} follows revision {current}"));
            }
            let version = |change| match change {
                Change::Put { key, value, lease } => {
                    let head = state.keys.get(&key);
                    Ok(Version::put(key.clone(), value, lease, revision, head))
                }
                Change::Delete { key } => match state.keys.get(&key) {
                    Some(head) => Ok(Version::tombstone(revision, head)),
                    None => Err("a deletion of a key that does not exist".to_owned()),
                },
            };
            let versions: Vec<_> =
                changes.into_iter().map(version).collect::<Result<_, String>>()?;
            state.commit(&versions);
        }
        Record::Grant { id, ttl_s } => {
            if !state.leases.contains(id) {
                state.leases.grant(id, ttl_s);
            }
        }
        Record::Revoke { id } => drop(state.leases.remove(id)),
        Record::Compact { revision } if revision <= state.compacted => {}
        Record::Compact { revision } => {
            state.check_compact(revision).map_err(|error| error.to_string())?;
            state.compact(revision);
        }
        Record::Entry(_) | Record::End { .. } => {
            return Err("a record that does not belong into a log".into());
        }
    }
    Ok(state.revision)
}

#[async_trait]
impl StoreReader for DurableStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.inner.engine.range(&request)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.inner.engine.watch(request)
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.inner.engine.request_progress();
        Ok(())
    }
}

#[async_trait]
impl Store for DurableStore {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        engine::check_write(&write)?;
        writer::check_size(&write)?;
        self.inner.ask(|reply| Command::Write(write, reply)).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        transaction.check()?;
        self.inner.ask(|reply| Command::Transact(transaction, reply)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.ask(|reply| Command::Compact(revision, reply)).await
    }
}

#[async_trait]
impl LeaseReader for DurableStore {
    async fn lease(&self, id: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        Ok(self.inner.engine.state.read().leases.status(id))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        Ok(self.inner.engine.state.read().leases.ids())
    }
}

#[async_trait]
impl Leases for DurableStore {
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError> {
        leases::check_ttl(ttl_s)?;
        let id = self.inner.ask(|reply| Command::Grant(id, ttl_s, reply)).await?;
        self.wake_expirer();
        Ok(id)
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        let ttl_s = self.inner.engine.state.write().leases.keep_alive(id);
        self.wake_expirer();
        Ok(ttl_s)
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        self.inner.ask(|reply| Command::Revoke { id, only_expired: false, reply }).await
    }
}

/// What ends the leases in time. It holds the writer's queue only while it puts something in, so
/// that the store can be closed at any moment.
struct Ending {
    engine: Weak<Engine>,
    commands: mpsc::WeakSender<Command>,
    clock: Arc<dyn Clock>,
}

/// How long it waits when the writer's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

#[async_trait]
impl Expire for Ending {
    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    async fn expire(&self, id: LeaseId) -> Result<(), StoreError> {
        loop {
            let (reply, answer) = oneshot::channel();
            let command = Command::Revoke { id, only_expired: true, reply };
            let sent = self.commands.upgrade().map(|commands| commands.try_send(command));
            match sent {
                Some(Ok(())) => {
                    return answer
                        .await
                        .map_err(|error| StoreError::Unknown(error.into()))?
                        .map(drop);
                }
                Some(Err(mpsc::error::TrySendError::Full(_))) => {
                    self.clock.sleep(FULL_PAUSE).await;
                }
                None | Some(Err(mpsc::error::TrySendError::Closed(_))) => {
                    return Err(StoreError::Unavailable("the store is shut down".into()));
                }
            }
        }
    }
}
