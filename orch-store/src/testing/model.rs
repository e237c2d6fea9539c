//! What a store does, naively: a whole map for every revision that ever was.
//!
//! Nothing here is fast or clever, and nothing is shared with the stores but the words of the
//! contract: where a store and this differ, one of them is wrong, and this one can be read.

mod decision;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

pub(super) use self::decision::{apply, decide_transaction, decide_write, range as decide_range};
use crate::{
    StoreError,
    store::{
        Entry, Event, KeyRange, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision,
        Transaction, TransactionOutcome, Write, WriteOutcome,
    },
};

/// The keys as one revision left them.
pub(super) type Keys = BTreeMap<Bytes, Entry>;

/// What a decision needs to know besides the keys as they are.
pub(super) trait Past {
    /// The keys as they were at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Future`].
    fn at(&self, revision: Revision) -> Result<&BTreeMap<Bytes, Entry>, StoreError>;

    /// Whether there is such a lease.
    fn has_lease(&self, id: LeaseId) -> bool;
}

#[derive(Clone, Debug)]
struct Granted {
    ttl_s: i64,
    deadline: Duration,
}

/// A store in which every state that ever was is kept whole.
///
/// Time is what [`advance`](Self::advance) makes it; a lease ends when its deadline has been
/// reached.
#[derive(Clone, Debug)]
pub struct Model {
    /// The states; the first is that of revision 1.
    states: Vec<Keys>,
    /// The changes that made each of them of the one before.
    changes: Vec<Vec<Event>>,
    compacted: Revision,
    leases: BTreeMap<LeaseId, Granted>,
    now: Duration,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            states: vec![Keys::new()],
            changes: vec![Vec::new()],
            compacted: 0,
            leases: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }
}

impl Past for Model {
    fn at(&self, revision: Revision) -> Result<&Keys, StoreError> {
        let (requested, current, compacted) = (revision, self.revision(), self.compacted);
        if requested > current {
            return Err(StoreError::Future { requested, current });
        }
        if requested < compacted {
            return Err(StoreError::Compacted { requested, compacted });
        }
        Ok(&self.states[index(revision) - 1])
    }

    fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }
}

