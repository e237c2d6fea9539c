//! Courses of concurrent calls, and whether a store that keeps the contract could have given them.
//!
//! [`Recorder`] wraps a store and notes every call: what was asked, what was answered, and the
//! ticks of a logical clock at which it began and ended. [`check`] judges the [`History`] that
//! comes of it.
//!
//! # How it is judged
//! In general it is hard (NP-complete) to tell whether an order of the calls exists that explains
//! all answers. Here it is not, because every answer names a revision, and revisions are that
//! order. So a history is linearizable if
//! - replaying the changes in the order of their revisions, on a store so naive that it can be
//!   believed, gives every answer and exactly the events of the log (the watch of everything);
//! - no two writes have the same revision, and every write that was acknowledged is in the log;
//! - every change in the log is that of one write: an acknowledged one, or one whose outcome is
//!   unknown, which then took place once, not before it was asked for. A write that said that
//!   nothing was written explains nothing;
//! - real time does not contradict the order of revisions: a call that ended before another began
//!   has no newer revision than that; for a write, an older one;
//! - each watch delivered the log's events of its range, from its start on, without gap, repeat or
//!   split revision, and its progress never ran ahead of them.
//!
//! That takes time proportional to the history (times the size of the few keys), whatever its
//! length and however many outcomes are unknown.
//!
//! # Why no checker from elsewhere
//! Both that there are search for an order, because they know nothing of revisions.
//! `todc-utils` 0.1 (last changed in 2024) is Wing's and Gong's algorithm with a cache of visited
//! configurations; `stateright` 0.31's `LinearizabilityTester` (2025) tries every interleaving,
//! copying the history at each step. Neither comes to an end on thousands of calls of which many
//! overlap; one wants an answer for every call, the other one call at a time of each client; and
//! neither would notice a wrong revision, an event that is missing or a transaction of which a
//! half is seen. The first is used where it is good: in the tests it has to agree with this one
//! about short histories of one key.
//!
//! # Limits
//! Everything happens under one prefix, and nobody else writes there. Leases are not recorded: a
//! key that expires was deleted by nobody. What is read of revisions from before the recording is
//! not judged, and the log must not be compacted away before it is read.

mod check;
mod matching;
mod order;
mod recorder;
mod replay;
mod violation;
mod watches;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use self::{check::check, recorder::Recorder, violation::Violation};
use crate::store::{
    Event, KeyRange, RangeRequest, RangeResponse, Revision, Transaction, TransactionOutcome, Write,
    WriteOutcome,
};

/// A point in the recorder's logical time; no two are the same.
pub type Tick = u64;

/// What was asked of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A write of one key.
    Write(Write),
    /// A transaction.
    Transact(Transaction),
    /// A range.
    Range(RangeRequest),
    /// A compaction.
    Compact(Revision),
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// That of a write.
    Write(WriteOutcome),
    /// That of a transaction.
    Transact(TransactionOutcome),
    /// That of a range.
    Range(RangeResponse),
    /// The compaction was done.
    Compact,
    /// The revision is compacted.
    Compacted {
        /// What was asked for.
        requested: Revision,
    },
    /// The revision has not been reached.
    Future {
        /// What was asked for.
        requested: Revision,
    },
    /// An error that says that nothing was done.
    Nothing(String),
    /// An error that leaves open whether the call was done.
    Unknown(String),
}

/// A call with its outcome, and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What was asked.
    pub call: Call,
    /// When.
    pub began: Tick,
    /// When it ended and with what; `None` for a call whose future was dropped.
    pub ended: Option<(Tick, Outcome)>,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, began, ended } = self;
        match ended {
            Some((ended, outcome)) => write!(f, "[{began}..{ended}] {call:?} -> {outcome:?}"),
            None => write!(f, "[{began}..] {call:?}, dropped"),
        }
    }
}

/// What a watch delivered, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Changes.
    Events(Arc<[Event]>),
    /// Progress.
    Progress(Revision),
    /// The end, with an error.
    Ended(String),
}

/// A watch that was opened, and what it delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its range.
    pub range: KeyRange,
    /// Its start.
    pub from: Option<Revision>,
    /// When it was asked for.
    pub began: Tick,
    /// When it was there.
    pub opened: Tick,
    /// What it delivered.
    pub seen: Vec<Seen>,
}

/// Everything that happened under a prefix.
#[derive(Clone, Debug)]
pub struct History {
    /// The prefix.
    pub prefix: Bytes,
    /// What was there before.
    pub start: RangeResponse,
    /// The newest revision at the end.
    pub end: Revision,
    /// The calls, in the order in which they began.
    pub calls: Vec<Recorded>,
    /// The watches, in the order in which they were opened.
    pub watches: Vec<Watched>,
    /// Every change between start and end, as a watch of the store itself tells them.
    pub log: Vec<Event>,
}

impl History {
    /// How many calls ended without anybody's knowing whether they were done.
    pub fn unknown(&self) -> usize {
        let unknown =
            |call: &&Recorded| matches!(call.ended, None | Some((_, Outcome::Unknown(_))));
        self.calls.iter().filter(unknown).count()
    }
}
