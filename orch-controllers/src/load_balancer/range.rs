//! Ranges of addresses, and what of them is free.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// Addresses in a row, all of one family.
///
/// Read from `10.0.0.0/24` (without the first and the last one, which are the network's own),
/// `10.0.0.5-10.0.0.9` (both included), or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRange {
    first: IpAddr,
    last: IpAddr,
}

/// A text that is no [`PoolRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no range of addresses, which is written 10.0.0.0/24, 10.0.0.5-10.0.0.9 or 10.0.0.7"
)]
pub struct InvalidRange(pub String);

impl PoolRange {
    /// The addresses from `first` to `last`; `None` if they are not of one family and in order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    fn of_network(network: IpNet) -> Self {
        let (first, last) = (network.network(), network.broadcast());
        let all = Self { first, last };
        let few = network.max_prefix_len() - network.prefix_len() < 2;
        if few {
            return all;
        }
        // IPv6 has no broadcast address; the first is every router's.
        let is_v4 = first.is_ipv4();
        let last = if is_v4 { number(last) - 1 } else { number(last) };
        Self { first: address(number(first) + 1, is_v4), last: address(last, is_v4) }
    }

    /// Whether the address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && self.first <= ip && ip <= self.last
    }

    pub(super) fn is_v4(&self) -> bool {
        self.first.is_ipv4()
    }
}

impl fmt::Display for PoolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PoolRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::of_network(network));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok(), last.trim().parse().ok());
        first.zip(last).and_then(|(first, last)| Self::new(first, last)).ok_or_else(invalid)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_v4 => Ipv4Addr::from(number).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

/// What of a range was never given out, and what came back. Taking one costs logarithmic time.
#[derive(Debug)]
pub(super) struct Free {
    pub(super) range: PoolRange,
    /// The lowest that was never given out.
    next: Option<u128>,
    returned: BTreeSet<u128>,
}

impl Free {
    pub(super) fn new(range: PoolRange) -> Self {
        Self { range, next: Some(number(range.first)), returned: BTreeSet::new() }
    }

    /// The lowest free address for which `is_held` does not hold.
    pub(super) fn take(&mut self, is_held: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let is_v4 = self.range.is_v4();
        while let Some(returned) = self.returned.pop_first() {
            let ip = address(returned, is_v4);
            if !is_held(ip) {
                return Some(ip);
            }
        }
        let last = number(self.range.last);
        while let Some(next) = self.next.filter(|next| *next <= last) {
            self.next = next.checked_add(1);
            let ip = address(next, is_v4);
            if !is_held(ip) {
                return Some(ip);
            }
        }
        None
    }

    /// An address of the range is free again.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let ip = number(ip);
        if self.next.is_none_or(|next| ip < next) {
            self.returned.insert(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<PoolRange>().ok().map(|range| range.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("10.0.0.0/30", Some("10.0.0.1-10.0.0.2"));
        check("10.0.0.8/31", Some("10.0.0.8-10.0.0.9"));
        check("10.0.0.8/32", Some("10.0.0.8-10.0.0.8"));
        check("fd00::/126", Some("fd00::1-fd00::3"));
        check("10.0.0.5 - 10.0.0.9", Some("10.0.0.5-10.0.0.9"));
        check("10.0.0.7", Some("10.0.0.7-10.0.0.7"));
        check("10.0.0.9-10.0.0.5", None);
        check("10.0.0.9-fd00::1", None);
        check("10.0.0.0/40", None);
        check("", None);
    }

    #[test]
    fn the_lowest_free_address_is_taken() {
        let mut free = Free::new("10.0.0.1-10.0.0.4".parse().unwrap());
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        assert_eq!(free.take(|held| held == ip(2)), Some(ip(1)));
        assert_eq!(free.take(|held| held == ip(2)), Some(ip(3)));
        // It was held by somebody before it was reached, and comes back.
        free.give_back(ip(2));
        free.give_back(ip(1));
        let rest: Vec<_> = std::iter::from_fn(|| free.take(|_| false)).collect();
        assert_eq!(rest, [ip(1), ip(2), ip(4)]);
        let mut all = Free::new("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127".parse().unwrap());
        assert_eq!(std::iter::from_fn(|| all.take(|_| false)).count(), 2);
    }
}