fn index(revision: Revision) -> usize {
    usize::try_from(revision).expect("a model does not live that long")
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    /// The compaction revision; 0 if nothing was compacted.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The keys as they are.
    pub fn keys(&self) -> &BTreeMap<Bytes, Entry> {
        &self.states[self.states.len() - 1]
    }

    fn commit(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut keys = self.keys().clone();
        apply(&mut keys, &events);
        self.states.push(keys);
        self.changes.push(events);
    }

    /// As [`Store::write`](crate::Store::write).
    ///
    /// # Errors
    /// Those of the contract.
    pub fn write(&mut self, write: &Write) -> Result<WriteOutcome, StoreError> {
        let (outcome, events) = decide_write(self.keys(), self.revision(), self, write)?;
        self.commit(events);
        Ok(outcome)
    }

    /// As [`Store::transact`](crate::Store::transact).
    ///
    /// # Errors
    /// Those of the contract.
    pub fn transact(
        &mut self,
        transaction: &Transaction,
    ) -> Result<TransactionOutcome, StoreError> {
        let decided = decide_transaction(self.keys(), self.revision(), self, transaction);
        let (outcome, events) = decided?;
        self.commit(events);
        Ok(outcome)
    }

    /// As [`StoreReader::range`](crate::StoreReader::range).
    ///
    /// # Errors
    /// Those of the contract.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        decision::range(self.keys(), self.revision(), self, request)
    }

    /// As [`Store::compact`](crate::Store::compact).
    ///
    /// # Errors
    /// Those of the contract.
    pub fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        let (requested, current, compacted) = (revision, self.revision(), self.compacted);
        if requested <= compacted {
            return Err(StoreError::Compacted { requested, compacted });
        }
        if requested > current {
            return Err(StoreError::Future { requested, current });
        }
        self.compacted = revision;
        Ok(())
    }

    /// The changes of a range from a revision (inclusive) on, compacted or not.
    pub fn events(&self, range: &KeyRange, from: Revision) -> Vec<Event> {
        let newer = self.changes.iter().skip(index(from.max(1)) - 1).flatten();
        newer.filter(|event| range.contains(&event.entry.key)).cloned().collect()
    }

    /// As [`Leases::grant`](crate::Leases::grant), of an id that was chosen.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`].
    pub fn grant(&mut self, id: LeaseId, ttl_s: i64) -> Result<(), StoreError> {
        if self.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists(id));
        }
        let deadline = self.now + Duration::from_secs(ttl_s.unsigned_abs());
        self.leases.insert(id, Granted { ttl_s, deadline });
        Ok(())
    }

    /// As [`Leases::keep_alive`](crate::Leases::keep_alive).
    pub fn keep_alive(&mut self, id: LeaseId) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        lease.deadline = self.now + Duration::from_secs(lease.ttl_s.unsigned_abs());
        Some(lease.ttl_s)
    }

    /// As [`Leases::revoke`](crate::Leases::revoke).
    pub fn revoke(&mut self, id: LeaseId) -> bool {
        if self.leases.remove(&id).is_none() {
            return false;
        }
        let attached = self.keys().values().filter(|entry| entry.lease == Some(id));
        let revision = self.revision() + 1;
        let deletions = attached.map(|entry| decision::deletion(entry, revision)).collect();
        self.commit(deletions);
        true
    }

    /// As [`LeaseReader::lease`](crate::LeaseReader::lease).
    pub fn lease(&self, id: LeaseId) -> Option<LeaseStatus> {
        let lease = self.leases.get(&id)?;
        let attached = self.keys().values().filter(|entry| entry.lease == Some(id));
        Some(LeaseStatus {
            granted_ttl_s: lease.ttl_s,
            remaining: lease.deadline.saturating_sub(self.now),
            keys: attached.map(|entry| entry.key.clone()).collect(),
        })
    }

    /// As [`LeaseReader::leases`](crate::LeaseReader::leases).
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.keys().copied().collect()
    }

    /// Lets time pass: the leases whose time is over end, in the order of their deadlines.
    pub fn advance(&mut self, time: Duration) {
        self.now += time;
        loop {
            let over = self.leases.iter().filter(|(_, lease)| lease.deadline <= self.now);
            let Some((id, _)) = over.min_by_key(|(id, lease)| (lease.deadline, **id)) else {
                break;
            };
            self.revoke(*id);
        }
    }

    /// What opening a durable store anew does: leases start their time anew.
    pub fn reopen(&mut self) {
        for lease in self.leases.values_mut() {
            lease.deadline = self.now + Duration::from_secs(lease.ttl_s.unsigned_abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Precondition, Step};

    #[test]
    fn every_revision_is_kept() {
        let mut model = Model::default();
        model.write(&Write::create("a", "1")).unwrap();
        model.write(&Write::update("a", 2, "2")).unwrap();
        model.write(&Write::delete("a", Precondition::None)).unwrap();
        let delete = Step::Delete(KeyRange::prefix(""));
        let nothing = Transaction { success: vec![delete], ..Transaction::default() };
        assert_eq!(model.transact(&nothing).unwrap().revision, 4);
        let of = |revision| RangeRequest {
            revision: Some(revision),
            ..RangeRequest::new(KeyRange::prefix(""))
        };
        assert_eq!(model.range(&of(3)).unwrap().entries[0].version, 2);
        assert_eq!(model.range(&of(4)).unwrap().count, 0);
        assert_eq!(model.events(&KeyRange::key("a"), 3).len(), 2);
        model.compact(4).unwrap();
        assert!(matches!(model.range(&of(3)), Err(StoreError::Compacted { compacted: 4, .. })));
        assert!(matches!(model.range(&of(5)), Err(StoreError::Future { current: 4, .. })));
    }

    #[test]
    fn leases_end_in_the_order_of_their_deadlines() {
        let mut model = Model::default();
        for (id, ttl_s, key) in [(1, 20, "late"), (2, 10, "early"), (3, 60, "stays")] {
            model.grant(id, ttl_s).unwrap();
            let operation = crate::Operation::Put { value: "x".into(), lease: Some(id) };
            model.write(&Write { operation, ..Write::put(key, "") }).unwrap();
        }
        model.advance(Duration::from_secs(30));
        let ended: Vec<_> = model.events(&KeyRange::prefix(""), 5);
        let ended: Vec<_> = ended.iter().map(|event| &event.entry.key[..]).collect();
        assert_eq!((ended, model.leases()), (vec![&b"early"[..], b"late"], vec![3]));
    }
}
