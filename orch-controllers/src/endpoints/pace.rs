//! How soon a service is looked at again.
//!
//! A look costs as much as the service has endpoints, and what it writes is written whole. Of a service
//! with many that change all the time, changes are taken together: the first at once, the others
//! after a moment that grows with the service.
//!
//! `Differs:` upstream has a fixed period for all services (`--endpointslice-updates-batch-period`),
//! which is zero unless told otherwise.

use std::{collections::HashMap, time::Duration};

use orch_core::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For each endpoint of the service: 5,000 are looked at four times a second.
const FOR_EACH: Duration = Duration::from_micros(50);
/// Services with fewer endpoints are looked at whenever something changes.
const MANY: usize = 200;

/// When services with many endpoints may be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<HashMap<Key, Instant>>);

impl Pace {
    /// How long to wait before a look at a service, if at all.
    pub(crate) fn wait(&self, service: &Key) -> Option<Duration> {
        let mut next = self.0.lock();
        let left = next.get(service)?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next.remove(service);
        }
        Some(left).filter(|left| !left.is_zero())
    }

    /// A service with so many endpoints has been looked at, and written.
    pub(crate) fn looked(&self, service: &Key, endpoints: usize) {
        if endpoints >= MANY {
            let count = u32::try_from(endpoints).unwrap_or(u32::MAX);
            let next = Instant::now() + FOR_EACH.saturating_mul(count);
            self.0.lock().insert(service.clone(), next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_services_wait_a_moment_and_small_ones_do_not() {
        let (pace, service) = (Pace::default(), Key::new("a", "b"));
        assert_eq!(pace.wait(&service), None);
        pace.looked(&service, MANY - 1);
        assert_eq!(pace.wait(&service), None);
        pace.looked(&service, 5000);
        assert_eq!(pace.wait(&service), Some(Duration::from_millis(250)));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(pace.wait(&service), Some(Duration::from_millis(50)));
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(pace.wait(&service), None);
        assert!(pace.0.lock().is_empty());
    }
}
