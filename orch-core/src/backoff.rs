//! Doubling delays per key, counted on the clock of whoever asks.
//!
//! Source: `k8s.io/client-go/util/flowcontrol/backoff.go`.

use std::{collections::HashMap, hash::Hash, time::Duration};

use jiff::Timestamp;

/// How long to wait between tries of the same thing: longer after each, up to a limit; from the
/// beginning again when nothing has failed for twice the limit.
///
/// ```
/// use std::time::Duration;
/// use jiff::Timestamp;
/// use orch_core::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
/// let now = Timestamp::from_second(1_700_000_000)?;
/// assert!(backoff.remaining_since_update(&"web", now).is_none());
/// backoff.next("web", now, now);
/// let (delay, left) = backoff.remaining_since_update(&"web", now).unwrap();
/// assert_eq!((delay.as_secs(), left.as_secs()), (10, 10));
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug)]
pub struct Backoff<K> {
    entries: HashMap<K, Entry>,
    initial: Duration,
    max: Duration,
}

#[derive(Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl<K: Hash + Eq> Backoff<K> {
    /// The first delay, and the longest one.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { entries: HashMap::new(), initial, max }
    }

    /// The delay that applies to `key` and how much of it is left, counted from `event`; `None`
    /// if it may be tried now.
    pub fn remaining(
        &self,
        key: &K,
        event: Timestamp,
        now: Timestamp,
    ) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if since(event, entry.updated) > self.max * 2 {
            return None;
        }
        let left = entry.delay.checked_sub(since(now, event))?;
        (!left.is_zero()).then_some((entry.delay, left))
    }

    /// As [`Backoff::remaining`], counted from the last failure.
    pub fn remaining_since_update(&self, key: &K, now: Timestamp) -> Option<(Duration, Duration)> {
        self.remaining(key, self.entries.get(key)?.updated, now)
    }

    /// Notes a try after a failure at `event`: the next one waits longer.
    pub fn next(&mut self, key: K, event: Timestamp, now: Timestamp) {
        let (initial, max) = (self.initial, self.max);
        let entry =
            self.entries.entry(key).or_insert(Entry { delay: Duration::ZERO, updated: now });
        let expired = since(event, entry.updated) > max * 2;
        entry.delay = if expired || entry.delay.is_zero() { initial } else { entry.delay * 2 };
        entry.delay = entry.delay.min(max);
        entry.updated = now;
    }

    /// Forgets what failed before.
    pub fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Forgets everything that would begin anew, to keep the memory bounded by what still fails.
    pub fn collect(&mut self, now: Timestamp) {
        let max = self.max;
        self.entries.retain(|_, entry| since(now, entry.updated) <= max * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(backoff.remaining(&"a", at(0), at(0)), None);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("a", at(now), at(now));
            let (delay, left) = backoff.remaining(&"a", at(now), at(now + 1)).unwrap();
            assert_eq!(delay.as_secs(), expected);
            assert_eq!(left.as_secs(), expected - 1);
            now += i64::try_from(expected).unwrap();
            assert_eq!(backoff.remaining(&"a", at(now - expected as i64), at(now)), None);
        }
        // Ten quiet minutes later it starts over.
        now += 601;
        assert_eq!(backoff.remaining(&"a", at(now), at(now)), None);
        backoff.next("a", at(now), at(now));
        assert_eq!(backoff.remaining(&"a", at(now), at(now)).unwrap().0.as_secs(), 10);
        backoff.forget(&"a");
        assert_eq!(backoff.remaining(&"a", at(now), at(now)), None);
        backoff.next("a", at(now), at(now));
        backoff.collect(at(now + 600));
        assert_eq!(backoff.entries.len(), 1);
        backoff.collect(at(now + 601));
        assert_eq!(backoff.entries.len(), 0);
    }
}
