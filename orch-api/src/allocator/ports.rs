//! A range of node ports.

use std::{collections::BTreeSet, ops::RangeInclusive};

use orch_core::random::Random;

/// The node ports of a cluster. The lower end is a band for ports that people choose.
///
/// Source: `pkg/registry/core/service/portallocator/allocator.go`, KEP-3668.
#[derive(Clone, Debug)]
pub struct PortRange {
    range: RangeInclusive<u16>,
}

impl PortRange {
    /// All of a range can be given out.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range }
    }

    /// The lowest port.
    pub fn first(&self) -> u16 {
        *self.range.start()
    }

    /// The range as upstream's messages have it.
    pub fn text(&self) -> String {
        format!("{}-{}", self.range.start(), self.range.end())
    }

    /// Whether the range has this port.
    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// A port that is neither taken nor in `besides`; `None` if none is left.
    pub fn free(&self, random: &dyn Random, taken: &BTreeSet<u16>, besides: &[u16]) -> Option<u16> {
        let size = u64::from(self.range.end().checked_sub(*self.range.start())?) + 1;
        let band = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        let between = |from: u64, to: u64| {
            let count = to.checked_sub(from).filter(|count| *count > 0)?;
            let start = random.below(count);
            (0..count)
                .filter_map(|step| u16::try_from(from + (start + step) % count).ok())
                .map(|offset| self.range.start() + offset)
                .find(|port| !taken.contains(port) && !besides.contains(port))
        };
        between(band, size).or_else(|| between(0, band))
    }
}

/// The ports that somebody may take, as a map of them says at one moment.
pub(super) struct FreePorts<'a> {
    range: &'a PortRange,
    taken: BTreeSet<u16>,
    given: Vec<u16>,
    random: &'a dyn Random,
}

impl<'a> FreePorts<'a> {
    pub(super) fn new(range: &'a PortRange, taken: BTreeSet<u16>, random: &'a dyn Random) -> Self {
        Self { range, taken, given: Vec::new(), random }
    }

    pub(super) fn range(&self) -> &PortRange {
        self.range
    }

    /// Every port that is taken now.
    pub(super) fn taken(&self) -> &BTreeSet<u16> {
        &self.taken
    }

    /// Those that were taken here.
    pub(super) fn given(&self) -> &[u16] {
        &self.given
    }

    /// Takes a port; `false` if it was taken.
    pub(super) fn take(&mut self, port: u16) -> bool {
        let free = self.taken.insert(port);
        if free {
            self.given.push(port);
        }
        free
    }

    /// Takes any port but some.
    pub(super) fn take_any(&mut self, besides: &[u16]) -> Option<u16> {
        let port = self.range.free(self.random, &self.taken, besides)?;
        self.take(port);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;

    #[test]
    fn the_lower_band_is_given_out_last_and_every_port_once() {
        let random = SeededRandom::new(7);
        let range = PortRange::new(30000..=32767);
        let mut free = FreePorts::new(&range, BTreeSet::new(), &random);
        while let Some(port) = free.take_any(&[]) {
            assert!(range.contains(port) && !free.take(port), "{port}");
        }
        let given = free.given();
        assert_eq!(given.len(), 2768);
        assert!(given[..2768 - 86].iter().all(|port| *port >= 30086));
    }
}
