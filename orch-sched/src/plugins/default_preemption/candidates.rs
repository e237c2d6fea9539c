//! Of several nodes on which room could be made, the one where it hurts least.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;

use crate::pod_info::PodInfo;

/// A node, and what would have to go from it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) node: Arc<str>,
    /// The most important first; at least one.
    pub(super) victims: Vec<Arc<PodInfo>>,
    /// How many of the victims a budget would have protected.
    pub(super) violations: usize,
    /// Since when the oldest of the most important victims has been running.
    pub(super) started: Timestamp,
}

impl Candidate {
    /// Less is better: budgets kept, the least important victims, the fewest, the youngest.
    fn harm(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let highest = self.victims.first().map_or(i32::MIN, |victim| victim.priority());
        // Priorities count from zero, so that few pods of negative priority do not seem worse than
        // many.
        let lift = i64::from(i32::MAX) + 1;
        let sum = self.victims.iter().map(|victim| i64::from(victim.priority()) + lift).sum();
        (self.violations, highest, sum, self.victims.len(), Reverse(self.started))
    }
}

/// The first of the best.
pub(super) fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(Candidate::harm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Violations, the victims' priorities, and the start.
    fn candidate((at, (violations, priorities, started)): (usize, Harm<'_>)) -> Candidate {
        let victim = |priority: &i32| {
            let pod = json!({"metadata": {"name": "p"},
                             "spec": {"containers": [], "priority": priority}});
            Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
        };
        Candidate {
            node: at.to_string().into(),
            victims: priorities.iter().map(victim).collect(),
            violations,
            started: Timestamp::from_second(started).unwrap(),
        }
    }

    type Harm<'a> = (usize, &'a [i32], i64);

    #[test]
    fn each_criterion_decides_if_those_before_it_do_not() {
        let check = |candidates: &[Harm<'_>], expected: &str| {
            let found = best(candidates.iter().copied().enumerate().map(candidate).collect());
            assert_eq!(&*found.unwrap().node, expected, "{candidates:?}");
        };
        check(&[(1, &[0], 9), (0, &[50, 50, 50], 1)], "1");
        check(&[(0, &[10], 9), (0, &[5, 5, 5], 1)], "1");
        check(&[(0, &[10, 9], 9), (0, &[10, 8], 1)], "1");
        check(&[(0, &[-10, -10], 9), (0, &[-10], 1)], "1");
        check(&[(0, &[10], 1), (0, &[10], 9), (0, &[10], 5)], "1");
        check(&[(0, &[10], 5), (0, &[10], 5)], "0");
        assert!(best(Vec::new()).is_none());
    }
}
