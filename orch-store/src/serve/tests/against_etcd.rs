//! The same requests to etcd and to this server: the answers must be the same, up to who gives
//! them. Needs an `etcd` on the machine.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use compare::{CompareResult, CompareTarget, TargetUnion};
use orch_core::{
    random::{Random, SeededRandom},
    testing::rounds,
};

use super::*;

/// How many requests are made up, and from what.
const REQUESTS: usize = 1500;
const SEED: u64 = 7;
const KEYS: [&str; 7] = ["a", "ab", "b", "c", "c\0", "d", ""];
const ENDS: [&str; 6] = ["", "\0", "a", "c", "d", "z"];

/// An etcd of one member, ended with this value.
struct Etcd {
    child: Child,
    channel: Channel,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_etcd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|file| file.is_file())
}

async fn start(program: PathBuf) -> Etcd {
    // Somebody else may take a port between its choice and its use; etcd ends then.
    for _ in 0..5 {
        if let Some(etcd) = soon("etcd", start_once(&program)).await {
            return etcd;
        }
    }
    panic!("etcd does not start");
}

/// An etcd that answers; `None` if it ends instead.
async fn start_once(program: &Path) -> Option<Etcd> {
    let folder = tempfile::tempdir().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, peer) = (free(), format!("http://{}", free()));
    let url = format!("http://{client}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.path()).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let mut etcd = Etcd { child, channel: channel(client), _folder: folder };
    let mut attempts = tokio::time::interval(Duration::from_millis(50));
    while KvClient::new(etcd.channel.clone()).range(range("a", "")).await.is_err() {
        if etcd.child.try_wait().unwrap().is_some() {
            return None;
        }
        attempts.tick().await;
    }
    Some(etcd)
}

/// One request of any kind.
#[derive(Clone, Debug)]
enum Ask {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    Leases(i64),
}

/// The answer without what differs between servers, or the refusal.
type Told = Result<String, (Code, String)>;

fn told<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
    header: fn(&mut T) -> Option<&mut pb::ResponseHeader>,
) -> Told {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            let own = header(&mut answer).expect("a header");
            assert!(own.cluster_id != 0 && own.member_id != 0 && own.raft_term != 0);
            (own.cluster_id, own.member_id, own.raft_term) = (0, 0, 0);
            Ok(format!("{answer:?}"))
        }
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

async fn ask(channel: &Channel, ask: Ask) -> Told {
    let mut kv = KvClient::new(channel.clone());
    let mut lease = LeaseClient::new(channel.clone());
    match ask {
        Ask::Range(request) => told(kv.range(request).await, |a| a.header.as_mut()),
        Ask::Put(request) => told(kv.put(request).await, |a| a.header.as_mut()),
        Ask::Delete(request) => told(kv.delete_range(request).await, |a| a.header.as_mut()),
        Ask::Txn(request) => told(kv.txn(request).await, |a| a.header.as_mut()),
        Ask::Compact(revision) => {
            let request = pb::CompactionRequest { revision, physical: true };
            told(kv.compact(request).await, |a| a.header.as_mut())
        }
        Ask::Grant(id) => {
            let request = pb::LeaseGrantRequest { id, ttl: 1000 + id };
            told(lease.lease_grant(request).await, |a| a.header.as_mut())
        }
        Ask::Revoke(id) => {
            let request = pb::LeaseRevokeRequest { id };
            told(lease.lease_revoke(request).await, |a| a.header.as_mut())
        }
        Ask::Leases(id) => {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let answer = lease.lease_time_to_live(request).await.map(|mut answer| {
                // Time passes, and etcd gives the keys in no order.
                answer.get_mut().keys.sort();
                answer.get_mut().ttl = answer.get_ref().ttl.min(0);
                answer
            });
            told(answer, |a| a.header.as_mut())
        }
    }
}

/// Makes requests up.
struct Inventor {
    random: SeededRandom,
    revision: i64,
}

impl Inventor {
    fn below(&self, bound: u64) -> i64 {
        self.random.below(bound) as i64
    }

    fn rarely(&self) -> bool {
        self.below(12) == 0
    }

    fn key(&self) -> Bytes {
        // The empty key is refused, so not too often.
        let count = if self.rarely() { KEYS.len() } else { KEYS.len() - 1 };
        bytes(KEYS[self.below(count as u64) as usize])
    }

    fn end(&self) -> Bytes {
        bytes(ENDS[self.below(ENDS.len() as u64) as usize])
    }

    fn lease(&self) -> i64 {
        if self.below(3) == 0 { 1 + self.below(4) } else { 0 }
    }

    /// A revision that is not too far from now.
    fn near(&self) -> i64 {
        if self.below(3) > 0 { 0 } else { self.revision + 1 - self.below(12) }
    }

