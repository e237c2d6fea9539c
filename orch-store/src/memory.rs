//! A store in memory.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use orch_core::Environment;

use crate::{
    Snapshot, StoreError,
    engine::{
        self, Engine, State, WatchOptions,
        draft::Draft,
        leases::{self, Expire, Expirer},
    },
    store::{
        LeaseId, LeaseReader, LeaseStatus, Leases, RangeRequest, RangeResponse, Revision, Store,
        StoreReader, Transaction, TransactionOutcome, WatchRequest, WatchStream, Write,
        WriteOutcome,
    },
};

/// How a [`MemoryStore`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// How many items are kept for a watcher; at least 1. One that is further behind reads from
    /// the history what it has not seen. Default: 1024. The memory is used only as far as it is
    /// filled.
    pub watch_buffer: usize,
    /// A watch that has been silent for so long gets a progress item. Default: none.
    pub progress_interval: Option<Duration>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { watch_buffer: 1024, progress_interval: None }
    }
}

/// Keys in order with their whole history since the last compaction, in memory. Cheap to clone;
/// clones are the same store.
///
/// Ranges read a snapshot that is taken in constant time, so that they neither block writers nor
/// see half of a change. Nothing waits: every call completes at its first poll, except that a long
/// compaction lets others have their turn; dropped half-way, the next one does what is left.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orch_store::StoreError> {
/// use orch_store::{KeyRange, MemoryStore, RangeRequest, Store, StoreReader, Write};
///
/// let store = MemoryStore::default();
/// store.write(Write::create("/pods/a", "1")).await?;
/// let pods = store.range(RangeRequest::new(KeyRange::prefix("/pods/"))).await?;
/// assert_eq!((pods.revision, pods.count), (2, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    expirer: Expirer,
}

impl Default for MemoryStore {
    /// An empty store with default options in the machine's time.
    fn default() -> Self {
        Self::new(Environment::system(), MemoryOptions::default())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(environment: Environment, options: MemoryOptions) -> Self {
        let MemoryOptions { watch_buffer, progress_interval } = options;
        let watch = WatchOptions { buffer: watch_buffer, progress_interval };
        let engine = Engine::new(State::default(), environment, watch);
        Self::over(engine)
    }

    /// A store of its own that begins as this one is now, in constant time: both share what they
    /// have in common. The leases come along, their time to live begun as it is here; nobody
    /// watches the fork yet.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), orch_store::StoreError> {
    /// use orch_store::{MemoryStore, Store, Write};
    ///
    /// let store = MemoryStore::default();
    /// store.write(Write::create("/a", "1")).await?;
    /// let fork = store.fork();
    /// fork.write(Write::put("/a", "what if")).await?;
    /// assert_eq!((store.revision(), fork.revision()), (2, 3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fork(&self) -> Self {
        Self::over(self.inner.engine.fork())
    }

    /// A fork as of an older revision, whose next write gets the revision after that one. Takes
    /// as long as it takes to undo the changes since. Leases are as they are now.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`], as for a range.
    pub fn fork_at(&self, revision: Revision) -> Result<Self, StoreError> {
        let engine = self.inner.engine.fork();
        {
            let mut state = engine.state.write();
            state.check_readable(revision)?;
            state.rewind(revision);
        }
        Ok(Self::over(engine))
    }

    /// Everything as it is now, to be read later: taken in constant time, and never changing.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.engine.freeze())
    }

    fn over(engine: Arc<Engine>) -> Self {
        let store = Self { inner: Arc::new(Inner { engine, expirer: Expirer::default() }) };
        store.start_expirer();
        store
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.inner.engine.state.read().revision
    }

    /// Leases that came with the state end in time too, if there is a runtime.
    fn start_expirer(&self) {
        let has_leases = self.inner.engine.state.read().leases.next_deadline().is_some();
        if has_leases && tokio::runtime::Handle::try_current().is_ok() {
            self.wake_expirer();
        }
    }

    fn wake_expirer(&self) {
        let engine = &self.inner.engine;
        self.inner.expirer.wake(Ending(Arc::downgrade(engine)), engine.environment());
    }
}

#[async_trait]
impl StoreReader for MemoryStore {
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
impl Store for MemoryStore {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        engine::check_write(&write)?;
        let state = &mut *self.inner.engine.lock();
        let (outcome, version) = Draft::new(state, &(), state.revision).write(write)?;
        state.commit(version.as_slice());
        Ok(outcome)
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        transaction.check()?;
        let state = &mut *self.inner.engine.lock();
        let draft = Draft::new(state, &(), state.revision);
        let (outcome, versions) = draft.transact(transaction)?;
        state.commit(&versions);
        Ok(outcome)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let engine = &self.inner.engine;
        let forgotten = {
            let mut state = engine.state.write();
            state.check_compact(revision)?;
            state.compact_step(revision)
        };
        let mut more = forgotten.more;
        drop(forgotten);
        // Whoever compacts further meanwhile does this work too; going back changes nothing.
        while more {
            tokio::task::yield_now().await;
            more = engine.compact_step(revision);
        }
        Ok(())
    }
}

#[async_trait]
impl LeaseReader for MemoryStore {
    async fn lease(&self, id: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        Ok(self.inner.engine.state.read().leases.status(id))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        Ok(self.inner.engine.state.read().leases.ids())
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError> {
        leases::check_ttl(ttl_s)?;
        let engine = &self.inner.engine;
        let id = {
            let mut state = engine.state.write();
            let id = leases::choose(&state.leases, id, &*engine.environment().random)?;
            state.leases.grant(id, ttl_s);
            id
        };
        self.wake_expirer();
        Ok(id)
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        let ttl_s = self.inner.engine.state.write().leases.keep_alive(id);
        self.wake_expirer();
        Ok(ttl_s)
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        Ok(self.inner.engine.state.write().end_lease(id))
    }
}

/// What ends the leases in time.
struct Ending(Weak<Engine>);

#[async_trait]
impl Expire for Ending {
    fn engine(&self) -> Option<Arc<Engine>> {
        self.0.upgrade()
    }

    async fn expire(&self, id: LeaseId) -> Result<(), StoreError> {
        if let Some(engine) = self.engine() {
            let mut state = engine.state.write();
            if state.leases.is_expired(id) {
                state.end_lease(id);
            }
        }
        Ok(())
    }
}
