//! Counters that the devices of a pool share: a device can be had while its part is left.
//!
//! Source: `structured/internal/incubating/allocator_incubating.go`, `checkAvailableCounters`.
//! Differs: a device that is given up in the search gives its part back in every case; upstream
//! forgets that where the device turned out to be tainted or to violate a constraint.

use std::collections::BTreeMap;

use orch_core::quantity::Amount;

use super::slice::Counters;

/// Counters by their set.
pub(super) type Sets = BTreeMap<String, Counters>;

/// What is left of the counters of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    sets: Sets,
    /// Whether more is taken of some counter than there is: nobody gets anything then.
    overdrawn: bool,
}

impl Left {
    /// What is left of all when so much was taken.
    pub(super) fn of<'d>(
        mut sets: Sets,
        taken: impl Iterator<Item = &'d (String, Counters)>,
    ) -> Self {
        for (set, counters) in taken {
            let Some(left) = sets.get_mut(set) else { continue };
            for (name, amount) in counters {
                if let Some(left) = left.get_mut(name) {
                    *left -= *amount;
                }
            }
        }
        let overdrawn = sets.values().flat_map(BTreeMap::values).any(|left| left.is_negative());
        Self { sets, overdrawn }
    }

    fn left(&mut self, set: &str, name: &str) -> Option<&mut Amount> {
        self.sets.get_mut(set)?.get_mut(name)
    }

    /// Takes a device's part, if it is left.
    pub(super) fn take(&mut self, part: &[(String, Counters)]) -> bool {
        if self.overdrawn {
            return false;
        }
        let mut enough = true;
        for (set, counters) in part {
            for (name, amount) in counters {
                let Some(left) = self.left(set, name) else { continue };
                *left -= *amount;
                enough &= !left.is_negative();
            }
        }
        if !enough {
            self.give_back(part);
        }
        enough
    }

    /// Gives a device's part back.
    pub(super) fn give_back(&mut self, part: &[(String, Counters)]) {
        for (set, counters) in part {
            for (name, amount) in counters {
                if let Some(left) = self.left(set, name) {
                    *left += *amount;
                }
            }
        }
    }
}
