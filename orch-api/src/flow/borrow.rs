//! Who gets the seats that others leave.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/conc_alloc.go`, and `updateBorrowingLocked` of
//! `apf_controller.go`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{Inner, level::Level};

/// How often seats are shared out anew.
const PERIOD: Duration = Duration::from_secs(10);
/// How slowly a peak of demand is forgotten.
const SMOOTHING: f64 = 0.977;
const TARGET_MIN: f64 = 0.001;

/// How many seats were wanted, over time.
pub(super) struct Demand {
    now: i64,
    peak: i64,
    since: Instant,
    changed: Instant,
    integral: f64,
    integral_of_squares: f64,
    smoothed: f64,
}

impl Demand {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            now: 0,
            peak: 0,
            since: now,
            changed: now,
            integral: 0.0,
            integral_of_squares: 0.0,
            smoothed: 0.0,
        }
    }

    #[cfg(test)]
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    pub(super) fn add(&mut self, seats: i64) {
        self.advance(Instant::now());
        self.now += seats;
        self.peak = self.peak.max(self.now);
    }

    fn advance(&mut self, to: Instant) {
        let (span, value) = ((to - self.changed).as_secs_f64(), self.now as f64);
        self.integral += span * value;
        self.integral_of_squares += span * value * value;
        self.changed = to;
    }

    /// The peak since the last call, and the smoothed envelope: mean and standard deviation, of
    /// which peaks are taken at once and forgotten slowly.
    fn take(&mut self) -> (f64, f64) {
        let now = Instant::now();
        self.advance(now);
        let span = (now - self.since).as_secs_f64().max(1e-9);
        let mean = self.integral / span;
        let variance = (self.integral_of_squares / span - mean * mean).max(0.0);
        let envelope = mean + variance.sqrt();
        self.smoothed = if envelope > self.smoothed {
            envelope
        } else {
            SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope
        };
        let peak = self.peak as f64;
        (self.integral, self.integral_of_squares) = (0.0, 0.0);
        (self.since, self.peak) = (now, self.now);
        (peak, self.smoothed)
    }
}

/// One who gets a share.
#[derive(Clone, Copy, Debug)]
struct Claim {
    target: f64,
    least: f64,
    most: f64,
}

impl Claim {
    fn at(&self, proportion: f64) -> f64 {
        (proportion * self.target.max(TARGET_MIN)).clamp(self.least, self.most)
    }
}

/// Shares out a sum in proportion to the targets, within everybody's bounds.
fn allocate(sum: f64, claims: &[Claim]) -> Vec<f64> {
    // What everybody gets rises with the proportion, so the one that fits is found by halving.
    let total = |proportion: f64| claims.iter().map(|claim| claim.at(proportion)).sum::<f64>();
    let largest = claims.iter().map(|claim| claim.most / claim.target.max(TARGET_MIN));
    let (mut low, mut high) = (0.0, largest.fold(0.0, f64::max));
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if total(middle) < sum {
            low = middle;
        } else {
            high = middle;
        }
    }
    claims.iter().map(|claim| claim.at(high)).collect()
}

/// Shares the seats out, for as long as somebody has the flow control.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(clock) = inner.upgrade().map(|inner| inner.environment.clock.clone()) else {
            return;
        };
        clock.sleep(PERIOD).await;
        let Some(inner) = inner.upgrade() else { return };
        let levels: Vec<Arc<Level>> = inner.state.read().levels.values().cloned().collect();
        share_out(&levels);
    }
}

fn share_out(levels: &[Arc<Level>]) {
    let (mut claims, mut limited) = (Vec::new(), Vec::new());
    let (mut seats, mut least_sum, mut wanted_sum) = (0.0, 0.0, 0.0);
    for level in levels {
        level.with(|state| {
            let (peak, smoothed) = state.demand.take();
            seats += state.nominal;
            if state.spec.exempt {
                // What is exempt takes what it needs; the others share the rest.
                let needs = state.least.max(peak);
                state.limit = needs as u32;
                seats -= needs;
                return;
            }
            let least = state.least.max(state.nominal.min(peak));
            claims.push(Claim { target: least.max(smoothed), least, most: state.most });
            limited.push((level, state.least));
            least_sum += state.least;
            wanted_sum += least;
        });
    }
    let shares: Vec<f64> = if seats <= least_sum {
        limited.iter().map(|(_, least)| *least).collect()
    } else if seats <= wanted_sum {
        let part = (seats - least_sum) / (wanted_sum - least_sum);
        let claims = claims.iter().zip(&limited);
        claims.map(|(claim, (_, least))| least + (claim.least - least) * part).collect()
    } else {
        allocate(seats, &claims)
    };
    for ((level, _), share) in limited.into_iter().zip(shares) {
        level.with(|state| {
            state.limit = share.round() as u32;
            state.dispatch();
        });
        tracing::debug!(level = level.name(), seats = share, "seats are shared out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_to_those_who_want_it_within_their_bounds() {
        let claim = |target, least, most| Claim { target, least, most };
        let check = |sum: f64, claims: &[Claim], expected: &[f64]| {
            let rounded: Vec<f64> =
                allocate(sum, claims).iter().map(|share| share.round()).collect();
            assert_eq!(rounded, expected);
        };
        check(100.0, &[claim(10.0, 0.0, 100.0), claim(30.0, 0.0, 100.0)], &[25.0, 75.0]);
        check(100.0, &[claim(10.0, 40.0, 100.0), claim(30.0, 0.0, 100.0)], &[40.0, 60.0]);
        check(100.0, &[claim(10.0, 0.0, 100.0), claim(30.0, 0.0, 50.0)], &[50.0, 50.0]);
        check(10.0, &[claim(0.0, 0.0, 10.0), claim(0.0, 0.0, 10.0)], &[5.0, 5.0]);
    }
}
