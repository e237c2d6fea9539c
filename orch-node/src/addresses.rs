//! Addresses for pods, of runtimes that assign none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use parking_lot::Mutex;

/// There is no free address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// All are taken.
    #[error("no free pod address in {0}")]
    Exhausted(String),
    /// Not a range of IPv4 addresses with room for at least one pod.
    #[error("{0:?} is no IPv4 range such as 127.128.0.0/16 with room for pods")]
    InvalidRange(String),
}

/// Gives every pod an address of its own.
///
/// `allocate` is idempotent per pod; `adopt` notes an address that a running pod has already;
/// `release` frees it and succeeds for a pod that has none. None of them blocks. Object-safe;
/// several agents may share one.
pub trait PodAddresses: Send + Sync + fmt::Debug + 'static {
    /// The pod's address, newly taken if it has none.
    ///
    /// # Errors
    /// [`AddressError::Exhausted`].
    fn allocate(&self, pod_uid: &str) -> Result<IpAddr, AddressError>;

    /// Notes that a pod has an address.
    fn adopt(&self, pod_uid: &str, address: IpAddr);

    /// Frees a pod's address.
    fn release(&self, pod_uid: &str);
}

#[derive(Debug, Default)]
struct Taken {
    by_pod: BTreeMap<String, Ipv4Addr>,
    addresses: BTreeSet<Ipv4Addr>,
    next: u32,
}

/// Addresses of an IPv4 range, in turn, so that a freed one is not reused soon. Neither the first
/// nor the last address of the range is given out.
#[derive(Debug)]
pub struct AddressRange {
    text: String,
    first: u32,
    count: u32,
    taken: Mutex<Taken>,
}

impl AddressRange {
    /// A range in CIDR notation, for example `127.128.0.0/16`: loopback addresses need no set-up
    /// on Linux.
    ///
    /// # Errors
    /// [`AddressError::InvalidRange`].
    pub fn new(cidr: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::InvalidRange(cidr.to_owned());
        let (base, length) = cidr.split_once('/').ok_or_else(invalid)?;
        let base: Ipv4Addr = base.parse().map_err(|_| invalid())?;
        let length: u32 =
            length.parse().ok().filter(|l| (1..=30).contains(l)).ok_or_else(invalid)?;
        let size = 1u32 << (32 - length);
        let first = (u32::from(base) & !(size - 1)) + 1;
        Ok(Self { text: cidr.to_owned(), first, count: size - 2, taken: Mutex::default() })
    }
}

impl PodAddresses for AddressRange {
    fn allocate(&self, pod_uid: &str) -> Result<IpAddr, AddressError> {
        let mut taken = self.taken.lock();
        if let Some(address) = taken.by_pod.get(pod_uid) {
            return Ok((*address).into());
        }
        if taken.addresses.len() >= self.count as usize {
            return Err(AddressError::Exhausted(self.text.clone()));
        }
        loop {
            let address = Ipv4Addr::from(self.first + taken.next % self.count);
            taken.next = (taken.next + 1) % self.count;
            if taken.addresses.insert(address) {
                taken.by_pod.insert(pod_uid.to_owned(), address);
                return Ok(address.into());
            }
        }
    }

    fn adopt(&self, pod_uid: &str, address: IpAddr) {
        let IpAddr::V4(address) = address else { return };
        let mut taken = self.taken.lock();
        if taken.addresses.insert(address) {
            taken.by_pod.insert(pod_uid.to_owned(), address);
        }
    }

    fn release(&self, pod_uid: &str) {
        let mut taken = self.taken.lock();
        if let Some(address) = taken.by_pod.remove(pod_uid) {
            taken.addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_come_back() {
        let range = AddressRange::new("127.128.0.0/30").unwrap();
        let a = range.allocate("a").unwrap();
        assert_eq!(a.to_string(), "127.128.0.1");
        assert_eq!(range.allocate("a").unwrap(), a);
        let b = range.allocate("b").unwrap();
        assert_eq!(b.to_string(), "127.128.0.2");
        assert!(range.allocate("c").is_err());
        range.release("a");
        assert_eq!(range.allocate("c").unwrap(), a);
        for bad in ["x", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "fd00::/64"] {
            assert!(AddressRange::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn adopted_addresses_are_not_given_out() {
        let range = AddressRange::new("10.0.0.0/29").unwrap();
        range.adopt("old", "10.0.0.1".parse().unwrap());
        assert_eq!(range.allocate("new").unwrap().to_string(), "10.0.0.2");
        assert_eq!(range.allocate("old").unwrap().to_string(), "10.0.0.1");
    }
}
