//! How good a node's utilization is.
//!
//! Source: `pkg/scheduler/framework/plugins/noderesources/least_allocated.go`, `most_allocated.go`,
//! `requested_to_capacity_ratio.go`, `pkg/scheduler/framework/plugins/helper/shape_score.go`.

use crate::{
    plugin::SCORE_MAX,
    plugins::{ScoringStrategy, ShapePoint, WeightedResource},
};

/// A point's score goes to ten.
const POINT_MAX: i64 = 10;

fn part(of: i64, whole: i64) -> i64 {
    (i128::from(of) * i128::from(SCORE_MAX) / i128::from(whole)) as i64
}

/// The value of a function that is linear between its points, and level outside.
fn on_shape(shape: &[ShapePoint], utilization: i64) -> i64 {
    let score = |point: &ShapePoint| point.score * (SCORE_MAX / POINT_MAX);
    let after = shape.iter().position(|point| utilization <= point.utilization);
    match after {
        None => shape.last().map_or(0, score),
        Some(0) => score(&shape[0]),
        Some(at) => {
            let (from, to) = (&shape[at - 1], &shape[at]);
            let rise = (score(to) - score(from)) * (utilization - from.utilization);
            score(from) + rise / (to.utilization - from.utilization)
        }
    }
}

impl ScoringStrategy {
    /// The resources that count.
    pub(super) fn resources(&self) -> &[WeightedResource] {
        match self {
            Self::LeastAllocated(resources)
            | Self::MostAllocated(resources)
            | Self::RequestedToCapacityRatio(resources, _) => resources,
        }
    }

    /// How good it is if so much of what a node has is requested; `None` does not count.
    fn of_one(&self, has: i64, used: i64) -> Option<i64> {
        match self {
            Self::LeastAllocated(_) => Some(part(has.saturating_sub(used).max(0), has)),
            Self::MostAllocated(_) => Some(part(used.min(has), has)),
            Self::RequestedToCapacityRatio(_, shape) => {
                let utilization = if used > has { SCORE_MAX } else { part(used, has) };
                Some(on_shape(shape, utilization)).filter(|score| *score > 0)
            }
        }
    }

    /// The score of a node with this usage of each resource: what it has, and what is requested.
    pub(super) fn score(&self, usage: impl Fn(&str) -> (i64, i64)) -> i64 {
        let (mut sum, mut weights) = (0i64, 0i64);
        for WeightedResource { name, weight } in self.resources() {
            let (has, used) = usage(name);
            let own = (has > 0).then(|| self.of_one(has, used)).flatten();
            if let Some(own) = own {
                sum = sum.saturating_add(own.saturating_mul(*weight));
                weights = weights.saturating_add(*weight);
            }
        }
        match self {
            _ if weights == 0 => 0,
            Self::RequestedToCapacityRatio(..) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, weight: i64) -> WeightedResource {
        WeightedResource { name: name.into(), weight }
    }

    #[test]
    fn scores_follow_their_strategy() {
        let both = || vec![resource("cpu", 3), resource("memory", 1)];
        let points = |points: &[(i64, i64)]| -> Vec<ShapePoint> {
            let point = |(utilization, score): &(i64, i64)| ShapePoint {
                utilization: *utilization,
                score: *score,
            };
            points.iter().map(point).collect()
        };
        let check = |strategy: &ScoringStrategy, cpu: (i64, i64), memory: (i64, i64), expected| {
            let usage = |name: &str| if name == "cpu" { cpu } else { memory };
            assert_eq!(strategy.score(usage), expected, "{strategy:?}");
        };
        check(&ScoringStrategy::LeastAllocated(both()), (1000, 300), (100, 50), 65);
        check(&ScoringStrategy::LeastAllocated(both()), (1000, 2000), (100, 0), 25);
        check(&ScoringStrategy::MostAllocated(both()), (1000, 300), (100, 50), 35);
        check(&ScoringStrategy::MostAllocated(both()), (1000, 2000), (0, 50), 100);
        let ratio =
            |shape: &[(i64, i64)]| ScoringStrategy::RequestedToCapacityRatio(both(), points(shape));
        check(&ratio(&[(0, 0), (100, 10)]), (1000, 300), (100, 50), 35);
        check(&ratio(&[(0, 10), (100, 0)]), (1000, 300), (100, 50), 65);
        // What scores nothing does not count at all.
        check(&ratio(&[(0, 0), (100, 10)]), (1000, 0), (100, 50), 50);
        check(&ratio(&[(0, 0), (40, 10), (100, 0)]), (100, 20), (100, 70), 50);
        check(&ratio(&[(50, 5)]), (100, 20), (100, 170), 50);
    }
}
