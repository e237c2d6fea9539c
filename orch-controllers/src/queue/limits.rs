//! Back-off per item and an overall rate.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How fast failed items come back.
///
/// Source: `k8s.io/client-go/util/workqueue`, `DefaultTypedControllerRateLimiter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimits {
    /// The delay after an item's first failure; doubled with each further one. Default 5 ms.
    pub base_delay: Duration,
    /// The longest delay of an item. Default 1000 s.
    pub max_delay: Duration,
    /// How many items per second come back in all. Default 10; `None` is without limit.
    pub per_second: Option<f64>,
    /// How many may come back at once before that rate applies. Default 100.
    pub burst: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            base_delay: Duration::from_millis(5),
            max_delay: Duration::from_secs(1000),
            per_second: Some(10.0),
            burst: 100,
        }
    }
}

pub(super) struct Limiter<T> {
    limits: RateLimits,
    failures: HashMap<T, u32>,
    /// Tokens at `filled_at`; negative while reservations are ahead of the rate.
    tokens: f64,
    filled_at: Option<Instant>,
}

impl<T: Clone + Eq + Hash> Limiter<T> {
    pub(super) fn new(limits: RateLimits) -> Self {
        let tokens = f64::from(limits.burst);
        Self { limits, failures: HashMap::new(), tokens, filled_at: None }
    }

    /// The delay of the next retry of an item, which counts as used.
    pub(super) fn delay(&mut self, item: &T, now: Instant) -> Duration {
        let failures = self.failures.entry(item.clone()).or_insert(0);
        let doubled = self.limits.base_delay.saturating_mul(2u32.saturating_pow(*failures));
        *failures = failures.saturating_add(1);
        doubled.min(self.limits.max_delay).max(self.reserve(now))
    }

    fn reserve(&mut self, now: Instant) -> Duration {
        let Some(rate) = self.limits.per_second.filter(|rate| *rate > 0.0) else {
            return Duration::ZERO;
        };
        if let Some(before) = self.filled_at.replace(now) {
            let filled = now.saturating_duration_since(before).as_secs_f64() * rate;
            self.tokens = (self.tokens + filled).min(f64::from(self.limits.burst));
        }
        self.tokens -= 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or(self.limits.max_delay)
    }

    pub(super) fn forget(&mut self, item: &T) {
        self.failures.remove(item);
    }

    pub(super) fn retries(&self, item: &T) -> u32 {
        self.failures.get(item).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_double_to_the_maximum_and_are_forgotten() {
        let mut limiter = Limiter::new(RateLimits { per_second: None, ..RateLimits::default() });
        let now = Instant::now();
        let delays: Vec<u128> = (0..4).map(|_| limiter.delay(&"a", now).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20, 40]);
        for _ in 0..60 {
            limiter.delay(&"a", now);
        }
        assert_eq!(limiter.delay(&"a", now), Duration::from_secs(1000));
        assert_eq!(limiter.delay(&"b", now).as_millis(), 5);
        limiter.forget(&"a");
        assert_eq!(limiter.delay(&"a", now).as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_limits_all_items_together() {
        let limits = RateLimits { burst: 2, per_second: Some(10.0), ..RateLimits::default() };
        let mut limiter = Limiter::new(limits);
        let now = Instant::now();
        let delays: Vec<u128> = (0..4).map(|item| limiter.delay(&item, now).as_millis()).collect();
        assert_eq!(delays, [5, 5, 100, 200]);
        let later = now + Duration::from_secs(1);
        assert_eq!(limiter.delay(&9, later).as_millis(), 5);
    }
}
