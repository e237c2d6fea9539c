//! A wrapper that makes a store misbehave as stores do, by chance or on demand.

mod calls;
mod control;
mod watch;

use std::{sync::Arc, time::Duration};

use orch_core::Environment;

use self::control::Shared;
pub use self::control::{Control, Failure, Struck};
use crate::StoreError;

/// How often things go wrong: probabilities from 0 to 1 for each occasion, and amounts. The
/// default is that nothing does.
///
/// Except where a field says otherwise, what happens is within the contract: a store on the other
/// side of a network may do all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A call fails with [`StoreError::Unavailable`] before it is done.
    pub unavailable: f64,
    /// A guarded write is refused, and a transaction with comparisons takes its other branch, as
    /// if somebody had changed a key in between. The entry that the refusal tells is the true one.
    /// This breaks the contract: the guard may hold.
    pub conflict: f64,
    /// A write, a transaction, a compaction or a change of a lease fails with
    /// [`StoreError::Unknown`]; half of them were done, half were not.
    pub unknown: f64,
    /// A watch ends with [`StoreError::Unavailable`] instead of delivering an item.
    pub watch_drop: f64,
    /// A watch holds an item, and all behind it, back for [`stall`](Self::stall).
    pub watch_stall: f64,
    /// How long a stalled watch stalls.
    pub stall: Duration,
    /// A watch that is opened at a revision begins up to 8 revisions earlier: whoever reconnects
    /// is told again what it has been told. This breaks the contract, of which many a client
    /// believes that it is kept: use it to find those that need not.
    pub watch_repeat: f64,
    /// The store is compacted at its newest revision at the worst moment: right before a range at
    /// an old revision (such as the next page of a list) or a watch from one (such as a
    /// reconnection).
    pub compaction: f64,
    /// Each call and each item of a watch is held back for up to this long.
    pub delay_max: Duration,
    /// After so many calls the store crashes, as by [`Control::crash_after`]; `None` is never.
    pub crash_after: Option<u64>,
}

/// A store that misbehaves, repeatably: what happens is decided by the generator of its
/// [`Environment`], and by its [`Control`]. It waits on the environment's clock. Cheap to clone;
/// clones are the same store.
///
/// Without faults it is what it wraps: no randomness is drawn for faults that cannot strike, so
/// the course of everything else remains the same.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orch_store::StoreError> {
/// use std::sync::Arc;
///
/// use orch_core::Environment;
/// use orch_store::{
///     Failure, Faults, FaultyStore, KeyRange, MemoryStore, RangeRequest, Store, StoreError,
///     StoreReader, Write,
/// };
///
/// let memory = Arc::new(MemoryStore::default());
/// let store = FaultyStore::new(memory, Environment::system(), Faults::default());
/// store.control().fail_next(Failure::UnknownDone);
/// let outcome = store.write(Write::create("/a", "1")).await;
/// assert!(matches!(outcome, Err(StoreError::Unknown(_))));
/// assert_eq!(store.range(RangeRequest::new(KeyRange::key("/a"))).await?.count, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultyStore<S: ?Sized> {
    chance: Chance,
    shared: Arc<Shared>,
    store: Arc<S>,
}

impl<S: ?Sized> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        let Self { chance, shared, store } = self;
        Self { chance: chance.clone(), shared: shared.clone(), store: store.clone() }
    }
}

impl<S: ?Sized> FaultyStore<S> {
    /// Wraps a store.
    pub fn new(store: Arc<S>, environment: Environment, faults: Faults) -> Self {
        let shared = Arc::new(Shared::new(faults.crash_after));
        Self { chance: Chance { environment, faults, shared: shared.clone() }, shared, store }
    }

    /// The handle that makes it misbehave on demand.
    pub fn control(&self) -> Control {
        Control::of(self.shared.clone())
    }
}

/// What is left to chance.
#[derive(Clone, Debug)]
struct Chance {
    environment: Environment,
    faults: Faults,
    shared: Arc<Shared>,
}

impl Chance {
    fn strikes(&self, probability: f64) -> bool {
        // Not asking for randomness without faults keeps a seed's course the same without them.
        probability > 0.0 && !self.shared.spares() && self.environment.random.unit() < probability
    }

    async fn delay(&self) {
        if !self.faults.delay_max.is_zero() && !self.shared.spares() {
            let delay = self.faults.delay_max.mul_f64(self.environment.random.unit());
            self.environment.clock.sleep(delay).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection broke (injected)")]
struct Injected;

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(format!("{why} (injected)"))
}

fn unknown() -> StoreError {
    StoreError::Unknown(Injected.into())
}
