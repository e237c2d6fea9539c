//! A store that is etcd itself: the distributed option.

mod auth;
mod call;
mod members;
mod message;
mod options;
mod outcome;
mod progress;
mod watch;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Response, Status};

pub use self::options::{EtcdCredentials, EtcdIdentity, EtcdOptions, EtcdTls};
use self::{
    auth::Auth,
    members::{Clients, Members},
    message::References,
    outcome::{Call, Cause},
    watch::OpenWatches,
};
use crate::{
    StoreError, engine,
    protocol::etcdserverpb as pb,
    store::{
        KeyRange, LeaseId, LeaseReader, LeaseStatus, Leases, Operation, RangeRequest,
        RangeResponse, Revision, Store, StoreReader, Transaction, TransactionOutcome, WatchRequest,
        WatchStream, Write, WriteOutcome,
    },
};

/// A store that is etcd (3.4 or newer). Cheap to clone; clones share the connections.
///
/// Calls are spread over the members that answer. One that surely did nothing (the connection was
/// refused, the member knows no leader) is tried at the others; while there is no leader it waits
/// for one, up to the deadline. A write whose answer was lost is [`StoreError::Unknown`]: so are
/// etcd's "request timed out" and "database space exceeded", which etcd says of writes that it
/// then commits, too.
///
/// Watches outlive connections and members: they are resumed after the last revision seen, without
/// gap or repeat. An event whose previous value was compacted away before etcd sent it ends the
/// watch with [`StoreError::Compacted`].
///
/// With [`EtcdOptions::credentials`] a token is fetched, and fetched anew when etcd no longer takes
/// it. A user that may not do what is asked gets [`StoreError::Unavailable`]; compacting may need
/// the root role.
///
/// Differs: a watch that begins behind the compaction reports it as its first item, because etcd
/// does. A range without keys cannot be watched. Before etcd 3.4.25 and 3.5.8, whose progress may
/// overtake events, [`StoreReader::request_progress`] proves that there were no events since the
/// last one from the history of the keys; it gives no progress where that would read too much.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    members: Members,
    auth: Arc<Auth>,
    options: EtcdOptions,
    watches: Mutex<OpenWatches>,
}

impl EtcdStore {
    /// Connects, and makes sure that etcd answers.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an address that is none, for certificates or keys that are
    /// none, and for wrong credentials; [`StoreError::Unavailable`] if nobody answers in time.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let endpoints = options::endpoints(&options)?;
        let auth = Arc::new(Auth::new(options.credentials.clone()));
        let members = Members::new(&endpoints, &auth);
        let inner = Arc::new(Inner { members, auth, options, watches: Mutex::default() });
        let deadline = Instant::now() + inner.options.request_timeout;
        if let Err(failure) = inner.renew_token(0, deadline).await {
            return Err(match failure.cause {
                Cause::Denied => StoreError::Invalid(failure.status.message().into()),
                _ => failure.store_error(Call::read(0)),
            });
        }
        inner.call(Call::read(0), async |mut clients| barrier(&mut clients).await).await?;
        Ok(Self { inner })
    }
}

/// Waits until the member has done all that was committed before.
async fn barrier(clients: &mut Clients) -> Result<(), Status> {
    let request = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) };
    match clients.kv.range(message::range_request(&request)).await {
        // The member looks at its permissions only when it has caught up.
        Err(status) if status.message() == "etcdserver: permission denied" => Ok(()),
        answer => answer.map(drop),
    }
}

impl Inner {
    async fn range(self: &Arc<Self>, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let message = message::range_request(request);
        let attempt = |mut clients: Clients| {
            let message = message.clone();
            async move { clients.kv.range(message).await.map(Response::into_inner) }
        };
        let response = self.call(Call::read(request.revision.unwrap_or(0)), attempt).await?;
        Ok(message::range_response(request, response))
    }

