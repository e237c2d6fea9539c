//! Writes that are decided and not yet visible: what the memory store makes under its lock, and the
//! durable store while the disk is at work.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    answer,
    state::{State, readable},
    version::Version,
};
use crate::{
    StoreError,
    store::{
        Compare, Entry, KeyRange, LeaseId, Operation, Precondition, Put, PutLease, RangeRequest,
        RangeResponse, Revision, Step, StepResult, Transaction, TransactionOutcome, Write,
        WriteOutcome,
    },
};

/// The newest versions of some keys.
pub(crate) type Heads = HashMap<Bytes, Arc<Version>, foldhash::fast::FixedState>;

/// Changes that were decided on top of a state and are not visible in it yet.
pub(crate) trait Hidden {
    /// The newest version of a key among them.
    fn head(&self, key: &[u8]) -> Option<&Arc<Version>>;

    /// Their newest versions; where a key comes twice, the later one is the newer.
    fn heads(&self) -> impl Iterator<Item = &Arc<Version>>;
}

/// Nothing: every change is visible when it is decided.
impl Hidden for () {
    fn head(&self, _: &[u8]) -> Option<&Arc<Version>> {
        None
    }

    fn heads(&self) -> impl Iterator<Item = &Arc<Version>> {
        std::iter::empty()
    }
}

impl Hidden for Heads {
    fn head(&self, key: &[u8]) -> Option<&Arc<Version>> {
        if self.is_empty() { None } else { self.get(key) }
    }

    fn heads(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.values()
    }
}

/// A state with the changes that were decided on top of it, and those of the write in hand.
pub(crate) struct Draft<'a, H> {
    state: &'a State,
    hidden: &'a H,
    /// The newest revision that was decided.
    revision: Revision,
    own: Heads,
    versions: Vec<Arc<Version>>,
}

impl<'a, H: Hidden> Draft<'a, H> {
    /// Begins the write that follows `revision`, which `hidden` leads to from `state`.
    pub(crate) fn new(state: &'a State, hidden: &'a H, revision: Revision) -> Self {
        Self { state, hidden, revision, own: Heads::default(), versions: Vec::new() }
    }

    fn head(&self, key: &[u8]) -> Option<&Arc<Version>> {
        let hidden = || self.hidden.head(key);
        self.own.head(key).or_else(hidden).or_else(|| self.state.keys.get(key))
    }

    /// Decides a write of one key; gives the change, if it makes one.
    pub(crate) fn write(
        self,
        write: Write,
    ) -> Result<(WriteOutcome, Option<Arc<Version>>), StoreError> {
        let head = self.head(&write.key);
        let live = head.and_then(|head| head.live());
        let holds = match write.precondition {
            Precondition::None => true,
            Precondition::Absent => live.is_none(),
            Precondition::ModRevision(expected) => {
                live.map_or(0, |entry| entry.mod_revision) == expected
            }
        };
        let revision = self.revision;
        if !holds {
            let current = live.cloned();
            return Ok((WriteOutcome::PreconditionFailed { current, revision }, None));
        }
        let version = match write.operation {
            Operation::Put { value, lease } => {
                self.check_lease(lease)?;
                Some(Version::put(write.key, value, lease, revision + 1, head))
            }
            Operation::Delete => live.and(head).map(|head| Version::tombstone(revision + 1, head)),
        };
        let revision = version.as_ref().map_or(revision, |version| version.entry.mod_revision);
        Ok((WriteOutcome::Committed { revision, previous: live.cloned() }, version))
    }

    /// Decides a transaction, which has been checked; gives the changes, all of one revision.
    pub(crate) fn transact(
        mut self,
        transaction: Transaction,
    ) -> Result<(TransactionOutcome, Vec<Arc<Version>>), StoreError> {
        if reads_the_past(&transaction) {
            self.check_puts(&transaction)?;
        }
        let mut outcome = self.run(transaction)?;
        let revision = self.revision + u64::from(!self.versions.is_empty());
        stamp(&mut outcome, revision);
        Ok((outcome, self.versions))
    }

    /// What is wrong with a put is told before what is wrong with any range, as etcd tells it.
    fn check_puts(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let succeeded = transaction.compare.iter().all(|compare| self.holds(compare));
        let steps = if succeeded { &transaction.success } else { &transaction.failure };
        steps.iter().try_for_each(|step| match step {
            Step::Put(put) => {
                let live = self.head(&put.key).and_then(|head| head.live());
                self.settled(put, live).map(drop)
            }
            Step::Transaction(inner) => self.check_puts(inner),
            Step::Range(_) | Step::Delete(_) => Ok(()),
        })
    }

    fn run(&mut self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        let Transaction { compare, success, failure } = transaction;
        let succeeded = compare.iter().all(|compare| self.holds(compare));
        let steps = if succeeded { success } else { failure };
        let results = steps.into_iter().map(|step| self.step(step)).collect::<Result<_, _>>()?;
        Ok(TransactionOutcome { succeeded, revision: 0, results })
    }

