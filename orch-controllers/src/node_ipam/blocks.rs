//! A range, cut into blocks of one size.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::InvalidNodeIpam;

/// How much longer a node's prefix may be than the range's, in IPv6.
const DIFFERENCE_MAX: u8 = 16;

/// Which blocks of a range are taken. They are given out one after the other, and what came back
/// only after all others.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    range: IpNet,
    mask_size: u8,
    count: u64,
    next: u64,
    taken: BTreeSet<u64>,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

impl Blocks {
    pub(super) fn new(range: IpNet, mask_size: u8) -> Result<Self, InvalidNodeIpam> {
        let range = range.trunc();
        if mask_size < range.prefix_len() || mask_size > range.max_prefix_len() {
            return Err(InvalidNodeIpam::MaskSize { range, mask_size });
        }
        let difference = mask_size - range.prefix_len();
        if matches!(range, IpNet::V6(_)) && difference > DIFFERENCE_MAX {
            return Err(InvalidNodeIpam::TooMany(range));
        }
        let count = 1 << difference;
        Ok(Self { range, mask_size, count, next: 0, taken: BTreeSet::new() })
    }

    fn shift(&self) -> u32 {
        u32::from(self.range.max_prefix_len() - self.mask_size)
    }

    /// The blocks that a range covers, the first and the last; `None` if it lies outside.
    fn covered(&self, other: &IpNet) -> Option<(u64, u64)> {
        if other.contains(&self.range) {
            return Some((0, self.count - 1));
        }
        if !self.range.contains(other) {
            return None;
        }
        let at = |ip: IpAddr| {
            let offset = number(ip) - number(self.range.network());
            u64::try_from(offset.checked_shr(self.shift()).unwrap_or_default()).ok()
        };
        Some((at(other.network())?, at(other.broadcast())?))
    }

    /// Takes what a node has; whether it lies in the range. Taking it again is no harm.
    pub(super) fn occupy(&mut self, cidr: &IpNet) -> bool {
        let Some((first, last)) = self.covered(cidr) else { return false };
        self.taken.extend(first..=last);
        true
    }

    /// Nobody gets addresses of this range, where the two overlap.
    pub(super) fn reserve(&mut self, other: &IpNet) {
        self.occupy(other);
    }

    pub(super) fn release(&mut self, cidr: &IpNet) {
        if let Some((first, last)) = self.covered(cidr) {
            (first..=last).for_each(|block| {
                self.taken.remove(&block);
            });
        }
    }

    /// The next free block, `None` if there is none.
    pub(super) fn take(&mut self) -> Option<IpNet> {
        let mut free = (self.next..self.count).chain(0..self.next);
        let block = free.find(|block| !self.taken.contains(block))?;
        self.taken.insert(block);
        self.next = (block + 1) % self.count;
        let first = number(self.range.network()) + (u128::from(block) << self.shift());
        let ip = match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(first).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(first)),
        };
        IpNet::new(ip, self.mask_size).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_given_out_in_a_circle() {
        let mut blocks = Blocks::new(net("10.244.0.0/22"), 24).unwrap();
        blocks.reserve(&net("10.244.1.128/25"));
        assert_eq!(blocks.take(), Some(net("10.244.0.0/24")));
        assert_eq!(blocks.take(), Some(net("10.244.2.0/24")));
        blocks.release(&net("10.244.0.0/24"));
        assert_eq!(blocks.take(), Some(net("10.244.3.0/24")));
        assert_eq!(blocks.take(), Some(net("10.244.0.0/24")));
        assert_eq!(blocks.take(), None);
        assert!(!blocks.occupy(&net("10.0.0.0/24")));
    }

    #[test]
    fn ipv6_and_whole_ranges_work_too() {
        let mut blocks = Blocks::new(net("fd00:1::/63"), 64).unwrap();
        assert_eq!(blocks.take(), Some(net("fd00:1::/64")));
        assert_eq!(blocks.take(), Some(net("fd00:1:0:1::/64")));
        assert_eq!(blocks.take(), None);
        let mut all = Blocks::new(net("10.0.0.0/24"), 24).unwrap();
        all.reserve(&net("10.0.0.0/8"));
        assert_eq!(all.take(), None);
    }
}
