//! What a writer of the kill test does, as a function of its seed and of what is there: the
//! writing process does it, and the examining one, which knows only what was acknowledged, works
//! out the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use orch_core::random::{Random, SeededRandom};
use orch_store::{
    Compare, DurableStore, Entry, KeyRange, LeaseId, LeaseReader as _, Leases as _, Operand,
    Operation, Operator, Precondition, Put, PutLease, RangeRequest, Revision, Step, Store as _,
    StoreError, StoreReader as _, Transaction, Write, WriteOutcome,
};

pub(crate) const WRITERS: u32 = 4;
pub(crate) const ROOT: &str = "/w/";

/// The keys that one transaction sets.
const TOGETHER: [&str; 4] = ["t/0", "t/1", "t/2", "t/3"];

/// One step of a writer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Creates (`guard` 0) or updates a key.
    Put {
        key: Bytes,
        guard: Revision,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete {
        key: Bytes,
        guard: Revision,
    },
    /// Sets the keys that belong together to one number.
    Together {
        guard: Revision,
        value: Bytes,
    },
    Grant(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

/// What a key became: its value and lease, or gone.
pub(crate) type Change = (Bytes, Option<(Bytes, Option<LeaseId>)>);

/// A writer's part of the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    writer: u32,
    /// The store's revision when the process began: compactions stay behind it.
    floor: Revision,
    keys: BTreeMap<Bytes, (Revision, Option<LeaseId>)>,
    pub(crate) leases: BTreeSet<LeaseId>,
    steps: u32,
}

/// The lease ids that a writer chooses.
fn lease_ids(writer: u32) -> std::ops::Range<LeaseId> {
    let first = (LeaseId::from(writer) + 1) << 40;
    first..first + (1 << 40)
}

/// What a writer decides with in one round.
pub(crate) fn decisions(seed: u64, round: u32, writer: u32) -> SeededRandom {
    SeededRandom::new(seed ^ (u64::from(round) << 8) ^ u64::from(writer) << 48)
}

impl Model {
    /// A writer's part of what is there.
    pub(crate) async fn read(store: &DurableStore, writer: u32) -> Self {
        let prefix = KeyRange::prefix(format!("{ROOT}{writer}/"));
        let found = store.range(RangeRequest::new(prefix)).await.unwrap();
        let kept = |entry: Entry| (entry.key, (entry.mod_revision, entry.lease));
        let ids = lease_ids(writer);
        let leases = store.leases().await.unwrap().into_iter().filter(|id| ids.contains(id));
        Self {
            writer,
            floor: found.revision,
            keys: found.entries.into_iter().map(kept).collect(),
            leases: leases.collect(),
            steps: 0,
        }
    }

    fn key(&self, name: &str) -> Bytes {
        format!("{ROOT}{}/{name}", self.writer).into()
    }

    fn guard(&self, key: &Bytes) -> Revision {
        self.keys.get(key).map_or(0, |(revision, _)| *revision)
    }

    /// What the writer does next.
    pub(crate) fn next(&self, random: &dyn Random, round: u32) -> Op {
        let value = || {
            let length = random.below(700) as usize;
            format!("{}.{round}.{}.{}", self.writer, self.steps, "x".repeat(length)).into()
        };
        let lease = self.leases.iter().nth(random.below(3) as usize).copied();
        let key = self.key(&format!("k/{}", random.below(12)));
        match (random.below(16), lease) {
            (0..=2, _) => {
                Op::Together { guard: self.guard(&self.key(TOGETHER[0])), value: value() }
            }
            (3..=4, _) if self.keys.contains_key(&key) => {
                Op::Delete { guard: self.guard(&key), key }
            }
            (5, None) => {
                Op::Grant(lease_ids(self.writer).start + i64::from(round << 14 | self.steps))
            }
            (5..=6, Some(id)) => {
                let key = self.key(&format!("l/{}", random.below(4)));
                Op::Put { guard: self.guard(&key), key, value: value(), lease: Some(id) }
            }
            (7, Some(id)) => Op::Revoke(id),
            (8, _) if self.floor > 100 && random.below(4) == 0 => {
                Op::Compact(self.floor - random.below(90))
            }
            _ => Op::Put { guard: self.guard(&key), key, value: value(), lease: None },
        }
    }

    /// What the step changes, in the order of keys.
    pub(crate) fn changes(&self, op: &Op) -> Vec<Change> {
        match op {
            Op::Put { key, value, lease, .. } => vec![(key.clone(), Some((value.clone(), *lease)))],
            Op::Delete { key, .. } => vec![(key.clone(), None)],
            Op::Together { value, .. } => {
                TOGETHER.map(|name| (self.key(name), Some((value.clone(), None)))).into()
            }
            Op::Revoke(id) => {
                let hanging = self.keys.iter().filter(|(_, (_, lease))| *lease == Some(*id));
                hanging.map(|(key, _)| (key.clone(), None)).collect()
            }
            Op::Grant(_) | Op::Compact(_) => Vec::new(),
        }
    }

    /// The step was done; its changes are `revision`'s.
    pub(crate) fn apply(&mut self, op: &Op, revision: Revision) {
        for (key, now) in self.changes(op) {
            match now {
                Some((_, lease)) => drop(self.keys.insert(key, (revision, lease))),
                None => drop(self.keys.remove(&key)),
            }
        }
        match op {
            Op::Grant(id) => drop(self.leases.insert(*id)),
            Op::Revoke(id) => drop(self.leases.remove(id)),
            _ => {}
        }
        self.steps += 1;
    }

    /// Does the step; gives its revision, or 0 where the store does not tell one.
    pub(crate) async fn perform(&self, store: &DurableStore, op: &Op) -> Revision {
        match op.clone() {
            Op::Put { key, guard, value, lease } => {
                let operation = Operation::Put { value, lease };
                write(store, Write { key, precondition: expect(guard), operation }).await
            }
            Op::Delete { key, guard } => write(store, Write::delete(key, expect(guard))).await,
            Op::Together { guard, value } => {
                let put = |name| {
                    let key = self.key(name);
                    let lease = PutLease::Set(None);
                    Step::Put(Put { key, value: Some(value.clone()), lease })
                };
                let compare = Compare {
                    range: KeyRange::key(self.key(TOGETHER[0])),
                    operator: Operator::Equal,
                    operand: Operand::ModRevision(guard),
                };
                let success = TOGETHER.map(put).into();
                let transaction = Transaction { compare: vec![compare], success, failure: vec![] };
                let outcome = store.transact(transaction).await.unwrap();
                assert!(outcome.succeeded, "{op:?} was refused");
                outcome.revision
            }
            Op::Grant(id) => {
                assert_eq!(store.grant(Some(id), 3600).await.unwrap(), id);
                0
            }
            Op::Revoke(id) => {
                assert!(store.revoke(id).await.unwrap(), "lease {id} is gone");
                0
            }
            Op::Compact(revision) => match store.compact(revision).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => 0,
                Err(error) => panic!("{op:?}: {error}"),
            },
        }
    }
}

fn expect(guard: Revision) -> Precondition {
    match guard {
        0 => Precondition::Absent,
        revision => Precondition::ModRevision(revision),
    }
}

async fn write(store: &DurableStore, write: Write) -> Revision {
    match store.write(write.clone()).await.unwrap() {
        WriteOutcome::Committed { revision, .. } => revision,
        refused => panic!("{write:?} was refused: {refused:?}"),
    }
}
