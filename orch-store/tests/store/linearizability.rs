//! Several clients at once: what they are told is one order of events, with every store; and a
//! store that lies is found out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::FutureExt as _;
use orch_core::{Environment, testing::rounds};
use orch_store::{
    Durability, DurableOptions, DurableStore, Faults, FaultyStore, MemoryOptions, MemoryStore,
    Operation, Precondition, RangeRequest, RangeResponse, Revision, Step, Store, StoreError,
    StoreReader, Transaction, TransactionOutcome, WatchRequest, WatchStream, Write, WriteOutcome,
    testing::{Workload, history::History, linearizability},
};

/// Clients that really run at the same time.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn memory_is_linearizable() {
    runtime().block_on(async {
        for seed in 0..u64::from(rounds(12)) {
            let options = MemoryOptions { watch_buffer: 2, ..MemoryOptions::default() };
            let store = Arc::new(MemoryStore::new(Environment::system(), options));
            linearizability(store.clone(), store, seed, Workload::default()).await;
        }
    });
}

#[test]
fn durable_is_linearizable() {
    runtime().block_on(async {
        for seed in 0..u64::from(rounds(6)) {
            let folder = tempfile::tempdir().unwrap();
            let options = DurableOptions {
                durability: Durability::LostOnPowerFailure,
                segment_bytes: 4096,
                watch_buffer: 2,
                ..DurableOptions::default()
            };
            let store = Arc::new(DurableStore::open(folder.path(), options).unwrap());
            let workload = Workload { clients: 8, ..Workload::default() };
            let history = linearizability(store.clone(), store, seed, workload).await;
            assert!(history.unknown() > 0, "calls were abandoned");
        }
    });
}

/// The judge's work grows with the history, not with the ways through it.
#[test]
fn thousands_of_calls_are_judged() {
    runtime().block_on(async {
        let environment = Environment::system();
        let truth = Arc::new(MemoryStore::default());
        let faults = Faults { unknown: 0.2, ..Faults::default() };
        let store = Arc::new(FaultyStore::new(truth.clone(), environment, faults));
        let workload = Workload { clients: 16, calls: 300, keys: 6, ..Workload::default() };
        let history = linearizability(store, truth, 1, workload).await;
        let (calls, unknown) = (history.calls.len(), history.unknown());
        assert!(calls == 4800 && unknown > 400, "{unknown} of {calls} unknown");
    });
}

/// A course over a faulty store, all of it decided by the seed.
async fn faulty(seed: u64) -> History {
    let environment = Environment::seeded(Default::default(), seed);
    let truth = Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()));
    let faults = Faults {
        unavailable: 0.05,
        unknown: 0.15,
        watch_drop: 0.1,
        watch_stall: 0.05,
        stall: Duration::from_millis(200),
        delay_max: Duration::from_millis(20),
        crash_after: Some(50 + seed % 100),
        ..Faults::default()
    };
    let store = FaultyStore::new(truth.clone(), environment.clone(), faults);
    let control = store.control();
    let restarts = async {
        loop {
            environment.clock.sleep(Duration::from_millis(100)).await;
            control.restart();
        }
    };
    let course = linearizability(Arc::new(store), truth, seed, Workload::default());
    let history = tokio::select! {
        biased;
        history = course => history,
        never = restarts => never,
    };
    assert_eq!(control.struck().crashes, 1);
    history
}

/// The one fault of watches that is outside of the contract.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "seed 3")]
async fn a_watch_that_repeats_itself_is_found_out() {
    let environment = Environment::seeded(Default::default(), 3);
    let truth = Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()));
    let faults = Faults { watch_drop: 0.2, watch_repeat: 0.5, ..Faults::default() };
    let store = FaultyStore::new(truth.clone(), environment, faults);
    linearizability(Arc::new(store), truth, 3, Workload::default()).await;
}

#[test]
fn faulty_stores_are_linearizable_too() {
    // A runtime of its own for each: whose turn it is depends on the turns that there were.
    let course = |seed| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(faulty(seed))
    };
    let unknown: usize = (0..u64::from(rounds(24))).map(|seed| course(seed).unknown()).sum();
    assert!(unknown > 100, "outcomes were unknown: {unknown}");
    let (once, again) = (course(7), course(7));
    assert!(once.calls == again.calls && once.log == again.log, "a seed's course is one course");
}

