//! How soon a pod that failed on a node is replaced there.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/daemon/daemon_controller.go` (`failedPodsBackoff`).

use std::time::Duration;

use jiff::Timestamp;
use orch_core::backoff::Backoff;
use parking_lot::Mutex;

/// The first replacement comes at once, the second after this time, each further one after twice
/// the time of the one before.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(15 * 60);
/// So often what is old is forgotten.
const COLLECT: Duration = Duration::from_secs(60);

/// A set's uid, the generation of it that was seen, and a node.
type Place = (String, i64, String);

/// The replacements of failed pods by place. A restart forgets them, as upstream's does.
pub(super) struct FailedPods(Mutex<State>);

struct State {
    backoff: Backoff<Place>,
    collected: Timestamp,
}

impl Default for FailedPods {
    fn default() -> Self {
        let collected = Timestamp::UNIX_EPOCH;
        Self(Mutex::new(State { backoff: Backoff::new(FIRST, MOST), collected }))
    }
}

impl FailedPods {
    /// How long the pod that has failed there stays; `None` if it may be replaced now, which
    /// counts as a replacement.
    pub(super) fn wait(
        &self,
        (uid, generation, node): (&str, i64, &str),
        now: Timestamp,
    ) -> Option<Duration> {
        let state = &mut *self.0.lock();
        let since = Duration::try_from(now.duration_since(state.collected)).unwrap_or_default();
        if since >= COLLECT {
            state.backoff.collect(now);
            state.collected = now;
        }
        let place = (uid.to_owned(), generation, node.to_owned());
        if let Some((_, left)) = state.backoff.remaining_since_update(&place, now) {
            return Some(left);
        }
        state.backoff.next(place, now, now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_come_later_each_time() {
        let failed = FailedPods::default();
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let wait = |second| failed.wait(("set", 1, "node"), at(second)).map(|left| left.as_secs());
        let seen = [0, 0, 1, 2, 3, 6, 7].map(wait);
        assert_eq!(seen, [None, Some(1), None, Some(1), None, Some(1), None]);
        assert_eq!(failed.wait(("set", 2, "node"), at(7)), None, "a newer generation");
        assert_eq!(failed.wait(("set", 1, "other"), at(7)), None, "another node");
    }
}
