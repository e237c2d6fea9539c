//! The KV service.

use tonic::{Request, Response, Status};

use super::{
    convert::{key_range, key_value, owned, requested},
    range, refusal,
    shared::Shared,
    txn,
};
use crate::{
    protocol::etcdserverpb::{self as pb, kv_server::Kv},
    store::{
        Entry, LeaseId, Operation, Precondition, Put, PutLease, Revision, Step, StepResult,
        Transaction, Write, WriteOutcome,
    },
};

/// A lease of a request; 0 is none.
pub(super) fn lease(id: LeaseId) -> Option<LeaseId> {
    Some(id).filter(|id| *id != 0)
}

/// Refuses what etcd refuses.
pub(super) fn check_put(request: &pb::PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(refusal::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(refusal::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(refusal::lease_provided());
    }
    Ok(())
}

/// A put as a step of a transaction.
pub(super) fn put_step(request: &pb::PutRequest) -> Step {
    Step::Put(Put {
        key: owned(&request.key),
        value: (!request.ignore_value).then(|| owned(&request.value)),
        lease: match request.ignore_lease {
            true => PutLease::Keep,
            false => PutLease::Set(lease(request.lease)),
        },
    })
}

impl Shared {
    fn check_size(&self, request: &impl prost::Message) -> Result<(), Status> {
        match request.encoded_len() > self.options.request_bytes_max {
            true => Err(refusal::request_too_large()),
            false => Ok(()),
        }
    }

    /// A write of one key whatever is there.
    async fn write(&self, write: Write) -> Result<(Revision, Option<Entry>), Status> {
        match self.store.write(write).await.map_err(refusal::of)? {
            WriteOutcome::Committed { revision, previous } => Ok((revision, previous)),
            WriteOutcome::PreconditionFailed { .. } => {
                Err(Status::internal("a write without a precondition failed it"))
            }
        }
    }

    /// A transaction of one step without a comparison.
    async fn step(&self, step: Step) -> Result<(Revision, Option<StepResult>), Status> {
        let transaction = Transaction { success: vec![step], ..Transaction::default() };
        let mut outcome = self.store.transact(transaction).await.map_err(refusal::of)?;
        Ok((outcome.revision, outcome.results.pop()))
    }
}

#[tonic::async_trait]
impl Kv for Shared {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        range::check(&request)?;
        let found = self.store.range(range::question(&request)).await.map_err(refusal::of)?;
        let header = self.header(found.revision);
        Ok(Response::new(pb::RangeResponse { header, ..range::answer(&request, found) }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        check_put(&request)?;
        self.check_size(&request)?;
        let (revision, previous) = if request.ignore_value || request.ignore_lease {
            match self.step(put_step(&request)).await? {
                (revision, Some(StepResult::Put(previous))) => (revision, previous),
                (revision, _) => (revision, None),
            }
        } else {
            let value = owned(&request.value);
            self.write(Write {
                key: owned(&request.key),
                precondition: Precondition::None,
                operation: Operation::Put { value, lease: lease(request.lease) },
            })
            .await?
        };
        let prev_kv = previous.filter(|_| request.prev_kv).map(key_value);
        Ok(Response::new(pb::PutResponse { header: self.header(revision), prev_kv }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        if request.key.is_empty() {
            return Err(refusal::empty_key());
        }
        self.check_size(&request)?;
        let (revision, removed) = if request.range_end.is_empty() {
            let write = Write::delete(request.key, Precondition::None);
            let (revision, previous) = self.write(write).await?;
            (revision, previous.into_iter().collect())
        } else {
            let range = key_range(&request.key, &request.range_end);
            match self.step(Step::Delete(range)).await? {
                (revision, Some(StepResult::Delete(removed))) => (revision, removed),
                (revision, _) => (revision, Vec::new()),
            }
        };
        let header = self.header(revision);
        let removal = txn::removal(removed, request.prev_kv);
        Ok(Response::new(pb::DeleteRangeResponse { header, ..removal }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        txn::check(&request, self.options.transaction_operations_max)?;
        let transaction = txn::transaction(&request);
        if !txn::is_read_only(&request) {
            self.check_size(&request)?;
        }
        if txn::changes_several(&request) && transaction.check().is_err() {
            // Empty keys have been refused: what is left is a key that is changed twice.
            return Err(refusal::duplicate_key());
        }
        let outcome = self.store.transact(transaction).await.map_err(refusal::of)?;
        let header = self.header(outcome.revision);
        Ok(Response::new(pb::TxnResponse { header, ..txn::answer(&request, outcome) }))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        // A store's compaction is physical when it returns; `physical` has nothing to add.
        let revision = request.into_inner().revision;
        match requested(revision) {
            Some(revision) => self.store.compact(revision).await.map_err(refusal::of)?,
            // Nothing is older than a new store; etcd lets it pass until it is compacted.
            None if revision == 0 && self.compacted().await?.is_none() => {}
            None => return Err(refusal::compacted()),
        }
        Ok(Response::new(pb::CompactionResponse { header: self.header_now().await? }))
    }
}
