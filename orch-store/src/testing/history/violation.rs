//! What is wrong with a history.

use super::{Recorded, Watched};
use crate::store::{Event, Revision};

/// A rule of the contract that a history breaks, with what breaks it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The log itself goes back.
    #[error("the log has revision {next} behind revision {last}")]
    LogOrder {
        /// The newest revision before.
        last: Revision,
        /// What came then.
        next: Revision,
    },
    /// A write was acknowledged and is not in the log.
    #[error("revision {revision} was acknowledged, and the log does not have it: {call}")]
    Lost {
        /// The revision.
        revision: Revision,
        /// The write.
        call: Box<Recorded>,
    },
    /// Two writes were given the same revision.
    #[error("revision {revision} was given to two writes: {first}; and {second}")]
    GivenTwice {
        /// The revision.
        revision: Revision,
        /// One of them.
        first: Box<Recorded>,
        /// The other.
        second: Box<Recorded>,
    },
    /// The log has a change that no call explains.
    #[error("nobody made the change of revision {revision}: {events:?}{hint}")]
    Unexplained {
        /// The revision.
        revision: Revision,
        /// The change.
        events: Vec<Event>,
        /// A call that would have made it, and why it did not.
        hint: String,
    },
    /// A write's events are not those that it makes of what was there before.
    #[error("revision {revision} has the events {found:?} instead of {expected:?}, of {call}")]
    Effect {
        /// The revision.
        revision: Revision,
        /// The write.
        call: Box<Recorded>,
        /// What it makes of what was there.
        expected: Vec<Event>,
        /// What the log has.
        found: Vec<Event>,
    },
    /// A call was told what is not true at the revision that it was told of.
    #[error("at revision {revision} {expected} was true, and not what was told: {call}")]
    Answer {
        /// The revision.
        revision: Revision,
        /// The call.
        call: Box<Recorded>,
        /// What it would have been told.
        expected: String,
    },
    /// A call names a revision that the store never reached, or had left behind.
    #[error("a revision outside of {oldest}..={newest} was told: {call}")]
    Outside {
        /// The store's revision before everything.
        oldest: Revision,
        /// The store's revision behind everything.
        newest: Revision,
        /// The call.
        call: Box<Recorded>,
    },
    /// A call ended before another began, and yet is behind it in the order of revisions.
    #[error("revisions contradict time: {later}; which began only after this had ended: {earlier}")]
    Time {
        /// What ended first, of the newer revision.
        earlier: Box<Recorded>,
        /// What began then, of the older revision.
        later: Box<Recorded>,
    },
    /// An answer about compaction that the compactions do not explain.
    #[error("{why}: {call}")]
    Compaction {
        /// What is wrong.
        why: &'static str,
        /// The call.
        call: Box<Recorded>,
    },
    /// A watch delivered something else than the log's events of its range.
    #[error("{why} (item {item} of a watch of {:?} from {:?})", watch.range, watch.from)]
    Watch {
        /// What is wrong.
        why: String,
        /// At which item, counted from 0.
        item: usize,
        /// The watch.
        watch: Box<Watched>,
    },
}
