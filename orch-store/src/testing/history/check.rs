//! The judge.

use std::collections::BTreeMap;

use super::{
    Call, History, Outcome, Recorded, Violation, matching,
    order::{Order, Placed},
    replay::{Replay, named, same_events},
    watches,
};
use crate::store::{Event, RangeRequest, Revision};

/// Whether a store that keeps the contract could have given this history; how it is judged, tells
/// the [module](self::super).
///
/// # Errors
/// The first rule that is broken.
pub fn check(history: &History) -> Result<(), Violation> {
    let replay = Replay::of(history)?;
    let mut judge = Judge { history, replay, placed: Vec::new(), owners: BTreeMap::new() };
    for call in &history.calls {
        judge.answer(call)?;
    }
    judge.unknown()?;
    let Judge { replay, placed, .. } = judge;
    let order = Order::new(placed);
    order.check()?;
    revisions(history, &order)?;
    history.watches.iter().try_for_each(|watch| watches::check(history, &replay, &order, watch))
}

struct Judge<'a> {
    history: &'a History,
    replay: Replay<'a>,
    placed: Vec<Placed<'a>>,
    /// The writes that were acknowledged, by revision.
    owners: BTreeMap<Revision, &'a Recorded>,
}

impl<'a> Judge<'a> {
    /// One call whose outcome is known.
    fn answer(&mut self, call: &'a Recorded) -> Result<(), Violation> {
        let Some((_, outcome)) = &call.ended else { return Ok(()) };
        let Some((revision, made)) = named(outcome, &call.call) else { return Ok(()) };
        let (oldest, newest) = (self.history.start.revision, self.history.end);
        if !(oldest..=newest).contains(&revision) || (made && revision == oldest) {
            let call = Box::new(call.clone());
            return Err(match made && revision > newest {
                true => Violation::Lost { revision, call },
                false => Violation::Outside { oldest, newest, call },
            });
        }
        if made {
            self.claim(call, outcome, revision)?;
        } else if !self.reads_before(call) {
            self.told(call, outcome, revision, revision)?;
        }
        self.placed.push(Placed { revision, made, call });
        Ok(())
    }

    /// A write that was acknowledged as `revision`.
    fn claim(
        &mut self,
        call: &'a Recorded,
        outcome: &Outcome,
        revision: Revision,
    ) -> Result<(), Violation> {
        if let Some(first) = self.owners.insert(revision, call) {
            let (first, second) = (Box::new(first.clone()), Box::new(call.clone()));
            return Err(Violation::GivenTwice { revision, first, second });
        }
        let Some(change) = self.replay.change(revision) else {
            return Err(Violation::Lost { revision, call: Box::new(call.clone()) });
        };
        let found = change.events;
        let expected = self.told(call, outcome, revision, revision - 1)?;
        if !same_events(&expected, found) {
            let (call, found) = (Box::new(call.clone()), found.to_vec());
            return Err(Violation::Effect { revision, call, expected, found });
        }
        Ok(())
    }

    /// Whether a range asks for what was before the recording: that is not known here.
    fn reads_before(&self, call: &Recorded) -> bool {
        let start = self.history.start.revision;
        matches!(&call.call, Call::Range(RangeRequest { revision: Some(1..), .. })
            if call_revision(call).is_some_and(|revision| revision < start))
    }

    /// What the call was told must be what it comes to in a store at `at`; gives its changes.
    fn told(
        &self,
        call: &Recorded,
        outcome: &Outcome,
        revision: Revision,
        at: Revision,
    ) -> Result<Vec<Event>, Violation> {
        let expected = match self.replay.decide(&call.call, at) {
            Ok((expected, events)) if expected == *outcome => return Ok(events),
            Ok((expected, _)) => format!("{expected:?}"),
            Err(error) => format!("{error:?}"),
        };
        Err(Violation::Answer { revision, call: Box::new(call.clone()), expected })
    }

