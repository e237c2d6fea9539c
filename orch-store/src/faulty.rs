//! A wrapper that makes a store misbehave as stores do.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use orch_core::Environment;

use crate::{
    StoreError,
    store::{
        KeyRange, LeaseId, LeaseReader, LeaseStatus, Leases, Precondition, RangeRequest,
        RangeResponse, Revision, Store, StoreReader, Transaction, TransactionOutcome, WatchRequest,
        WatchStream, Write, WriteOutcome,
    },
};

/// How often things go wrong: probabilities from 0 to 1 for each call (each item, for watches).
/// The default is that nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A call fails with [`StoreError::Unavailable`] before it is done.
    pub unavailable: f64,
    /// A guarded write is refused as if somebody had changed the key in between.
    pub conflict: f64,
    /// A write fails with [`StoreError::Unknown`]; half of them were done, half were not.
    pub unknown: f64,
    /// A watch ends with [`StoreError::Unavailable`] instead of an item.
    pub watch_drop: f64,
    /// Each call and each item of a watch is held back for up to this long.
    pub delay_max: Duration,
}

/// A store that misbehaves, repeatably: what happens is decided by the generator of its
/// [`Environment`].
#[derive(Debug)]
pub struct FaultyStore<S: ?Sized> {
    environment: Environment,
    faults: Faults,
    store: Arc<S>,
}

impl<S: ?Sized> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        let Self { environment, faults, store } = self;
        Self { environment: environment.clone(), faults: *faults, store: store.clone() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection broke (injected)")]
struct Injected;

impl<S: ?Sized> FaultyStore<S> {
    /// Wraps a store.
    pub fn new(store: Arc<S>, environment: Environment, faults: Faults) -> Self {
        Self { environment, faults, store }
    }

    fn strikes(&self, probability: f64) -> bool {
        // Not asking for randomness without faults keeps a seed's course the same without them.
        probability > 0.0 && self.environment.random.unit() < probability
    }

    async fn delay(&self) {
        if !self.faults.delay_max.is_zero() {
            let delay = self.faults.delay_max.mul_f64(self.environment.random.unit());
            self.environment.clock.sleep(delay).await;
        }
    }

    /// Makes a call that changes something, or breaks the connection before or after it.
    async fn lose_answer<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.strikes(self.faults.unknown) {
            if self.environment.random.below(2) == 0 {
                call.await?;
            }
            return Err(StoreError::Unknown(Injected.into()));
        }
        call.await
    }

    async fn enter(&self) -> Result<(), StoreError> {
        self.delay().await;
        match self.strikes(self.faults.unavailable) {
            true => Err(StoreError::Unavailable("injected".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl<S: StoreReader + ?Sized> StoreReader for FaultyStore<S> {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.enter().await?;
        self.store.range(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.enter().await?;
        let items = self.store.watch(request).await?;
        let this = self.clone_faults();
        Ok(Box::pin(stream::unfold(Some((items, this)), |state| async {
            let (mut items, this) = state?;
            let item = items.next().await?;
            this.delay().await;
            if this.strikes(this.faults.watch_drop) {
                return Some((
                    Err(StoreError::Unavailable("the watch broke (injected)".into())),
                    None,
                ));
            }
            Some((item, Some((items, this))))
        })))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.enter().await?;
        self.store.request_progress().await
    }
}

impl<S: ?Sized> FaultyStore<S> {
    /// The faults without the store, which a watch must not keep alive.
    fn clone_faults(&self) -> FaultyStore<()> {
        FaultyStore::new(Arc::new(()), self.environment.clone(), self.faults)
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for FaultyStore<S> {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        self.enter().await?;
        if write.precondition != Precondition::None && self.strikes(self.faults.conflict) {
            let request = RangeRequest::new(KeyRange::key(write.key));
            let found = self.store.range(request).await?;
            let (current, revision) = (found.entries.into_iter().next(), found.revision);
            return Ok(WriteOutcome::PreconditionFailed { current, revision });
        }
        self.lose_answer(self.store.write(write)).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        self.enter().await?;
        self.lose_answer(self.store.transact(transaction)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.enter().await?;
        self.store.compact(revision).await
    }
}

#[async_trait]
impl<S: LeaseReader + ?Sized> LeaseReader for FaultyStore<S> {
    async fn lease(&self, id: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        self.enter().await?;
        self.store.lease(id).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.enter().await?;
        self.store.leases().await
    }
}

#[async_trait]
impl<S: Leases + ?Sized> Leases for FaultyStore<S> {
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError> {
        self.enter().await?;
        self.store.grant(id, ttl_s).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        self.enter().await?;
        self.store.keep_alive(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        self.enter().await?;
        self.store.revoke(id).await
    }
}
