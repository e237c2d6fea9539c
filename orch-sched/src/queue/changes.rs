//! What happened to the cluster while pods were in flight.

use std::collections::{BTreeMap, VecDeque};

use crate::event::ClusterChange;

/// Changes that are kept for pods whose cycle runs. Who missed more is tried again without being
/// asked whether they help.
const CHANGES_MAX: usize = 1000;

/// Where somebody began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since(u64);

/// The changes since the first of those who listen began, oldest first. A change is kept once,
/// however many listen.
#[derive(Default)]
pub(super) struct Changes {
    kept: VecDeque<ClusterChange>,
    /// How many are no longer kept.
    forgotten: u64,
    /// How many began at each place.
    listeners: BTreeMap<Since, usize>,
}

impl Changes {
    /// Somebody wants to know what happens from now on.
    pub(super) fn listen(&mut self) -> Since {
        let now = Since(self.forgotten + self.kept.len() as u64);
        *self.listeners.entry(now).or_default() += 1;
        now
    }

    pub(super) fn push(&mut self, change: &ClusterChange) {
        if self.listeners.is_empty() {
            return;
        }
        self.kept.push_back(change.clone());
        if self.kept.len() > CHANGES_MAX {
            self.kept.pop_front();
            self.forgotten += 1;
        }
    }

    /// What happened since then; `None` if that is more than is kept.
    pub(super) fn since(&self, since: Since) -> Option<impl Iterator<Item = &ClusterChange>> {
        let missed = since.0.checked_sub(self.forgotten)?;
        Some(self.kept.iter().skip(missed as usize))
    }

    /// Somebody who began then listens no more.
    pub(super) fn leave(&mut self, since: Since) {
        if let Some(count) = self.listeners.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.listeners.remove(&since);
            }
        }
        let newest = self.forgotten + self.kept.len() as u64;
        let needed = self.listeners.first_key_value().map_or(newest, |(since, _)| since.0);
        let dropped = needed.saturating_sub(self.forgotten) as usize;
        self.kept.drain(..dropped);
        self.forgotten += dropped as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Actions, EventResource};

    #[test]
    fn a_change_is_kept_as_long_as_somebody_may_ask() {
        let mut changes = Changes::default();
        let change = ClusterChange::of(EventResource::Node, Actions::ADD);
        let count = |changes: &Changes, since| changes.since(since).map(Iterator::count);
        changes.push(&change);
        assert_eq!(changes.kept.len(), 0, "nobody listens");
        let first = changes.listen();
        changes.push(&change);
        let second = changes.listen();
        changes.push(&change);
        assert_eq!((count(&changes, first), count(&changes, second)), (Some(2), Some(1)));
        changes.leave(first);
        assert_eq!((changes.kept.len(), count(&changes, second)), (1, Some(1)));
        (0..CHANGES_MAX).for_each(|_| changes.push(&change));
        assert_eq!(count(&changes, second), None);
        changes.leave(second);
        assert_eq!(changes.kept.len(), 0);
        let third = changes.listen();
        assert_eq!(count(&changes, third), Some(0));
    }
}