    async fn txn(
        self: &Arc<Self>,
        call: Call,
        message: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, StoreError> {
        let attempt = |mut clients: Clients| {
            let message = message.clone();
            async move { clients.kv.txn(message).await.map(Response::into_inner) }
        };
        self.call(call, attempt).await
    }
}

#[async_trait]
impl StoreReader for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.inner.range(&request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        watch::open(self.inner.clone(), request).await
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.inner.watches.lock().want_progress();
        Ok(())
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        engine::check_write(&write)?;
        let lease = match &write.operation {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete => None,
        };
        let answer = self.inner.txn(Call::write(lease), message::write_request(write)).await?;
        Ok(message::write_outcome(answer))
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        transaction.check()?;
        let References { changes, leases, revisions } = References::of(&transaction);
        let call = Call {
            repeatable: !changes,
            oldest: revisions.iter().min().copied().unwrap_or(0),
            newest: revisions.iter().max().copied().unwrap_or(0),
            lease: leases.first().copied().unwrap_or(0),
        };
        match self.inner.txn(call, message::transaction_request(&transaction)).await {
            Ok(answer) => message::transaction_outcome(&transaction, answer),
            Err(StoreError::LeaseNotFound(first)) => {
                Err(StoreError::LeaseNotFound(self.missing(&leases).await.unwrap_or(first)))
            }
            Err(error) => Err(error),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let message =
            pb::CompactionRequest { revision: message::signed(revision), physical: false };
        let attempt =
            |mut clients: Clients| async move { clients.kv.compact(message).await.map(drop) };
        self.inner.call(Call::compact(revision), attempt).await
    }
}

impl EtcdStore {
    /// Which of these leases does not exist: etcd does not tell.
    async fn missing(&self, leases: &[LeaseId]) -> Option<LeaseId> {
        if leases.len() < 2 {
            return None;
        }
        let existing = self.leases().await.ok()?;
        leases.iter().find(|id| existing.binary_search(id).is_err()).copied()
    }
}

#[async_trait]
impl LeaseReader for EtcdStore {
    async fn lease(&self, id: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let attempt = |mut clients: Clients| async move {
            clients.lease.lease_time_to_live(request).await.map(Response::into_inner)
        };
        let found = self.inner.call(Call::read(0), attempt).await?;
        // etcd's way to say that there is none.
        let Ok(remaining) = u64::try_from(found.ttl) else { return Ok(None) };
        let mut keys = found.keys;
        keys.sort_unstable();
        let remaining = Duration::from_secs(remaining);
        Ok(Some(LeaseStatus { granted_ttl_s: found.granted_ttl, remaining, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        // A member tells what it knows itself, which may be old.
        let attempt = |mut clients: Clients| async move {
            barrier(&mut clients).await?;
            clients.lease.lease_leases(pb::LeaseLeasesRequest {}).await.map(Response::into_inner)
        };
        let found = self.inner.call(Call::read(0), attempt).await?;
        let mut ids: Vec<_> = found.leases.into_iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

#[async_trait]
impl Leases for EtcdStore {
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError> {
        engine::leases::check_ttl(ttl_s)?;
        if let Some(id) = id.filter(|id| *id <= 0) {
            return Err(StoreError::Invalid(format!("a lease's id must be positive, not {id}")));
        }
        let message = pb::LeaseGrantRequest { ttl: ttl_s, id: id.unwrap_or(0) };
        let attempt = |mut clients: Clients| async move {
            clients.lease.lease_grant(message).await.map(Response::into_inner)
        };
        Ok(self.inner.call(Call::write(id), attempt).await?.id)
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        let attempt = |mut clients: Clients| async move {
            let request = stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let answers = clients.lease.lease_keep_alive(request).await?;
            answers.into_inner().message().await
        };
        let answer = self.inner.call(Call::read(0), attempt).await?;
        let missing = || StoreError::Unavailable("etcd did not answer a keep-alive".into());
        Ok(Some(answer.ok_or_else(missing)?.ttl).filter(|ttl| *ttl > 0))
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        let attempt = |mut clients: Clients| async move {
            clients.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.map(drop)
        };
        match self.inner.call(Call::write(Some(id)), attempt).await {
            Ok(()) => Ok(true),
            Err(StoreError::LeaseNotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
