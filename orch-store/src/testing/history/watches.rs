//! Whether watches delivered the log.

use super::{
    History, Seen, Violation, Watched,
    order::Order,
    replay::{Replay, same_events},
};
use crate::store::{Event, Revision};

/// A watch of which the judge has read a part.
struct Reader<'a> {
    watch: &'a Watched,
    /// The log's events of the watch's range that it may have to deliver.
    expected: &'a [Event],
    /// How many of them it has delivered.
    position: usize,
    started: bool,
    last: Revision,
}

/// Whether a watch delivered the log's events of its range.
pub(super) fn check(
    history: &History,
    replay: &Replay<'_>,
    order: &Order<'_>,
    watch: &Watched,
) -> Result<(), Violation> {
    let from = watch.from.filter(|from| *from > 0);
    let first = from.unwrap_or(0).max(history.start.revision + 1);
    let changes = replay.changes.iter().flat_map(|change| change.events);
    let wanted = changes.filter(|event| {
        event.entry.mod_revision >= first && watch.range.contains(&event.entry.key)
    });
    let expected: Vec<Event> = wanted.cloned().collect();
    let started = from.is_some();
    let mut reader = Reader { watch, expected: &expected, position: 0, started, last: 0 };
    for (item, seen) in watch.seen.iter().enumerate() {
        let checked = match seen {
            Seen::Events(events) => reader.events(history, order, events),
            Seen::Progress(revision) => reader.progress(order, *revision),
            Seen::Ended(_) => Ok(()),
        };
        checked.map_err(|why| Violation::Watch { why, item, watch: Box::new(watch.clone()) })?;
    }
    Ok(())
}

impl Reader<'_> {
    fn events(
        &mut self,
        history: &History,
        order: &Order<'_>,
        events: &[Event],
    ) -> Result<(), String> {
        let Some((first, last)) = events.first().zip(events.last()) else {
            return Err("an item has no events".into());
        };
        let first = first.entry.mod_revision;
        if first <= self.last {
            return Err(format!("revision {first} was split, repeated or late"));
        }
        self.last = last.entry.mod_revision;
        // What is from before the recording or behind its mark is not known here.
        let known = history.start.revision + 1..=history.end;
        let events: Vec<Event> =
            events.iter().filter(|e| known.contains(&e.entry.mod_revision)).cloned().collect();
        let Some(first) = events.first().map(|event| event.entry.mod_revision) else {
            // The mark is behind everything.
            return match self.last > history.end {
                true => self.skip_to(Revision::MAX, order),
                false => Ok(()),
            };
        };
        self.skip_to(first, order)?;
        let rest = &self.expected[self.position..];
        let next = &rest[..rest.len().min(events.len())];
        if !same_events(next, &events) {
            return Err(format!("{events:?} was delivered instead of {next:?}"));
        }
        self.position += events.len();
        let split = rest.get(events.len()).is_some_and(|next| {
            Some(next.entry.mod_revision) == events.last().map(|last| last.entry.mod_revision)
        });
        if split {
            return Err(format!("a part of revision {} was delivered", self.last));
        }
        Ok(())
    }

    /// Where a watch from now on begins is its own affair, within limits: what may have been
    /// committed before it was open need not be delivered.
    fn skip_to(&mut self, first: Revision, order: &Order<'_>) -> Result<(), String> {
        if self.started {
            return match self.expected.get(self.position) {
                Some(next) if next.entry.mod_revision < first => {
                    Err(format!("revision {} was left out", next.entry.mod_revision))
                }
                _ => Ok(()),
            };
        }
        self.started = true;
        self.position = self.may_skip_to(first, order)?;
        if first < Revision::MAX && order.committed_by(first) < self.watch.began {
            return Err(format!("revision {first} is from before a watch of what comes"));
        }
        Ok(())
    }

    /// The position of the first event that is not older than `first`, if a watch may begin there.
    fn may_skip_to(&self, first: Revision, order: &Order<'_>) -> Result<usize, String> {
        let skipped = self.expected.partition_point(|event| event.entry.mod_revision < first);
        let last = skipped.checked_sub(1).map(|index| self.expected[index].entry.mod_revision);
        match last.filter(|last| order.committed_after(*last) > self.watch.opened) {
            Some(last) => {
                Err(format!("revision {last}, written when the watch was open, was left out"))
            }
            None => Ok(skipped),
        }
    }

    /// Progress means that everything up to it has been delivered.
    fn progress(&self, order: &Order<'_>, revision: Revision) -> Result<(), String> {
        if !self.started {
            // Nothing has been delivered: whatever is not newer must be from before the watch.
            return self.may_skip_to(revision.saturating_add(1), order).map(drop);
        }
        match self.expected.get(self.position) {
            Some(next) if next.entry.mod_revision <= revision => {
                let missing = next.entry.mod_revision;
                Err(format!("progress to {revision} came before revision {missing}"))
            }
            _ => Ok(()),
        }
    }
}
