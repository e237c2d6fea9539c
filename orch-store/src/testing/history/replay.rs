//! The states that the log tells, and what calls come to in them.

use super::{Call, History, Outcome, Violation};
use crate::{
    StoreError,
    store::{Event, EventKind, LeaseId, Revision, StepResult, TransactionOutcome, WriteOutcome},
    testing::model::{Keys, Past, apply, decide_range, decide_transaction, decide_write},
};

/// One revision of the log.
pub(super) struct Change<'a> {
    pub(super) revision: Revision,
    pub(super) events: &'a [Event],
}

/// The log by revisions, with the keys as each of them left them.
pub(super) struct Replay<'a> {
    start: Revision,
    pub(super) changes: Vec<Change<'a>>,
    /// What was there before everything, and behind each change.
    states: Vec<Keys>,
}

impl Past for Replay<'_> {
    fn at(&self, revision: Revision) -> Result<&Keys, StoreError> {
        if revision < self.start {
            return Err(StoreError::Compacted { requested: revision, compacted: self.start });
        }
        let index = self.changes.partition_point(|change| change.revision <= revision);
        Ok(&self.states[index])
    }

    fn has_lease(&self, _: LeaseId) -> bool {
        // Leases are not recorded: whoever was granted one knows.
        true
    }
}

impl<'a> Replay<'a> {
    pub(super) fn of(history: &'a History) -> Result<Self, Violation> {
        let entries = history.start.entries.iter();
        let before: Keys = entries.map(|entry| (entry.key.clone(), entry.clone())).collect();
        let mut states = vec![before];
        let mut changes = Vec::new();
        let mut last = history.start.revision;
        let same = |a: &Event, b: &Event| a.entry.mod_revision == b.entry.mod_revision;
        for events in history.log.chunk_by(same) {
            let revision = events[0].entry.mod_revision;
            if revision <= last {
                return Err(Violation::LogOrder { last, next: revision });
            }
            last = revision;
            let mut keys = states[states.len() - 1].clone();
            apply(&mut keys, events);
            states.push(keys);
            changes.push(Change { revision, events });
        }
        Ok(Self { start: history.start.revision, changes, states })
    }

    /// The change of a revision, if the log has one.
    pub(super) fn change(&self, revision: Revision) -> Option<&Change<'a>> {
        let index = self.changes.binary_search_by_key(&revision, |change| change.revision).ok()?;
        Some(&self.changes[index])
    }

    /// What a call comes to in a store that is at `revision`, and the changes that it makes.
    pub(super) fn decide(
        &self,
        call: &Call,
        revision: Revision,
    ) -> Result<(Outcome, Vec<Event>), StoreError> {
        let keys = self.at(revision)?;
        Ok(match call {
            Call::Write(write) => {
                let (outcome, events) = decide_write(keys, revision, self, write)?;
                (Outcome::Write(outcome), events)
            }
            Call::Transact(transaction) => {
                let decided = decide_transaction(keys, revision, self, transaction);
                let (outcome, events) = decided?;
                (Outcome::Transact(outcome), events)
            }
            Call::Range(request) => {
                (Outcome::Range(decide_range(keys, revision, self, request)?), Vec::new())
            }
            Call::Compact(_) => (Outcome::Compact, Vec::new()),
        })
    }
}

/// Whether two lists of events say the same, as far as the contract tells what they say: what a
/// deletion's entry has besides key and revision is nobody's business.
pub(super) fn same_events(a: &[Event], b: &[Event]) -> bool {
    let same = |(a, b): (&Event, &Event)| match (a.kind, b.kind) {
        (EventKind::Delete, EventKind::Delete) => {
            let place = |event: &Event| (event.entry.key.clone(), event.entry.mod_revision);
            place(a) == place(b) && a.previous == b.previous
        }
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// The revision that an outcome names, and whether that is of a change which the call made.
pub(super) fn named(outcome: &Outcome, call: &Call) -> Option<(Revision, bool)> {
    match (outcome, call) {
        (Outcome::Write(WriteOutcome::Committed { revision, previous }), Call::Write(write)) => {
            let put = matches!(write.operation, crate::Operation::Put { .. });
            Some((*revision, put || previous.is_some()))
        }
        (Outcome::Write(WriteOutcome::PreconditionFailed { revision, .. }), _) => {
            Some((*revision, false))
        }
        (Outcome::Transact(outcome), _) => Some((outcome.revision, has_changes(outcome))),
        (Outcome::Range(response), _) => Some((response.revision, false)),
        _ => None,
    }
}

fn has_changes(outcome: &TransactionOutcome) -> bool {
    outcome.results.iter().any(|result| match result {
        StepResult::Range(_) => false,
        StepResult::Put(_) => true,
        StepResult::Delete(removed) => !removed.is_empty(),
        StepResult::Transaction(inner) => has_changes(inner),
    })
}
