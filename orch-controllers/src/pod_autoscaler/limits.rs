//! How far, how fast and how steadily an autoscaler moves.
//!
//! Source: `normalizeDesiredReplicas` and `normalizeDesiredReplicasWithBehaviors` of
//! `k8s.io/kubernetes/pkg/controller/podautoscaler/horizontal.go`.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec,
};
use tokio::time::Instant;

use super::usage::rounded_up;

/// For how long a lower recommendation has to stand.
///
/// Source: `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: Duration = Duration::from_secs(300);

/// What an autoscaler did and wanted lately. Lost with the process, which upstream's is too.
#[derive(Debug, Default)]
pub(super) struct History {
    recommended: Vec<(Instant, i32)>,
    /// When it scaled, and by how many.
    scaled: Vec<(Instant, i32)>,
}

/// A limit that was applied: the reason and message of a condition.
pub(super) type Applied = (&'static str, &'static str);

/// What becomes of a wish.
#[derive(Debug, PartialEq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    /// Why an older wish holds, if one does.
    pub(super) stabilized: Option<Applied>,
    /// The bound that was met, and whether it made a difference.
    pub(super) bound: (bool, Applied),
}

const WITHIN: Applied = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Applied =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Applied =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: Applied =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Applied = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const STABILIZED_DOWN: Applied = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const STABILIZED_UP: Applied = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent \
     recommendation",
);

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn window(rules: Option<&HPAScalingRules>, default: Duration) -> Duration {
    rules.and_then(|rules| rules.stabilization_window_seconds).map_or(default, seconds)
}

impl History {
    pub(super) fn note_scaling(&mut self, now: Instant, from: i32, to: i32) {
        self.scaled.push((now, to - from));
        // No policy looks back further than half an hour.
        self.scaled.retain(|(at, _)| now.duration_since(*at) <= Duration::from_secs(1800));
    }

    /// Limits a wish, and remembers it.
    pub(super) fn limit(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        now: Instant,
        current: i32,
        wanted: i32,
    ) -> Limited {
        let behavior = spec.behavior.as_ref();
        let up = behavior.and_then(|behavior| behavior.scale_up.as_ref());
        let down = behavior.and_then(|behavior| behavior.scale_down.as_ref());
        let windows = (window(up, Duration::ZERO), window(down, STABILIZATION));
        let (lowest, highest) = self.recent(now, wanted, windows);
        let replicas = if behavior.is_some() {
            // As it is now, unless even the lowest wish is more or even the highest one is less.
            current.max(lowest).min(highest)
        } else {
            highest
        };
        let stabilized = match replicas.cmp(&wanted) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(STABILIZED_DOWN),
            std::cmp::Ordering::Less => Some(STABILIZED_UP),
        };
        let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let bounded = if behavior.is_some() {
            self.bound_by_rates(now, current, replicas, (least, most), (up, down))
        } else {
            bound(current, replicas, least, most)
        };
        let differs = bounded.0 != replicas;
        Limited { replicas: bounded.0, stabilized, bound: (differs, bounded.1) }
    }

    /// Remembers a wish. Gives the lowest and the highest one of the time that counts for growing
    /// and for shrinking.
    fn recent(
        &mut self,
        now: Instant,
        wanted: i32,
        (up, down): (Duration, Duration),
    ) -> (i32, i32) {
        self.recommended.retain(|(at, _)| now.duration_since(*at) <= up.max(down));
        let (mut lowest, mut highest) = (wanted, wanted);
        for (at, recommended) in &self.recommended {
            let age = now.duration_since(*at);
            if age < up {
                lowest = lowest.min(*recommended);
            }
            if age < down {
                highest = highest.max(*recommended);
            }
        }
        self.recommended.push((now, wanted));
        (lowest, highest)
    }

    fn bound_by_rates(
        &self,
        now: Instant,
        current: i32,
        wanted: i32,
        (least, most): (i32, i32),
        (up, down): (Option<&HPAScalingRules>, Option<&HPAScalingRules>),
    ) -> (i32, Applied) {
        if wanted > current {
            let fastest = self.fastest(now, current, up, true).max(current);
            let ceiling = fastest.min(most);
            let why = if most > fastest { TOO_FAST_UP } else { TOO_MANY };
            return if wanted > ceiling { (ceiling, why) } else { (wanted, WITHIN) };
        }
        if wanted < current {
            let fastest = self.fastest(now, current, down, false).min(current);
            let floor = fastest.max(least);
            let why = if least < fastest { TOO_FAST_DOWN } else { TOO_FEW };
            return if wanted < floor { (floor, why) } else { (wanted, WITHIN) };
        }
        (wanted, WITHIN)
    }

    /// The count that the policies allow to be reached now.
    fn fastest(
        &self,
        now: Instant,
        current: i32,
        rules: Option<&HPAScalingRules>,
        up: bool,
    ) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let given = rules.and_then(|rules| rules.policies.clone());
        let policies = given.filter(|p| !p.is_empty()).unwrap_or_else(|| defaults(up));
        let allowed = policies.iter().map(|policy| self.allowed(now, current, policy, up));
        let farthest = up == (select == "Max");
        let chosen = if farthest { allowed.max() } else { allowed.min() };
        chosen.unwrap_or(current)
    }

    fn allowed(&self, now: Instant, current: i32, policy: &HPAScalingPolicy, up: bool) -> i32 {
        let period = seconds(policy.period_seconds);
        let lately = self.scaled.iter().filter(|(at, _)| now.duration_since(*at) < period);
        let change: i32 = lately.map(|(_, by)| *by).filter(|by| (*by > 0) == up).sum();
        let start = current - change;
        let (start_f, value) = (f64::from(start), f64::from(policy.value));
        match (policy.type_.as_str(), up) {
            ("Pods", true) => start.saturating_add(policy.value),
            ("Pods", false) => start.saturating_sub(policy.value),
            (_, true) => rounded_up(start_f * (1.0 + value / 100.0)),
            (_, false) => (start_f * (1.0 - value / 100.0)) as i32,
        }
    }
}