    fn range(&self) -> pb::RangeRequest {
        let bound = || if self.rarely() { self.near() } else { 0 };
        let sorts = self.below(4) == 0;
        pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.below(2) == 0 { self.below(4) } else { 0 },
            revision: self.near(),
            sort_order: if sorts { self.below(3) as i32 } else { 0 },
            sort_target: if sorts { self.below(5) as i32 } else { 0 },
            serializable: self.rarely(),
            keys_only: self.rarely(),
            count_only: self.rarely(),
            min_mod_revision: bound(),
            max_mod_revision: bound(),
            min_create_revision: bound(),
            max_create_revision: bound(),
        }
    }

    fn put(&self) -> pb::PutRequest {
        let ignore_value = self.rarely();
        let ignore_lease = self.rarely();
        let value = if ignore_value && !self.rarely() { 0 } else { 1 + self.below(9) };
        pb::PutRequest {
            key: self.key(),
            value: if value == 0 { Bytes::new() } else { bytes(&value.to_string()) },
            // With both a key and a lease that do not exist, either may be told.
            lease: if ignore_value || (ignore_lease && !self.rarely()) { 0 } else { self.lease() },
            prev_kv: self.below(2) == 0,
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&self) -> pb::DeleteRangeRequest {
        let range_end = if self.below(3) == 0 { self.end() } else { Bytes::new() };
        pb::DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.below(2) == 0 }
    }

    fn compare(&self) -> pb::Compare {
        let near = self.revision - self.below(8);
        let (target, union) = match self.below(6) {
            0 => (CompareTarget::Version, TargetUnion::Version(self.below(3) - 1)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(near)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(near)),
            3 => (CompareTarget::Value, TargetUnion::Value(bytes(&self.below(9).to_string()))),
            4 => (CompareTarget::Lease, TargetUnion::Lease(self.below(4))),
            _ => (CompareTarget::Mod, TargetUnion::Version(self.below(3))),
        };
        pb::Compare {
            result: CompareResult::try_from(self.below(4) as i32).unwrap() as i32,
            target: target as i32,
            key: self.key(),
            range_end: if self.below(3) == 0 { self.end() } else { Bytes::new() },
            target_union: Some(union),
        }
    }

    fn operation(&self, depth: usize) -> pb::RequestOp {
        match self.below(if depth < 2 { 7 } else { 6 }) {
            0 | 1 => {
                // A range of a revision that an earlier step makes is judged differently.
                range_op(pb::RangeRequest { revision: 0, ..self.range() })
            }
            2..=4 => put_op(self.put()),
            5 => {
                let request = self.delete();
                // etcd does not see that an open-ended deletion meets a put.
                let open = &request.range_end[..] == b"\0";
                let range_end = if open { Bytes::new() } else { request.range_end };
                let request = pb::DeleteRangeRequest { range_end, ..request };
                pb::RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
            }
            _ => {
                // An inner comparison is judged before the outer steps by etcd.
                let compare = Vec::new();
                txn_op(pb::TxnRequest { compare, ..self.txn(depth + 1) })
            }
        }
    }

    fn txn(&self, depth: usize) -> pb::TxnRequest {
        let operations = || (0..self.below(4)).map(|_| self.operation(depth)).collect::<Vec<_>>();
        pb::TxnRequest {
            compare: (0..self.below(3)).map(|_| self.compare()).collect(),
            success: operations(),
            failure: operations(),
        }
    }

    fn ask(&self) -> Ask {
        match self.below(20) {
            0..=5 => Ask::Range(self.range()),
            6..=10 => Ask::Put(self.put()),
            11 | 12 => Ask::Delete(self.delete()),
            13..=16 => Ask::Txn(self.txn(0)),
            17 if self.rarely() => Ask::Compact((self.revision + 1 - self.below(15)).max(1)),
            17 => Ask::Leases(1 + self.below(5)),
            18 => Ask::Grant(1 + self.below(4)),
            _ if self.below(3) == 0 => Ask::Revoke(1 + self.below(4)),
            _ => Ask::Leases(1 + self.below(5)),
        }
    }
}

#[tokio::test]
async fn answers_are_etcds() {
    let Some(program) = find_etcd() else {
        eprintln!("skipped: answers_are_etcds, because etcd is not installed");
        return;
    };
    for seed in SEED..SEED + u64::from(rounds(1)) {
        compare_with(start(program.clone()).await, seed).await;
    }
}

async fn compare_with(etcd: Etcd, seed: u64) {
    let server = Server::start().await;
    let mut inventor = Inventor { random: SeededRandom::new(seed), revision: 1 };
    let (mut answered, mut refused) = (0, 0);
    for number in 0..REQUESTS {
        let invented = inventor.ask();
        let theirs = soon("etcd's answer", ask(&etcd.channel, invented.clone())).await;
        let ours = soon("an answer", ask(&server.channel, invented.clone())).await;
        assert_eq!(ours, theirs, "request {number} of seed {seed}: {invented:?}");
        if theirs.is_ok() {
            answered += 1;
        } else {
            refused += 1;
        }
        let newest = server.kv().range(range("a", "")).await.unwrap().into_inner();
        inventor.revision = newest.header.unwrap().revision;
    }
    assert!(answered > REQUESTS / 3 && refused > REQUESTS / 20, "{answered} and {refused}");
    let everything = async |channel: &Channel| {
        let answer = KvClient::new(channel.clone()).range(range("\0", "\0")).await.unwrap();
        answer.into_inner().kvs
    };
    assert_eq!(everything(&server.channel).await, everything(&etcd.channel).await);
}