/// What a store can do wrong.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Ranges are of a while ago.
    StaleRead,
    /// A guard is taken to hold.
    LostUpdate,
    /// A write is done twice.
    DoubledWrite,
    /// Two writes are told the same revision.
    RevisionGivenTwice,
    /// A transaction is done in two halves.
    HalfTransaction,
    /// A write is acknowledged and not done.
    MissingWrite,
    /// A write that failed was done.
    DoneAfterAll,
}

/// A store that lies in one way, at every tenth occasion.
#[derive(Debug)]
struct Liar {
    store: MemoryStore,
    lie: Lie,
    occasions: std::sync::atomic::AtomicU64,
}

impl Liar {
    fn lies(&self) -> bool {
        let before = self.occasions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        before % 10 == 9
    }

    async fn lie(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        match self.lie {
            Lie::LostUpdate => {
                let blind = Write { precondition: Precondition::None, ..write };
                self.store.write(blind).await
            }
            Lie::DoubledWrite => {
                let again = Write { precondition: Precondition::None, ..write.clone() };
                let outcome = self.store.write(write).await?;
                if matches!(outcome, WriteOutcome::Committed { .. }) {
                    self.store.write(again).await?;
                }
                Ok(outcome)
            }
            Lie::RevisionGivenTwice => Ok(match self.store.write(write).await? {
                WriteOutcome::Committed { revision, previous } => {
                    WriteOutcome::Committed { revision: revision - 1, previous }
                }
                refused => refused,
            }),
            Lie::MissingWrite => {
                let revision = self.store.revision() + 1;
                Ok(WriteOutcome::Committed { revision, previous: None })
            }
            Lie::DoneAfterAll => {
                self.store.write(write).await?;
                Err(StoreError::Unavailable("not at all".into()))
            }
            Lie::StaleRead | Lie::HalfTransaction => self.store.write(write).await,
        }
    }
}

#[async_trait]
impl StoreReader for Liar {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let newest = request.revision.is_none_or(|revision| revision == 0);
        if newest && matches!(self.lie, Lie::StaleRead) && self.lies() {
            let revision: Revision = self.store.revision().saturating_sub(3).max(1);
            let past = RangeRequest { revision: Some(revision), ..request };
            return Ok(RangeResponse { revision, ..self.store.range(past).await? });
        }
        self.store.range(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.store.watch(request).await
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.store.request_progress().await
    }
}

#[async_trait]
impl Store for Liar {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let puts = matches!(write.operation, Operation::Put { .. });
        if puts && self.lies() {
            return self.lie(write).await;
        }
        self.store.write(write).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        let halves = matches!(self.lie, Lie::HalfTransaction);
        let puts = transaction.success.iter().filter(|step| matches!(step, Step::Put(_))).count();
        if !halves || puts < 2 {
            return self.store.transact(transaction).await;
        }
        let rest = transaction.success[1..].to_vec();
        let mut first = transaction;
        first.success.truncate(1);
        let mut outcome = self.store.transact(first).await?;
        if outcome.succeeded {
            tokio::task::yield_now().await;
            let rest = Transaction { success: rest, ..Transaction::default() };
            let rest = self.store.transact(rest).await?;
            outcome.results.extend(rest.results);
        }
        Ok(outcome)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

#[tokio::test]
async fn a_store_that_lies_is_found_out() {
    for lie in [
        Lie::StaleRead,
        Lie::LostUpdate,
        Lie::DoubledWrite,
        Lie::RevisionGivenTwice,
        Lie::HalfTransaction,
        Lie::MissingWrite,
        Lie::DoneAfterAll,
    ] {
        let store = MemoryStore::default();
        let liar = Arc::new(Liar { store: store.clone(), lie, occasions: Default::default() });
        let course = linearizability(liar, Arc::new(store), 1, Workload::default());
        let found = std::panic::AssertUnwindSafe(course).catch_unwind().await;
        let Err(panic) = found else { panic!("{lie:?} was not found") };
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.starts_with("seed 1: "), "{lie:?}: {message}");
    }
}
