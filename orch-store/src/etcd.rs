//! A store that is etcd itself: the distributed option.

mod watch;

use std::{collections::HashMap, error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use orch_core::Environment;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::{Code, Status, transport::Channel, transport::Endpoint};

use crate::{
    StoreError, engine,
    protocol::{
        etcdserverpb::{
            self as pb, compare, compare::TargetUnion, kv_client::KvClient,
            lease_client::LeaseClient, request_op, response_op, watch_client::WatchClient,
        },
        mvccpb,
    },
    store::{
        Entry, KeyRange, LeaseId, LeaseReader, LeaseStatus, Leases, Operation, Precondition,
        RangeRequest, RangeResponse, Revision, Store, StoreReader, Transaction, TransactionOutcome,
        WatchRequest, WatchStream, Write, WriteOutcome,
    },
};

/// How an [`EtcdStore`] reaches etcd.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members' client addresses, such as `http://127.0.0.1:2379`; at least one. Calls are
    /// spread over those that answer.
    pub endpoints: Vec<String>,
    /// How long connecting may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a call may take; then its outcome is unknown. Default: 10 s.
    pub request_timeout: Duration,
    /// The longest pause before a broken watch is tried again; the first is 50 ms, and each is
    /// twice the one before. Default: 2 s.
    pub watch_retry_max: Duration,
    /// Time and randomness. Default: the machine's.
    pub environment: Environment,
}

impl EtcdOptions {
    /// The defaults with one endpoint.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            watch_retry_max: Duration::from_secs(2),
            environment: Environment::system(),
        }
    }
}

/// A store that is etcd (3.4 or newer). Cheap to clone; clones share the connections.
///
/// Watches outlive connections: they are resumed after the last revision seen, without gap or
/// repeat. A write whose answer was lost is [`StoreError::Unknown`].
///
/// Differs: a watch that begins behind the compaction reports it as its first item, because etcd
/// does. TLS and authentication are not there yet.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    options: EtcdOptions,
    watches: Mutex<OpenWatches>,
}

/// The request sides of the open watches, to ask for progress on.
#[derive(Debug, Default)]
struct OpenWatches {
    next_id: u64,
    senders: HashMap<u64, mpsc::Sender<pb::WatchRequest>>,
}

impl EtcdStore {
    /// Connects, and makes sure that etcd answers.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an address that is none, [`StoreError::Unavailable`] if nobody
    /// answers in time.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let endpoints = options.endpoints.iter().map(|address| endpoint(address, &options));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let channel = match endpoints.as_slice() {
            [] => return Err(StoreError::Invalid("no etcd endpoint was given".into())),
            [one] => one.connect_lazy(),
            _ => Channel::balance_list(endpoints.into_iter()),
        };
        let unlimited = usize::MAX;
        let kv = KvClient::new(channel.clone()).max_decoding_message_size(unlimited);
        let watch = WatchClient::new(channel.clone()).max_decoding_message_size(unlimited);
        let lease = LeaseClient::new(channel);
        let inner = Inner { kv, lease, watch, options, watches: Mutex::default() };
        let store = Self { inner: Arc::new(inner) };
        let probe = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) };
        store.range(probe).await?;
        Ok(store)
    }
}

fn endpoint(address: &str, options: &EtcdOptions) -> Result<Endpoint, StoreError> {
    let invalid = |what: &str| StoreError::Invalid(format!("etcd endpoint {address:?}: {what}"));
    let address = if address.contains("://") { address } else { &format!("http://{address}") };
    if address.starts_with("https://") {
        return Err(invalid("TLS is not supported yet"));
    }
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| invalid("not a URL"))?;
    // etcd refuses clients that ping more often than every 5 s.
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// etcd's way of saying where a range begins and ends.
fn bounds(range: &KeyRange) -> (Bytes, Bytes) {
    let zero = || Bytes::from_static(b"\0");
    let start = if range.start.is_empty() { zero() } else { range.start.clone() };
    (start, range.end.clone().unwrap_or_else(zero))
}

fn entry(kv: mvccpb::KeyValue) -> Entry {
    Entry {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision.unsigned_abs(),
        mod_revision: kv.mod_revision.unsigned_abs(),
        version: kv.version.unsigned_abs(),
        lease: Some(kv.lease).filter(|id| *id != 0),
    }
}

fn revision_of(header: Option<&pb::ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision.unsigned_abs())
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// What a call was about, to tell its errors.
#[derive(Clone, Copy)]
enum Call {
    Read(Revision),
    Write(Option<LeaseId>),
}

/// Whether the connection was never made, so that nothing can have been written.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn store_error(call: Call, status: Status) -> StoreError {
    let message = status.message();
    match (status.code(), call) {
        (Code::OutOfRange, Call::Read(requested)) if message.contains("compacted") => {
            StoreError::Compacted { requested, compacted: 0 }
        }
        (Code::OutOfRange, Call::Read(requested)) => StoreError::Future { requested, current: 0 },
        (Code::NotFound, Call::Write(Some(id))) => StoreError::LeaseNotFound(id),
        (Code::FailedPrecondition, Call::Write(Some(id))) if message.contains("lease already") => {
            StoreError::LeaseExists(id)
        }
        (Code::InvalidArgument | Code::OutOfRange, _) => StoreError::Invalid(message.into()),
        (Code::DataLoss, _) => StoreError::Corrupt(message.into()),
        // Refused before it was proposed: no space, too large, not allowed.
        (Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated, _)
        | (_, Call::Read(_)) => StoreError::Unavailable(message.into()),
        (_, Call::Write(_)) if never_sent(&status) => StoreError::Unavailable(message.into()),
        (_, Call::Write(_)) => StoreError::Unknown(status.into()),
    }
}

