//! Random transactions, done by etcd and by the store in memory: both must give the same, down to
//! the revisions.

use bytes::Bytes;
use orch_core::{
    random::{Random, SeededRandom},
    testing::rounds,
};
use orch_store::{
    Compare, KeyRange, LeaseId, LeaseReader as _, Leases as _, MemoryStore, Operand, Operator, Put,
    PutLease, RangeRequest, Step, Store as _, StoreError, StoreReader as _, Transaction,
};

use crate::etcd::Etcd;

const TRANSACTIONS: u32 = 600;
/// The first two exist.
const LEASES: [LeaseId; 3] = [7, 8, 9];
const LETTERS: &[u8] = b"abcdef";

/// Makes transactions, about keys and revisions that are there or nearly.
struct Maker<'a> {
    random: &'a dyn Random,
    revision: u64,
}

impl Maker<'_> {
    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn letter(&self) -> u8 {
        LETTERS[self.below(LETTERS.len() as u64) as usize]
    }

    fn key(&self) -> Bytes {
        // The empty key now and then.
        if self.below(60) == 0 { Bytes::new() } else { vec![b'/', self.letter()].into() }
    }

    fn range(&self) -> KeyRange {
        match self.below(8) {
            0 => KeyRange::prefix("/"),
            1 => KeyRange { start: self.key(), end: None },
            // Sometimes without keys.
            2..=3 => KeyRange { start: self.key(), end: Some(self.key()) },
            4 => KeyRange { start: self.key(), end: Some(Bytes::from_static(b"\0")) },
            _ => KeyRange::key(self.key()),
        }
    }

    fn request(&self) -> RangeRequest {
        let revision = match self.below(6) {
            0 => Some(self.revision.saturating_sub(self.below(20)).max(2)),
            _ => None,
        };
        let limit = (self.below(3) == 0).then(|| self.below(4) as usize);
        let (count_only, keys_only) = (self.below(6) == 0, self.below(4) == 0);
        RangeRequest { range: self.range(), revision, limit, count_only, keys_only }
    }

    fn compare(&self) -> Compare {
        let operator = [Operator::Equal, Operator::NotEqual, Operator::Greater, Operator::Less];
        let revision = self.revision.saturating_sub(self.below(12));
        let operand = match self.below(6) {
            0 => Operand::Version(self.below(4)),
            1 => Operand::CreateRevision(if self.below(3) == 0 { 0 } else { revision }),
            2 => Operand::ModRevision(if self.below(3) == 0 { 0 } else { revision }),
            3 => Operand::Lease(if self.below(2) == 0 { 0 } else { LEASES[0] }),
            _ => Operand::Value(vec![self.letter()].into()),
        };
        Compare { range: self.range(), operator: operator[self.below(4) as usize], operand }
    }

    fn put(&self) -> Put {
        let value = (self.below(4) > 0).then(|| Bytes::from(vec![self.letter()]));
        let lease = match self.below(12) {
            0..=5 => PutLease::Set(None),
            6..=8 => PutLease::Set(Some(LEASES[self.below(2) as usize])),
            9..=10 => PutLease::Keep,
            _ => PutLease::Set(Some(LEASES[2])),
        };
        Put { key: self.key(), value, lease }
    }

    fn steps(&self, depth: u64) -> Vec<Step> {
        let step = |_| match self.below(7) {
            0..=1 => Step::Range(self.request()),
            2..=4 => Step::Put(self.put()),
            _ => Step::Delete(self.range()),
        };
        // Inner ones come first, so that what they compare with is there before the whole.
        let inner = (depth > 0 && self.below(3) == 0)
            .then(|| Step::Transaction(self.transaction(depth - 1)));
        inner.into_iter().chain((0..self.below(4)).map(step)).collect()
    }

    fn transaction(&self, depth: u64) -> Transaction {
        let compare = (0..self.below(3)).map(|_| self.compare()).collect();
        Transaction { compare, success: self.steps(depth), failure: self.steps(depth) }
    }
}

/// Errors in the words that both stores have: etcd does not tell how far it is.
fn same(error: StoreError) -> String {
    match error {
        StoreError::Compacted { requested, .. } => format!("compacted {requested}"),
        StoreError::Future { requested, .. } => format!("future {requested}"),
        StoreError::Invalid(_) => "invalid".into(),
        other => other.to_string(),
    }
}

pub(crate) async fn agrees() {
    let seed = SeededRandom::from_os().next_u64();
    eprintln!("seed {seed}");
    let random = SeededRandom::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path(), "http", &[]);
    let etcd = etcd.connect().await;
    let memory = MemoryStore::default();
    for id in &LEASES[..2] {
        assert_eq!(etcd.grant(Some(*id), 600).await.unwrap(), *id);
        assert_eq!(memory.grant(Some(*id), 600).await.unwrap(), *id);
    }
    let mut succeeded = 0;
    for _ in 0..rounds(TRANSACTIONS) {
        let maker = Maker { random: &random, revision: memory.revision() };
        let transaction = maker.transaction(2);
        let expected = memory.transact(transaction.clone()).await.map_err(same);
        let given = etcd.transact(transaction.clone()).await.map_err(same);
        assert_eq!(given, expected, "etcd's and ours, of {transaction:#?}");
        succeeded += u32::from(given.is_ok());
        let request = maker.request();
        let expected = memory.range(request.clone()).await.map_err(same);
        let given = etcd.range(request.clone()).await.map_err(same);
        assert_eq!(given, expected, "etcd's and ours, of {request:#?}");
    }
    assert!(succeeded > rounds(TRANSACTIONS) / 4, "{succeeded} did something");
    assert_eq!(etcd.leases().await.unwrap(), memory.leases().await.unwrap());
    for id in LEASES {
        let status = |lease: Option<orch_store::LeaseStatus>| {
            lease.map(|lease| (lease.granted_ttl_s, lease.keys))
        };
        let ours = status(memory.lease(id).await.unwrap());
        assert_eq!(status(etcd.lease(id).await.unwrap()), ours, "lease {id}");
    }
}
