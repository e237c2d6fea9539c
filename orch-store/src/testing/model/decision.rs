//! What a write makes of the keys that it finds.

use std::cmp::Ordering;

use super::{Keys, Past};
use crate::{
    StoreError,
    store::{
        Compare, Entry, Event, EventKind, KeyRange, Operand, Operation, Operator, Precondition,
        Put, PutLease, RangeRequest, RangeResponse, Revision, Step, StepResult, Transaction,
        TransactionOutcome, Write, WriteOutcome,
    },
};

/// Does changes to keys.
pub(in crate::testing) fn apply(keys: &mut Keys, events: &[Event]) {
    for event in events {
        match event.kind {
            EventKind::Put => drop(keys.insert(event.entry.key.clone(), event.entry.clone())),
            EventKind::Delete => drop(keys.remove(&event.entry.key)),
        }
    }
}

/// The change that removes an entry.
pub(super) fn deletion(entry: &Entry, revision: Revision) -> Event {
    let tombstone = Entry {
        key: entry.key.clone(),
        value: "".into(),
        create_revision: 0,
        mod_revision: revision,
        version: 0,
        lease: None,
    };
    Event { kind: EventKind::Delete, entry: tombstone, previous: Some(entry.clone()) }
}

/// The change that puts a value, or an error if it cannot be.
fn change(
    keys: &Keys,
    past: &dyn Past,
    put: &Put,
    revision: Revision,
) -> Result<Event, StoreError> {
    let previous = keys.get(&put.key);
    let value = match (&put.value, previous) {
        (Some(value), _) => value.clone(),
        (None, Some(previous)) => previous.value.clone(),
        (None, None) => return Err(StoreError::NothingToKeep),
    };
    let lease = match (put.lease, previous) {
        (PutLease::Set(lease), _) => lease,
        (PutLease::Keep, Some(previous)) => previous.lease,
        (PutLease::Keep, None) => return Err(StoreError::NothingToKeep),
    };
    if let Some(id) = lease.filter(|id| !past.has_lease(*id)) {
        return Err(StoreError::LeaseNotFound(id));
    }
    let entry = Entry {
        key: put.key.clone(),
        value,
        create_revision: previous.map_or(revision, |previous| previous.create_revision),
        mod_revision: revision,
        version: previous.map_or(1, |previous| previous.version + 1),
        lease,
    };
    Ok(Event { kind: EventKind::Put, entry, previous: previous.cloned() })
}

/// What a write of one key gives, in a store that is at `revision` and has `keys`, and the changes
/// that it makes.
///
/// # Errors
/// Those of the contract.
pub(in crate::testing) fn decide_write(
    keys: &Keys,
    revision: Revision,
    past: &dyn Past,
    write: &Write,
) -> Result<(WriteOutcome, Vec<Event>), StoreError> {
    if write.key.is_empty() {
        return Err(StoreError::Invalid("the key is empty".into()));
    }
    let previous = keys.get(&write.key).cloned();
    let holds = match (write.precondition, &previous) {
        (Precondition::None, _) => true,
        (Precondition::Absent | Precondition::ModRevision(0), previous) => previous.is_none(),
        (Precondition::ModRevision(_), None) => false,
        (Precondition::ModRevision(expected), Some(previous)) => previous.mod_revision == expected,
    };
    if !holds {
        return Ok((WriteOutcome::PreconditionFailed { current: previous, revision }, vec![]));
    }
    let next = revision + 1;
    let event = match (&write.operation, &previous) {
        (Operation::Put { value, lease }, _) => {
            let (key, value) = (write.key.clone(), Some(value.clone()));
            let put = Put { key, value, lease: PutLease::Set(*lease) };
            change(keys, past, &put, next)?
        }
        (Operation::Delete, Some(previous)) => deletion(previous, next),
        (Operation::Delete, None) => {
            return Ok((WriteOutcome::Committed { revision, previous: None }, vec![]));
        }
    };
    Ok((WriteOutcome::Committed { revision: next, previous }, vec![event]))
}

/// What a range gives, in a store that is at `revision` and has `keys`.
pub(in crate::testing) fn range(
    keys: &Keys,
    revision: Revision,
    past: &dyn Past,
    request: &RangeRequest,
) -> Result<RangeResponse, StoreError> {
    let keys = match request.revision.unwrap_or(0) {
        0 => keys,
        at => past.at(at)?,
    };
    let found: Vec<&Entry> =
        keys.values().filter(|entry| request.range.contains(&entry.key)).collect();
    let count = found.len();
    if request.count_only {
        return Ok(RangeResponse { revision, entries: Vec::new(), more: false, count });
    }
    let limit = request.limit.unwrap_or(count);
    let mut entries: Vec<Entry> = found.into_iter().take(limit).cloned().collect();
    if request.keys_only {
        entries.iter_mut().for_each(|entry| entry.value = "".into());
    }
    let more = entries.len() < count;
    Ok(RangeResponse { revision, entries, more, count })
}