/// Source: `SetDefaults_HorizontalPodAutoscalerBehavior`.
fn defaults(up: bool) -> Vec<HPAScalingPolicy> {
    let policy = |type_: &str, value| HPAScalingPolicy {
        type_: type_.to_owned(),
        value,
        period_seconds: 15,
    };
    if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] }
}

/// Without behaviour of its own, an autoscaler doubles at most, and may always reach four.
fn bound(current: i32, wanted: i32, least: i32, most: i32) -> (i32, Applied) {
    let fastest = current.saturating_mul(2).max(4);
    let (ceiling, why) = if most > fastest { (fastest, TOO_FAST_UP) } else { (most, TOO_MANY) };
    if wanted < least {
        (least, TOO_FEW)
    } else if wanted > ceiling {
        (ceiling, why)
    } else {
        (wanted, WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(behavior: &Value) -> HorizontalPodAutoscalerSpec {
        serde_json::from_value(json!({
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 100, "behavior": behavior,
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn without_behaviour_it_doubles_and_waits_to_shrink() {
        let (spec, mut history) = (spec(&Value::Null), History::default());
        let mut step = |current, wanted| {
            let limited = history.limit(&spec, Instant::now(), current, wanted);
            (limited.replicas, limited.stabilized.map(|why| why.0), limited.bound.1.0)
        };
        assert_eq!(step(3, 50), (6, None, "ScaleUpLimit"));
        assert_eq!(step(60, 200), (100, None, "TooManyReplicas"));
        tokio::time::advance(Duration::from_secs(200)).await;
        let held = (100, Some("ScaleDownStabilized"), "TooManyReplicas");
        assert_eq!(step(100, 5), held);
        tokio::time::advance(Duration::from_secs(101)).await;
        assert_eq!(step(100, 1), (5, Some("ScaleDownStabilized"), "DesiredWithinRange"));
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(step(5, 1), (2, None, "TooFewReplicas"));
    }

    #[tokio::test(start_paused = true)]
    async fn policies_limit_the_rate() {
        let spec = spec(&json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": 60},
                {"type": "Pods", "value": 1, "periodSeconds": 60},
            ]},
        }));
        let mut history = History::default();
        let mut step = |current: i32, wanted: i32| {
            let limited = history.limit(&spec, Instant::now(), current, wanted);
            history.note_scaling(Instant::now(), current, limited.replicas);
            (limited.replicas, limited.bound.1.0)
        };
        assert_eq!(step(4, 10), (6, "ScaleUpLimit"));
        assert_eq!(step(6, 10), (6, "ScaleUpLimit"), "two a minute");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(step(6, 10), (8, "ScaleUpLimit"));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(step(8, 3), (7, "ScaleDownLimit"), "the smaller step of two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_direction_can_be_switched_off() {
        let spec = spec(&json!({"scaleDown": {"selectPolicy": "Disabled",
            "stabilizationWindowSeconds": 0}}));
        let limited = History::default().limit(&spec, Instant::now(), 8, 3);
        assert_eq!((limited.replicas, limited.bound.1.0), (8, "ScaleDownLimit"));
    }
}
