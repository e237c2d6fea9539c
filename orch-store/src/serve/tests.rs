//! The services over a real connection, asked with the generated clients.

mod against_etcd;
mod http;
mod import;
mod kubernetes;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod stopping;
mod tls;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{EtcdServer, ServeError, ServeOptions};
use crate::{
    MemoryStore,
    protocol::etcdserverpb::{
        self as pb, compare, kv_client::KvClient, lease_client::LeaseClient,
        maintenance_client::MaintenanceClient, request_op, response_op, watch_client::WatchClient,
    },
    store::LeasedStore,
};

/// No answer takes longer than this, or the test has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for something that must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come within {DEADLINE:?}"))
}

/// A server on a free port, which ends with this value.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
    channel: Channel,
}

impl Server {
    async fn start() -> Self {
        Self::with(ServeOptions::default()).await
    }

    async fn with(options: ServeOptions) -> Self {
        Self::over(Arc::new(MemoryStore::default()), options).await
    }

    async fn over(store: Arc<dyn LeasedStore>, options: ServeOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = EtcdServer::new(store, options).serve(listener, async { drop(stopped.await) });
        let serving = tokio::spawn(serve);
        let channel = channel(address);
        Self { address, stop: Some(stop), serving, channel }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let answer = soon("a put", self.kv().put(put(key, value))).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    async fn delete(&self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: bytes(key), ..<_>::default() };
        let answer = soon("a deletion", self.kv().delete_range(request)).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    async fn compact(&self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: true };
        soon("a compaction", self.kv().compact(request)).await.unwrap();
    }
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..<_>::default() }
}

/// One key, or a range with an end.
fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..<_>::default() }
}

fn range_op(request: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

fn put_op(request: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestPut(request)) }
}

fn delete_op(key: &str, range_end: &str, prev_kv: bool) -> pb::RequestOp {
    let request = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv };
    pb::RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
}

fn txn_op(request: pb::TxnRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestTxn(request)) }
}

fn compare(
    key: &str,
    result: compare::CompareResult,
    target: compare::CompareTarget,
    union: compare::TargetUnion,
) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

fn mod_revision_is(key: &str, revision: i64) -> pb::Compare {
    let union = compare::TargetUnion::ModRevision(revision);
    compare(key, compare::CompareResult::Equal, compare::CompareTarget::Mod, union)
}

/// What a refusal says.
fn said<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = answer.expect_err("it was to be refused");
    (status.code(), status.message().to_owned())
}

fn keys(answer: &pb::RangeResponse) -> Vec<&str> {
    answer.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}