/// A transaction as far as it has come.
struct Course<'a> {
    /// The keys before it: what is compared, and what errors are judged by.
    before: &'a Keys,
    revision: Revision,
    past: &'a dyn Past,
    keys: Keys,
    events: Vec<Event>,
}

/// What a transaction gives, in a store that is at `revision` and has `keys`, and the changes that
/// it makes. Comparisons, those of inner transactions too, are with what was there before the
/// whole.
///
/// # Errors
/// Those of the contract.
///
/// Source: `server/etcdserver/txn/txn.go`, `compareToPath`.
pub(in crate::testing) fn decide_transaction(
    keys: &Keys,
    revision: Revision,
    past: &dyn Past,
    transaction: &Transaction,
) -> Result<(TransactionOutcome, Vec<Event>), StoreError> {
    transaction.check()?;
    let before = keys;
    let mut course = Course { before, revision, past, keys: keys.clone(), events: Vec::new() };
    course.check_puts(transaction)?;
    let mut outcome = course.run(transaction)?;
    stamp(&mut outcome, course.current());
    Ok((outcome, course.events))
}

/// Every part of a transaction names the revision of the whole.
fn stamp(outcome: &mut TransactionOutcome, revision: Revision) {
    outcome.revision = revision;
    for result in &mut outcome.results {
        if let StepResult::Transaction(inner) = result {
            stamp(inner, revision);
        }
    }
}

impl Course<'_> {
    /// The revision that is seen within the transaction.
    fn current(&self) -> Revision {
        if self.events.is_empty() { self.revision } else { self.revision + 1 }
    }

    /// The steps that are taken, and whether they are those of success.
    fn path<'t>(&self, transaction: &'t Transaction) -> (bool, &'t [Step]) {
        let succeeded = transaction.compare.iter().all(|compare| holds(self.before, compare));
        (succeeded, if succeeded { &transaction.success } else { &transaction.failure })
    }

    /// What is wrong with a put is told before what is wrong with any range.
    ///
    /// Source: `server/etcdserver/txn/txn.go`, `checkRequests`.
    fn check_puts(&self, transaction: &Transaction) -> Result<(), StoreError> {
        for step in self.path(transaction).1 {
            match step {
                Step::Put(put) => drop(change(self.before, self.past, put, self.revision + 1)?),
                Step::Transaction(inner) => self.check_puts(inner)?,
                Step::Range(_) | Step::Delete(_) => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, transaction: &Transaction) -> Result<TransactionOutcome, StoreError> {
        let (succeeded, steps) = self.path(transaction);
        let mut results = Vec::new();
        for step in steps {
            results.push(self.step(step)?);
        }
        Ok(TransactionOutcome { succeeded, revision: 0, results })
    }

    fn step(&mut self, step: &Step) -> Result<StepResult, StoreError> {
        Ok(match step {
            Step::Range(request) => {
                StepResult::Range(range(&self.keys, self.current(), self.past, request)?)
            }
            Step::Put(put) => {
                let event = change(&self.keys, self.past, put, self.revision + 1)?;
                let previous = event.previous.clone();
                self.change(event);
                StepResult::Put(previous)
            }
            Step::Delete(range) => StepResult::Delete(self.delete(range)),
            Step::Transaction(inner) => StepResult::Transaction(self.run(inner)?),
        })
    }

    fn delete(&mut self, range: &KeyRange) -> Vec<Entry> {
        let found = self.keys.values().filter(|entry| range.contains(&entry.key));
        let found: Vec<Entry> = found.cloned().collect();
        for entry in &found {
            self.change(deletion(entry, self.revision + 1));
        }
        found
    }

    fn change(&mut self, event: Event) {
        apply(&mut self.keys, std::slice::from_ref(&event));
        self.events.push(event);
    }
}

fn holds(keys: &Keys, compare: &Compare) -> bool {
    let found: Vec<&Entry> =
        keys.values().filter(|entry| compare.range.contains(&entry.key)).collect();
    if found.is_empty() {
        return matches(compare, None);
    }
    found.into_iter().all(|entry| matches(compare, Some(entry)))
}

fn matches(compare: &Compare, entry: Option<&Entry>) -> bool {
    let order = match (&compare.operand, entry) {
        (Operand::Value(_), None) => return false,
        (Operand::Value(value), Some(entry)) => entry.value.cmp(value),
        (Operand::Version(version), entry) => entry.map_or(0, |e| e.version).cmp(version),
        (Operand::CreateRevision(created), entry) => {
            entry.map_or(0, |e| e.create_revision).cmp(created)
        }
        (Operand::ModRevision(changed), entry) => entry.map_or(0, |e| e.mod_revision).cmp(changed),
        (Operand::Lease(lease), entry) => entry.and_then(|e| e.lease).unwrap_or(0).cmp(lease),
    };
    match compare.operator {
        Operator::Equal => order == Ordering::Equal,
        Operator::NotEqual => order != Ordering::Equal,
        Operator::Greater => order == Ordering::Greater,
        Operator::Less => order == Ordering::Less,
    }
}