impl Inner {
    async fn call<T>(
        &self,
        call: Call,
        request: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(self.options.request_timeout, request).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("timed out")));
        answer.map(tonic::Response::into_inner).map_err(|status| store_error(call, status))
    }
}

#[async_trait]
impl StoreReader for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let (key, range_end) = bounds(&request.range);
        let revision = request.revision.unwrap_or(0);
        let message = pb::RangeRequest {
            key,
            range_end,
            // etcd's 0 is "without limit"; a limit of 0 entries is a count.
            limit: request.limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
            revision: signed(revision),
            keys_only: request.keys_only,
            count_only: request.count_only || request.limit == Some(0),
            ..pb::RangeRequest::default()
        };
        let mut kv = self.inner.kv.clone();
        let response = self.inner.call(Call::Read(revision), kv.range(message)).await?;
        let count = usize::try_from(response.count).unwrap_or(0);
        Ok(RangeResponse {
            revision: revision_of(response.header.as_ref()),
            more: response.more || (request.limit == Some(0) && count > 0 && !request.count_only),
            entries: response.kvs.into_iter().map(entry).collect(),
            count,
        })
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        watch::open(self.inner.clone(), request).await
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let senders: Vec<_> = self.inner.watches.lock().senders.values().cloned().collect();
        let union = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        for sender in senders {
            // A full channel means that a request is already waiting; one is as good as two.
            let _ = sender.try_send(pb::WatchRequest { request_union: Some(union.clone()) });
        }
        Ok(())
    }
}

/// The transaction that is one guarded write.
fn transaction(write: Write) -> pb::TxnRequest {
    let expected = match write.precondition {
        Precondition::None => None,
        Precondition::Absent => Some(0),
        Precondition::ModRevision(revision) => Some(signed(revision)),
    };
    let guard = |revision| pb::Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Mod as i32,
        key: write.key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    };
    let compare = expected.map(guard).into_iter().collect();
    let read = pb::RangeRequest { key: write.key.clone(), ..pb::RangeRequest::default() };
    let change = match write.operation {
        Operation::Put { value, lease } => request_op::Request::RequestPut(pb::PutRequest {
            key: write.key,
            value,
            lease: lease.unwrap_or(0),
            prev_kv: true,
            ..pb::PutRequest::default()
        }),
        Operation::Delete => request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: write.key,
            range_end: Bytes::new(),
            prev_kv: true,
        }),
    };
    let operation = |request| vec![pb::RequestOp { request: Some(request) }];
    let failure = operation(request_op::Request::RequestRange(read));
    pb::TxnRequest { compare, success: operation(change), failure }
}

#[async_trait]
impl Store for EtcdStore {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        engine::check_write(&write)?;
        let lease = match &write.operation {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete => None,
        };
        let mut kv = self.inner.kv.clone();
        let answer = self.inner.call(Call::Write(lease), kv.txn(transaction(write))).await?;
        let revision = revision_of(answer.header.as_ref());
        let found = answer.responses.into_iter().next().and_then(|response| response.response);
        let kv = match found {
            Some(response_op::Response::ResponsePut(put)) => put.prev_kv,
            Some(response_op::Response::ResponseDeleteRange(deleted)) => {
                deleted.prev_kvs.into_iter().next()
            }
            Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let found = kv.map(entry);
        Ok(match answer.succeeded {
            true => WriteOutcome::Committed { revision, previous: found },
            false => WriteOutcome::PreconditionFailed { current: found, revision },
        })
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        transaction.check()?;
        Err(StoreError::Invalid("transactions".into()))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let message = pb::CompactionRequest { revision: signed(revision), physical: false };
        let mut kv = self.inner.kv.clone();
        // Not a write in the sense of an unknown outcome: it can be asked again.
        self.inner.call(Call::Read(revision), kv.compact(message)).await.map(drop)
    }
}

#[async_trait]
impl LeaseReader for EtcdStore {
    async fn lease(&self, _id: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        Err(StoreError::Invalid("lease".into()))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        Err(StoreError::Invalid("leases".into()))
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
        let mut lease = self.inner.lease.clone();
        let granted = self.inner.call(Call::Write(id), lease.lease_grant(message)).await?;
        Ok(granted.id)
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError> {
        let messages = stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut lease = self.inner.lease.clone();
        let call = Call::Read(0);
        let mut answers = self.inner.call(call, lease.lease_keep_alive(messages)).await?;
        let answer = answers.message().await.map_err(|status| store_error(call, status))?;
        Ok(answer.map(|answer| answer.ttl).filter(|ttl| *ttl > 0))
    }

    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError> {
        let mut lease = self.inner.lease.clone();
        let revoke = lease.lease_revoke(pb::LeaseRevokeRequest { id });
        match self.inner.call(Call::Write(Some(id)), revoke).await {
            Ok(_) => Ok(true),
            Err(StoreError::LeaseNotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
