//! A range of node ports.

use std::{collections::BTreeSet, ops::RangeInclusive};

use orch_core::random::Random;

/// Node ports, and which of them are taken. The lower end is a band for ports that people choose.
///
/// Source: `pkg/registry/core/service/portallocator/allocator.go`, KEP-3668.
#[derive(Debug)]
pub struct PortRange {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
}

impl PortRange {
    /// All of a range is free.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, taken: BTreeSet::new() }
    }

    /// The range as upstream's messages have it.
    pub fn text(&self) -> String {
        format!("{}-{}", self.range.start(), self.range.end())
    }

    /// Whether the range has this port.
    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// Takes a port; `false` if it was taken.
    pub fn take(&mut self, port: u16) -> bool {
        self.taken.insert(port)
    }

    /// Whether a port is taken.
    pub fn is_taken(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }

    /// A free port that is not in `besides` either, not taken yet; `None` if none is left.
    pub fn free(&self, random: &dyn Random, besides: &[u16]) -> Option<u16> {
        let size = u64::from(self.range.end().checked_sub(*self.range.start())?) + 1;
        let band = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        let between = |from: u64, to: u64| {
            let count = to.checked_sub(from).filter(|count| *count > 0)?;
            let start = random.below(count);
            (0..count)
                .filter_map(|step| u16::try_from(from + (start + step) % count).ok())
                .map(|offset| self.range.start() + offset)
                .find(|port| !self.taken.contains(port) && !besides.contains(port))
        };
        between(band, size).or_else(|| between(0, band))
    }
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;

    #[test]
    fn the_lower_band_is_given_out_last_and_every_port_once() {
        let random = SeededRandom::new(7);
        let mut range = PortRange::new(30000..=32767);
        let mut given = Vec::new();
        while let Some(port) = range.free(&random, &[]) {
            assert!(range.contains(port) && range.take(port), "{port}");
            given.push(port);
        }
        assert_eq!(given.len(), 2768);
        assert!(given[..2768 - 86].iter().all(|port| *port >= 30086));
    }
}