    fn step(&mut self, step: Step) -> Result<StepResult, StoreError> {
        Ok(match step {
            Step::Range(request) => StepResult::Range(self.range(&request)?),
            Step::Put(put) => StepResult::Put(self.put(&put)?),
            Step::Delete(range) => StepResult::Delete(self.delete(&range)),
            Step::Transaction(inner) => StepResult::Transaction(self.run(inner)?),
        })
    }

    /// Compares with what was there before the whole transaction, as etcd does, also where an
    /// inner one comes behind changes of the outer.
    fn holds(&self, compare: &Compare) -> bool {
        let before = Self::new(self.state, self.hidden, self.revision);
        if let Some(key) = compare.range.single() {
            return compare.holds(before.head(key).and_then(|head| head.live()));
        }
        let found = before.live(&compare.range);
        match found.is_empty() {
            true => compare.holds(None),
            false => found.iter().all(|head| compare.holds(head.live())),
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let current = self.revision + u64::from(!self.versions.is_empty());
        let at = match request.revision.filter(|at| *at > 0) {
            // The revision of the transaction itself cannot be asked for by its number.
            Some(at) => readable(Some(at), self.revision, self.state.compacted)?,
            None => current,
        };
        if self.own.is_empty() && self.hidden.heads().next().is_none() {
            return Ok(self.state.source().range(request, at));
        }
        let heads = self.all(&request.range);
        let entries = heads.iter().filter_map(|head| head.at(at));
        Ok(answer::collect(entries, current, request))
    }

    fn put(&mut self, put: &Put) -> Result<Option<Entry>, StoreError> {
        let live = self.head(&put.key).and_then(|head| head.live()).cloned();
        let (value, lease) = self.settled(put, live.as_ref())?;
        let version =
            Version::put(put.key.clone(), value, lease, self.revision + 1, self.head(&put.key));
        self.change(version);
        Ok(live)
    }

    /// The value and the lease of a put, where it keeps them those of the entry that is there.
    fn settled(
        &self,
        put: &Put,
        live: Option<&Entry>,
    ) -> Result<(Bytes, Option<LeaseId>), StoreError> {
        let kept = || live.ok_or(StoreError::NothingToKeep);
        let value = match &put.value {
            Some(value) => value.clone(),
            None => kept()?.value.clone(),
        };
        let lease = match put.lease {
            PutLease::Set(lease) => lease,
            PutLease::Keep => kept()?.lease,
        };
        // Where both are wrong, etcd's versions differ in which they tell.
        self.check_lease(lease)?;
        Ok((value, lease))
    }

    fn delete(&mut self, range: &KeyRange) -> Vec<Entry> {
        let heads = match range.single() {
            Some(key) => self.head(key).filter(|head| !head.deleted).cloned().into_iter().collect(),
            None => self.live(range),
        };
        for head in &heads {
            self.change(Version::tombstone(self.revision + 1, head));
        }
        heads.iter().map(|head| head.entry.clone()).collect()
    }

    fn change(&mut self, version: Arc<Version>) {
        self.own.insert(version.entry.key.clone(), version.clone());
        self.versions.push(version);
    }

    fn check_lease(&self, lease: Option<LeaseId>) -> Result<(), StoreError> {
        match lease {
            Some(id) if !self.state.leases.contains(id) => Err(StoreError::LeaseNotFound(id)),
            _ => Ok(()),
        }
    }

    /// The newest versions in a range that are no tombstones.
    fn live(&self, range: &KeyRange) -> Vec<Arc<Version>> {
        self.all(range).into_iter().filter(|head| !head.deleted).collect()
    }

    /// The newest versions in a range, in the order of keys.
    fn all(&self, range: &KeyRange) -> Vec<Arc<Version>> {
        let visible = self.state.keys.range(range).cloned();
        let mut found: BTreeMap<Bytes, Arc<Version>> =
            visible.map(|head| (head.entry.key.clone(), head)).collect();
        for head in self.hidden.heads().chain(self.own.values()) {
            if range.contains(&head.entry.key) {
                found.insert(head.entry.key.clone(), head.clone());
            }
        }
        found.into_values().collect()
    }
}

/// Whether a range in a transaction is of a revision of its own, which is all that can be wrong with
/// a range.
fn reads_the_past(transaction: &Transaction) -> bool {
    transaction.success.iter().chain(&transaction.failure).any(|step| match step {
        Step::Range(request) => request.revision.is_some(),
        Step::Transaction(inner) => reads_the_past(inner),
        Step::Put(_) | Step::Delete(_) => false,
    })
}

/// Inner transactions have the revision of the whole.
fn stamp(outcome: &mut TransactionOutcome, revision: Revision) {
    outcome.revision = revision;
    for result in &mut outcome.results {
        if let StepResult::Transaction(inner) = result {
            stamp(inner, revision);
        }
    }
}