    /// Every change that nobody was told of must be that of a call whose outcome is unknown.
    fn unknown(&mut self) -> Result<(), Violation> {
        let is_unknown =
            |call: &&Recorded| matches!(call.ended, None | Some((_, Outcome::Unknown(_))));
        let writes = self.history.calls.iter().filter(|call| is_write(&call.call));
        let unknown: Vec<&Recorded> = writes.filter(is_unknown).collect();
        let owners = &self.owners;
        let changes = &self.replay.changes;
        let open = changes.iter().filter(|change| !owners.contains_key(&change.revision));
        let open: Vec<_> = open.collect();
        let order = Order::new(self.placed.clone());
        let choices = open.iter().map(|change| {
            let latest = order.committed_by(change.revision);
            let candidates = unknown.iter().enumerate().filter(|(_, call)| {
                call.began < latest && self.makes(call, change.revision, change.events)
            });
            candidates.map(|(index, _)| index).collect()
        });
        let choices: Vec<Vec<usize>> = choices.collect();
        match matching::assign(&choices, unknown.len()) {
            Ok(assigned) => {
                let placed = open.iter().zip(assigned).map(|(change, index)| Placed {
                    revision: change.revision,
                    made: true,
                    call: unknown[index],
                });
                let placed: Vec<_> = placed.collect();
                self.placed.extend(placed);
                Ok(())
            }
            Err(row) => {
                let (revision, events) = (open[row].revision, open[row].events.to_vec());
                let hint = self.hint(revision, &events);
                Err(Violation::Unexplained { revision, events, hint })
            }
        }
    }

    /// Whether a call, done as `revision`, makes these changes.
    fn makes(&self, call: &Recorded, revision: Revision, events: &[Event]) -> bool {
        let decided = self.replay.decide(&call.call, revision - 1);
        decided.is_ok_and(|(_, made)| same_events(&made, events))
    }

    /// A call that would explain a change, if it had not been used or did not say otherwise.
    fn hint(&self, revision: Revision, events: &[Event]) -> String {
        let value = |events: &[Event]| -> Vec<_> {
            let of = |event: &Event| (event.entry.key.clone(), event.entry.value.clone());
            events.iter().map(of).collect()
        };
        let similar = self.history.calls.iter().filter(|call| is_write(&call.call)).find(|call| {
            let decided = self.replay.decide(&call.call, revision - 1);
            let again = self.owners.iter().find(|(_, owner)| std::ptr::eq(**owner, *call));
            let again = again.and_then(|(revision, _)| self.replay.change(*revision));
            again.is_some_and(|change| value(change.events) == value(events))
                || decided.is_ok_and(|(_, made)| value(&made) == value(events))
        });
        similar.map(|call| format!("; it looks like {call}")).unwrap_or_default()
    }
}

fn is_write(call: &Call) -> bool {
    matches!(call, Call::Write(_) | Call::Transact(_))
}

/// The revision that a call asks for, or is about.
fn call_revision(call: &Recorded) -> Option<Revision> {
    match &call.call {
        Call::Range(request) => request.revision.filter(|revision| *revision > 0),
        Call::Compact(revision) => Some(*revision),
        Call::Write(_) | Call::Transact(_) => None,
    }
}

/// What was said of the future and of compactions.
fn revisions(history: &History, order: &Order<'_>) -> Result<(), Violation> {
    let compactions = || history.calls.iter().filter(|call| matches!(call.call, Call::Compact(_)));
    let wrong =
        |why, call: &Recorded| Err(Violation::Compaction { why, call: Box::new(call.clone()) });
    for call in &history.calls {
        let Some((ended, outcome)) = &call.ended else { continue };
        match outcome {
            Outcome::Future { requested } => {
                if let Some(earlier) = order.knew(*requested, call.began) {
                    let (earlier, later) = (earlier.clone(), call.clone());
                    return Err(Violation::Time { earlier: earlier.into(), later: later.into() });
                }
            }
            Outcome::Compacted { requested } => {
                let explains = |compaction: &Recorded| {
                    compaction.began < *ended
                        && !std::ptr::eq(compaction, call)
                        && call_revision(compaction).is_some_and(|revision| revision >= *requested)
                };
                if *requested >= history.start.revision && !compactions().any(explains) {
                    return wrong("nobody has compacted that", call);
                }
            }
            Outcome::Range(_) => {
                let Some(requested) = call_revision(call) else { continue };
                let forbids = |compaction: &Recorded| {
                    let done = matches!(compaction.ended, Some((ended, Outcome::Compact)) if ended < call.began);
                    done && call_revision(compaction).is_some_and(|revision| revision > requested)
                };
                if compactions().any(forbids) {
                    return wrong("that had been compacted before", call);
                }
            }
            Outcome::Compact => {
                let future = call_revision(call)
                    .is_some_and(|revision| order.committed_after(revision) > *ended);
                if future {
                    return wrong("that revision had not been reached", call);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
