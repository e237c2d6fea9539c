//! A range of cluster IPs.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use orch_core::random::Random;

/// Addresses of one range.
///
/// The lower end of the range is a band for addresses that people choose: what is given out at
/// random comes from above it until nothing is left there.
///
/// Source: `pkg/registry/core/service/ipallocator/ipallocator.go`, KEP-3070.
#[derive(Debug)]
pub struct AddressRange {
    range: IpNet,
    base: u128,
    /// How many addresses there are, counted from `base + 1`.
    size: u128,
}

/// Ranges of version 6 give out only so many addresses.
const SIZE_MAX: u128 = 1 << 16;

impl AddressRange {
    /// All of a range can be given out, but for its first address and, with version 4, its last.
    pub fn new(range: IpNet) -> Self {
        let (first, last) = (number(range.network()), number(range.broadcast()));
        let unusable = if range.addr().is_ipv4() { 2 } else { 1 };
        let size = (last - first + 1).saturating_sub(unusable).min(SIZE_MAX);
        Self { range, base: first, size }
    }

    /// The range.
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// Whether the range can give this address out.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.range.addr().is_ipv4()
            && number(ip).checked_sub(self.base + 1).is_some_and(|offset| offset < self.size)
    }

    /// An address that is not among those that are taken; `None` if the range is full.
    pub fn free(&self, random: &dyn Random, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let band = (self.size / 16).clamp(16, 256);
        let band = if band >= self.size { 0 } else { band };
        self.free_between(random, taken, band, self.size)
            .or_else(|| self.free_between(random, taken, 0, band))
    }

    /// The first free one behind a random start, around the end.
    fn free_between(
        &self,
        random: &dyn Random,
        taken: &BTreeSet<IpAddr>,
        from: u128,
        to: u128,
    ) -> Option<IpAddr> {
        let count = u64::try_from(to.checked_sub(from).filter(|n| *n > 0)?).ok()?;
        let start = u128::from(random.below(count));
        let count = u128::from(count);
        (0..count)
            .map(|step| self.address(self.base + 1 + from + (start + step) % count))
            .find(|candidate| !taken.contains(candidate))
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.range.addr().is_ipv4() {
            IpAddr::V4(u32::try_from(number).unwrap_or_default().into())
        } else {
            IpAddr::V6(number.into())
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;

    #[test]
    fn the_lower_band_is_given_out_last_and_every_address_once() {
        let random = SeededRandom::new(1);
        let range = AddressRange::new("10.0.0.0/24".parse().unwrap());
        let (mut given, mut taken) = (Vec::new(), BTreeSet::new());
        while let Some(ip) = range.free(&random, &taken) {
            assert!(range.contains(ip) && taken.insert(ip), "{ip}");
            given.push(number(ip) - range.base);
        }
        assert_eq!(given.len(), 254);
        assert!(given[..238].iter().all(|offset| *offset > 16));
        assert!(given[238..].iter().all(|offset| *offset <= 16));
        taken.remove(&"10.0.0.9".parse().unwrap());
        assert_eq!(range.free(&random, &taken), "10.0.0.9".parse().ok());
    }

    #[test]
    fn the_ends_of_a_range_are_not_given_out() {
        let check = |range: &str, ip: &str, inside: bool| {
            let range = AddressRange::new(range.parse().unwrap());
            assert_eq!(range.contains(ip.parse().unwrap()), inside, "{ip}");
        };
        check("10.0.0.0/24", "10.0.0.0", false);
        check("10.0.0.0/24", "10.0.0.1", true);
        check("10.0.0.0/24", "10.0.0.255", false);
        check("10.0.0.0/24", "fd00::1", false);
        check("fd00::/64", "fd00::1", true);
        check("fd00::/64", "fd00::2:1", false);
        check("10.0.0.0/30", "10.0.0.2", true);
    }
}
