//! Whether real time and the order of revisions agree.

use super::{Recorded, Tick, Violation};
use crate::store::Revision;

/// A call at its place in the order of revisions.
#[derive(Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) revision: Revision,
    /// Whether the revision is its own; otherwise it is what the call saw.
    pub(super) made: bool,
    pub(super) call: &'a Recorded,
}

impl Placed<'_> {
    /// When it was over at the latest; a call of which nobody heard again, at any time.
    fn ended(&self) -> Tick {
        match &self.call.ended {
            Some((_, super::Outcome::Unknown(_))) | None => Tick::MAX,
            Some((ended, _)) => *ended,
        }
    }
}

/// Calls in the order of revisions: what made one before what saw it.
pub(super) struct Order<'a> {
    calls: Vec<Placed<'a>>,
    /// For each call the earliest end of it and those behind it.
    ends: Vec<Tick>,
    /// For each call the latest beginning of it and those before it.
    beginnings: Vec<Tick>,
}

impl<'a> Order<'a> {
    pub(super) fn new(mut calls: Vec<Placed<'a>>) -> Self {
        calls.sort_by_key(|call| (call.revision, !call.made, call.call.began));
        let mut ends: Vec<_> = calls.iter().map(Placed::ended).collect();
        for index in (1..ends.len()).rev() {
            ends[index - 1] = ends[index - 1].min(ends[index]);
        }
        let mut beginnings: Vec<_> = calls.iter().map(|call| call.call.began).collect();
        for index in 1..beginnings.len() {
            beginnings[index] = beginnings[index].max(beginnings[index - 1]);
        }
        Self { calls, ends, beginnings }
    }

    /// A time by which a revision had been committed for certain.
    pub(super) fn committed_by(&self, revision: Revision) -> Tick {
        let index = self.calls.partition_point(|call| call.revision < revision);
        self.ends.get(index).copied().unwrap_or(Tick::MAX)
    }

    /// A time before which a revision cannot have been committed.
    pub(super) fn committed_after(&self, revision: Revision) -> Tick {
        let place = |call: &Placed<'_>| (call.revision, !call.made) <= (revision, false);
        let index = self.calls.partition_point(place);
        if index == 0 { 0 } else { self.beginnings[index - 1] }
    }

    /// A call that knew of a revision and had ended before `tick`.
    pub(super) fn knew(&self, revision: Revision, tick: Tick) -> Option<&'a Recorded> {
        let index = self.calls.partition_point(|call| call.revision < revision);
        self.calls[index..].iter().find(|call| call.ended() < tick).map(|call| call.call)
    }

    /// Every call can be given a moment between its beginning and its end, so that these moments
    /// are in the order of revisions; calls that saw the same revision may be in any order.
    pub(super) fn check(&self) -> Result<(), Violation> {
        let mut latest: Option<&Recorded> = None;
        for same in self.calls.chunk_by(|a, b| a.revision == b.revision && a.made == b.made) {
            for placed in same {
                if let Some(latest) = latest.filter(|latest| placed.ended() < latest.began) {
                    let (earlier, later) = (placed.call.clone(), latest.clone());
                    return Err(Violation::Time { earlier: earlier.into(), later: later.into() });
                }
            }
            let newest = same.iter().map(|placed| placed.call).max_by_key(|call| call.began);
            latest = latest.into_iter().chain(newest).max_by_key(|call| call.began);
        }
        Ok(())
    }
}
