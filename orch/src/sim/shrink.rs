//! Makes a plan of faults that breaks something smaller, for as long as it still breaks it.

use std::time::Duration;

use orch_core::testing::FaultRates;

use super::faults::{FaultPlan, StoreFaults, Trouble};

/// Lengths below this one are short enough.
const SHORT: Duration = Duration::from_secs(1);

/// A smaller plan that still fails, found in at most so many tries, and how many it took. What
/// cannot be left out one by one is needed; lengths and rates may be up to twice of what is needed.
pub(super) fn shrink(
    plan: FaultPlan,
    tries: u32,
    fails: impl FnMut(&FaultPlan) -> bool,
) -> (FaultPlan, u32) {
    let mut shrinking = Shrinking { best: plan, left: tries, fails };
    shrinking.attempt(|plan| plan.disturbances.clear());
    shrinking.attempt(|plan| {
        *plan = FaultPlan { disturbances: plan.disturbances.clone(), ..FaultPlan::none() };
    });
    loop {
        let before = shrinking.best.clone();
        shrinking.leave_out_disturbances();
        for change in LEFT_OUT {
            shrinking.attempt(change);
        }
        shrinking.leave_out_skews();
        shrinking.shorten();
        if shrinking.best == before || shrinking.left == 0 {
            return (shrinking.best, tries - shrinking.left);
        }
    }
}

/// What can be left out as a whole.
const LEFT_OUT: [fn(&mut FaultPlan); 12] = [
    |plan| plan.rates.conflict_permille = 0,
    |plan| plan.rates.server_error_permille = 0,
    |plan| plan.rates.transport_permille = 0,
    |plan| plan.rates.timeout_permille = 0,
    |plan| plan.rates.watch_drop_permille = 0,
    |plan| plan.rates.expired_permille = 0,
    |plan| plan.latency_max = Duration::ZERO,
    |plan| plan.lag_max = Duration::ZERO,
    |plan| plan.stale_list_permille = 0,
    |plan| (plan.stall_permille, plan.stall_max) = (0, Duration::ZERO),
    |plan| plan.store.compacts_every = None,
    |plan| {
        plan.store = StoreFaults { compacts_every: plan.store.compacts_every, ..Default::default() }
    },
];

/// What can be halved.
const HALVED: [fn(&mut FaultPlan); 5] = [
    |plan| plan.latency_max = halved(plan.latency_max, Duration::from_millis(1)),
    |plan| plan.lag_max = halved(plan.lag_max, Duration::from_millis(1)),
    |plan| plan.stall_max = halved(plan.stall_max, SHORT),
    |plan| {
        let FaultRates {
            conflict_permille,
            server_error_permille,
            transport_permille,
            timeout_permille,
            watch_drop_permille,
            expired_permille,
        } = &mut plan.rates;
        for rate in [
            conflict_permille,
            server_error_permille,
            transport_permille,
            timeout_permille,
            watch_drop_permille,
            expired_permille,
        ] {
            *rate = rate.div_ceil(2);
        }
    },
    |plan| plan.skews.iter_mut().for_each(|skew| skew.ahead_ms /= 2),
];

fn halved(length: Duration, least: Duration) -> Duration {
    // Whole milliseconds read better than what halving a drawn length leaves.
    let half = Duration::from_millis(u64::try_from(length.as_millis() / 2).unwrap_or(u64::MAX));
    if length <= least { length } else { half.max(least) }
}

struct Shrinking<F> {
    best: FaultPlan,
    left: u32,
    fails: F,
}

impl<F: FnMut(&FaultPlan) -> bool> Shrinking<F> {
    /// Keeps a change if the plan still fails with it.
    fn attempt(&mut self, change: impl FnOnce(&mut FaultPlan)) -> bool {
        let mut smaller = self.best.clone();
        change(&mut smaller);
        if smaller == self.best || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.best = smaller;
        }
        fails
    }

    /// Leaves out halves, then quarters and so on, as delta debugging does.
    fn leave_out_disturbances(&mut self) {
        let mut size = self.best.disturbances.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.disturbances.len() {
                let end = (at + size).min(self.best.disturbances.len());
                if !self.attempt(|plan| drop(plan.disturbances.drain(at..end))) {
                    at = end;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn leave_out_skews(&mut self) {
        if self.attempt(|plan| plan.skews.clear()) {
            return;
        }
        let mut at = 0;
        while at < self.best.skews.len() {
            if !self.attempt(|plan| drop(plan.skews.remove(at))) {
                at += 1;
            }
        }
    }

    fn shorten(&mut self) {
        for change in HALVED {
            while self.attempt(change) {}
        }
        for at in 0..self.best.disturbances.len() {
            while self.attempt(|plan| plan.disturbances[at].trouble.shorten()) {}
        }
    }
}

impl Trouble {
    fn shorten(&mut self) {
        match self {
            Self::Crash { restart: length, .. }
            | Self::CutOff { length }
            | Self::PowerLoss { restart: length }
            | Self::RuntimeFails { length } => *length = halved(*length, SHORT),
        }
    }
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;
    use crate::sim::faults::{Component, Scene};

    fn some_plan(seed: u64) -> FaultPlan {
        let components = vec![Component::Workloads, Component::Scheduler, Component::Node(1)];
        let scene = Scene { components, length: Duration::from_secs(600) };
        FaultPlan::drawn(&SeededRandom::new(seed), &scene)
    }

    #[test]
    fn only_what_is_needed_is_left() {
        for seed in 0..100 {
            let cuts = |plan: &FaultPlan| {
                let cuts = |trouble: &Trouble| match trouble {
                    Trouble::CutOff { length } => *length >= Duration::from_secs(7),
                    _ => false,
                };
                plan.disturbances.iter().any(|disturbance| cuts(&disturbance.trouble))
            };
            let plan = some_plan(seed);
            if !cuts(&plan) {
                continue;
            }
            let (small, tries) = shrink(plan, 1000, |plan| cuts(plan));
            assert_eq!(small.disturbances.len(), 1, "{small:?}");
            assert!(tries < 100, "{tries} tries");
            let only = FaultPlan { disturbances: small.disturbances.clone(), ..FaultPlan::none() };
            assert_eq!(small, only);
            let Trouble::CutOff { length } = small.disturbances[0].trouble else { panic!() };
            assert!(length < Duration::from_secs(14), "{length:?}");
        }
    }

    #[test]
    fn what_is_needed_together_is_kept() {
        let needs = |plan: &FaultPlan| {
            plan.rates.conflict_permille > 0 && plan.latency_max > Duration::from_millis(5)
        };
        let plan = (0..).map(some_plan).find(needs).expect("some seed has both");
        let (small, _) = shrink(plan, 1000, needs);
        let expected = FaultPlan {
            rates: FaultRates { conflict_permille: 1, ..FaultRates::default() },
            latency_max: small.latency_max,
            ..FaultPlan::none()
        };
        assert_eq!(small, expected);
        assert!(small.latency_max <= Duration::from_millis(10), "{small:?}");
    }

    #[test]
    fn tries_are_limited() {
        let mut asked = 0;
        let plan = some_plan(1);
        let (_, tries) = shrink(plan, 5, |_| {
            asked += 1;
            true
        });
        assert!(tries <= 5 && asked == tries);
    }
}
