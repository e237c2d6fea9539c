//! The calls, and what is done to them.

use async_trait::async_trait;

use super::{Failure, FaultyStore, unavailable, unknown, watch};
use crate::{
    StoreError,
    store::{
        Compare, KeyRange, LeaseId, LeaseReader, LeaseStatus, Leases, Operand, Operator,
        Precondition, RangeRequest, RangeResponse, Revision, Store, StoreReader, Transaction,
        TransactionOutcome, WatchRequest, WatchStream, Write, WriteOutcome,
    },
};

/// No key has been written so often.
const NEVER: u64 = i64::MAX as u64;

/// How far back a watch that repeats begins.
const REPEATED_MAX: u64 = 8;

impl<S: ?Sized> FaultyStore<S> {
    /// Every call begins here.
    async fn enter(&self) -> Result<(), StoreError> {
        self.chance.delay().await;
        self.shared.admit()?;
        if self.chance.strikes(self.chance.faults.unavailable) {
            self.shared.count(|struck| struck.unavailable += 1);
            return Err(unavailable("unavailable"));
        }
        Ok(())
    }

    /// How a change fails, if it does.
    fn failure(&self, guarded: bool) -> Option<Failure> {
        let chance = &self.chance;
        self.shared.next_failure(guarded).or_else(|| {
            if guarded && chance.strikes(chance.faults.conflict) {
                return Some(Failure::Conflict);
            }
            chance.strikes(chance.faults.unknown).then(|| {
                match chance.environment.random.below(2) {
                    0 => Failure::UnknownDone,
                    _ => Failure::UnknownNotDone,
                }
            })
        })
    }

    /// Makes a call that changes something, or breaks the connection before or after it.
    async fn change<T>(
        &self,
        failure: Option<Failure>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match failure {
            None | Some(Failure::Conflict) => call.await,
            Some(Failure::Unavailable) => {
                self.shared.count(|struck| struck.unavailable += 1);
                Err(unavailable("unavailable"))
            }
            Some(Failure::UnknownDone) => {
                call.await?;
                self.shared.count(|struck| struck.unknown_done += 1);
                Err(unknown())
            }
            Some(Failure::UnknownNotDone) => {
                self.shared.count(|struck| struck.unknown_not_done += 1);
                Err(unknown())
            }
        }
    }
}

impl<S: Store + ?Sized> FaultyStore<S> {
    /// Compacts everything before a call that depends on an old revision, if it is so bad a day.
    async fn compact_at_worst_moment(&self, revision: Option<Revision>) -> Result<(), StoreError> {
        if revision.is_none_or(|revision| revision == 0) {
            return Ok(());
        }
        let ordered = self.shared.takes_compaction();
        if !ordered && !self.chance.strikes(self.chance.faults.compaction) {
            return Ok(());
        }
        let newest = self.newest().await?;
        match self.store.compact(newest).await {
            // Compacted before: as bad.
            Ok(()) | Err(StoreError::Compacted { .. }) => {
                self.shared.count(|struck| struck.compactions += 1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn newest(&self) -> Result<Revision, StoreError> {
        let nothing = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) };
        Ok(self.store.range(nothing).await?.revision)
    }

    /// Opens a watch too early, if that is still possible.
    async fn watch_again(&self, request: &WatchRequest) -> Result<Option<WatchStream>, StoreError> {
        let Some(from) = request.from.filter(|from| *from > 0) else { return Ok(None) };
        let chance = &self.chance;
        let back = match self.shared.takes_repetition() {
            0 if chance.strikes(chance.faults.watch_repeat) => {
                1 + chance.environment.random.below(REPEATED_MAX)
            }
            ordered => ordered,
        };
        if back == 0 {
            return Ok(None);
        }
        let earlier = Some(from.saturating_sub(back).max(1));
        match self.store.watch(WatchRequest { from: earlier, ..request.clone() }).await {
            Ok(items) => {
                self.shared.count(|struck| struck.watch_repeats += 1);
                Ok(Some(items))
            }
            Err(StoreError::Compacted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A guarded write that is refused, with the truth about the key.
    async fn refuse(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let found = self.store.range(RangeRequest::new(KeyRange::key(write.key))).await?;
        self.shared.count(|struck| struck.conflicts += 1);
        let (current, revision) = (found.entries.into_iter().next(), found.revision);
        Ok(WriteOutcome::PreconditionFailed { current, revision })
    }
}

#[async_trait]
impl<S: Store + ?Sized> StoreReader for FaultyStore<S> {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.enter().await?;
        self.compact_at_worst_moment(request.revision).await?;
        self.store.range(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.enter().await?;
        self.compact_at_worst_moment(request.from).await?;
        let connection = watch::Connection::open(&self.chance, &self.shared);
        let items = match self.watch_again(&request).await? {
            Some(items) => items,
            None => self.store.watch(request).await?,
        };
        Ok(connection.carry(items))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.enter().await?;
        self.store.request_progress().await
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for FaultyStore<S> {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        self.enter().await?;
        let failure = self.failure(write.precondition != Precondition::None);
        if failure == Some(Failure::Conflict) {
            return self.refuse(write).await;
        }
        self.change(failure, self.store.write(write)).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        self.enter().await?;
        let mut transaction = transaction;
        let failure = self.failure(!transaction.compare.is_empty());
        if failure == Some(Failure::Conflict) {
            self.shared.count(|struck| struck.conflicts += 1);
            let range = transaction.compare[0].range.clone();
            let operand = Operand::Version(NEVER);
            transaction.compare.push(Compare { range, operator: Operator::Equal, operand });
        }
        self.change(failure, self.store.transact(transaction)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.enter().await?;
        self.change(self.failure(false), self.store.compact(revision)).await
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
        self.change(self.failure(false), self.store.grant(id, ttl_s)).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        self.enter().await?;
        self.change(self.failure(false), self.store.keep_alive(id)).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        self.enter().await?;
        self.change(self.failure(false), self.store.revoke(id)).await
    }
}
