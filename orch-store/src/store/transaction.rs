//! Transactions: several keys compared and changed at one revision.

use std::{cmp::Ordering, collections::BTreeSet};

use bytes::Bytes;

use super::{Entry, KeyRange, LeaseId, RangeRequest, RangeResponse, Revision};
use crate::StoreError;

/// If every comparison holds, the steps of `success`, otherwise those of `failure`; atomic, and
/// all changes as one revision.
///
/// Every comparison, those of inner transactions included, is made with what was there before the
/// whole. Steps run in order, and a range sees the changes of the steps before it. A key must not
/// be changed twice on any one way through the transaction: that is [`StoreError::Invalid`], as in
/// etcd ("duplicate key given in txn request").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold; nothing always holds.
    pub compare: Vec<Compare>,
    /// What is done if it does.
    pub success: Vec<Step>,
    /// What is done if it does not.
    pub failure: Vec<Step>,
}

/// The keys that a list of steps may change.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl Transaction {
    /// Refuses what no store takes: an empty key, and a key that would be changed twice. Judged
    /// from the request alone, as etcd does: a deletion counts as a change of all of its range.
    ///
    /// # Errors
    /// [`StoreError::Invalid`].
    ///
    /// Source: `server/etcdserver/api/v3rpc/key.go`, `checkIntervals`.
    pub fn check(&self) -> Result<(), StoreError> {
        self.changes().map(drop)
    }

    fn changes(&self) -> Result<(Changes<'_>, Changes<'_>), StoreError> {
        if self.compare.iter().any(|compare| compare.range.is_empty_key()) {
            return Err(empty_key());
        }
        Ok((Changes::of(&self.success)?, Changes::of(&self.failure)?))
    }
}

fn empty_key() -> StoreError {
    StoreError::Invalid("the key is empty".into())
}

impl<'a> Changes<'a> {
    fn of(steps: &'a [Step]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        all.deletes.extend(steps.iter().filter_map(|step| match step {
            Step::Delete(range) => Some(range),
            _ => None,
        }));
        for step in steps {
            let Step::Transaction(inner) = step else { continue };
            let (success, failure) = inner.changes()?;
            // Only one of the two branches is taken, so they may change the same keys.
            let either: BTreeSet<_> = success.puts.union(&failure.puts).copied().collect();
            either.into_iter().try_for_each(|key| all.put(key))?;
            all.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
        }
        for step in steps {
            match step {
                Step::Put(put) if put.key.is_empty() => return Err(empty_key()),
                Step::Put(put) => all.put(&put.key)?,
                Step::Range(request) if request.range.is_empty_key() => return Err(empty_key()),
                Step::Delete(range) if range.is_empty_key() => return Err(empty_key()),
                _ => {}
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &'a Bytes) -> Result<(), StoreError> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(StoreError::Invalid("a key is changed twice in one transaction".into()));
        }
        Ok(())
    }
}

/// What must be true of every key of a range. A single key that does not exist has version,
/// revisions and lease 0, and no value: no comparison of values holds for it. A wider range
/// without keys is judged like one such key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How the key's side must stand to `operand`.
    pub operator: Operator,
    /// Which side of the key, and what it is compared with.
    pub operand: Operand,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// How often it was written in its present life.
    Version(u64),
    /// The revision that created it.
    CreateRevision(Revision),
    /// The revision that last changed it.
    ModRevision(Revision),
    /// Its value.
    Value(Bytes),
    /// Its lease; 0 is none.
    Lease(LeaseId),
}

impl Compare {
    /// Whether the comparison holds for one key, present or not.
    pub fn holds(&self, entry: Option<&Entry>) -> bool {
        let number = |side: fn(&Entry) -> u64| entry.map_or(0, side);
        let order = match &self.operand {
            Operand::Version(version) => number(|entry| entry.version).cmp(version),
            Operand::CreateRevision(revision) => number(|e| e.create_revision).cmp(revision),
            Operand::ModRevision(revision) => number(|e| e.mod_revision).cmp(revision),
            Operand::Lease(lease) => entry.and_then(|entry| entry.lease).unwrap_or(0).cmp(lease),
            Operand::Value(value) => match entry {
                Some(entry) => entry.value.cmp(value),
                None => return false,
            },
        };
        match self.operator {
            Operator::Equal => order == Ordering::Equal,
            Operator::NotEqual => order != Ordering::Equal,
            Operator::Greater => order == Ordering::Greater,
            Operator::Less => order == Ordering::Less,
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads a range.
    Range(RangeRequest),
    /// Sets a key.
    Put(Put),
    /// Removes every key of a range.
    Delete(KeyRange),
    /// A transaction within this one.
    Transaction(Transaction),
}

/// A put within a transaction: unlike [`Write::put`](super::Write::put) it can keep a part of
/// what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value; `None` keeps the present one.
    pub value: Option<Bytes>,
    /// The lease to attach the key to.
    pub lease: PutLease,
}

/// What a put does to the key's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutLease {
    /// Attaches it to this one, or to none.
    Set(Option<LeaseId>),
    /// Leaves it attached as it is.
    Keep,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether every comparison held.
    pub succeeded: bool,
    /// The revision of its changes, or the store's if it changed nothing.
    pub revision: Revision,
    /// What each step of the branch taken gave, in order.
    pub results: Vec<StepResult>,
}

/// What one step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// The range.
    Range(RangeResponse),
    /// What a put replaced.
    Put(Option<Entry>),
    /// The entries that were removed, in the order of their keys.
    Delete(Vec<Entry>),
    /// How the inner transaction ended.
    Transaction(TransactionOutcome),
}
