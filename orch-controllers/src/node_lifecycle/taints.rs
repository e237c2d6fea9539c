//! The taints that a node's conditions lead to.
//!
//! Source: `nodeConditionToTaintKeyStatusMap` of the node lifecycle controller.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::condition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its value, and the taint that keeps new pods away then.
const NO_SCHEDULE: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The taints that the node is to have: its own, with those that the conditions decide about
/// replaced. A taint that stays keeps the time at which it was added.
pub(super) fn wanted(node: &Node, current: &[Taint], now: &Time) -> Vec<Taint> {
    let holds =
        |type_: &str, value: &str| condition(node, type_).is_some_and(|c| c.status == value);
    let mut due: Vec<(&str, &str)> = NO_SCHEDULE
        .iter()
        .filter(|(type_, value, _)| holds(type_, value))
        .map(|(.., key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        due.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if holds("Ready", "False") {
        due.push((NOT_READY, "NoExecute"));
    }
    if holds("Ready", "Unknown") {
        due.push((UNREACHABLE, "NoExecute"));
    }
    let decided = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => {
            taint.key == UNSCHEDULABLE || NO_SCHEDULE.iter().any(|(.., key)| *key == taint.key)
        }
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    };
    let is_due = |taint: &Taint| due.contains(&(taint.key.as_str(), taint.effect.as_str()));
    // A node that has not reported yet keeps the taint that it was registered with.
    let unknown = condition(node, "Ready").is_none();
    let mut wanted: Vec<Taint> = current
        .iter()
        .filter(|taint| !decided(taint) || is_due(taint) || (unknown && taint.key == NOT_READY))
        .cloned()
        .collect();
    for (key, effect) in due {
        if !wanted.iter().any(|taint| taint.key == key && taint.effect == effect) {
            wanted.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(now.clone()),
                value: None,
            });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_decide_about_their_taints_and_no_others() {
        let now = Time("2026-01-01T00:00:00Z".parse().unwrap());
        let check = |ready: &str, current: &[(&str, &str)], expected: &[(&str, &str)]| {
            let node: Node = serde_json::from_value(json!({
                "metadata": {"name": "n"},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap();
            let current: Vec<Taint> = current
                .iter()
                .map(|(key, effect)| Taint {
                    key: (*key).to_owned(),
                    effect: (*effect).to_owned(),
                    ..Taint::default()
                })
                .collect();
            let wanted = wanted(&node, &current, &now);
            let names: Vec<(&str, &str)> =
                wanted.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
            assert_eq!(names, expected);
        };
        let own = ("example.com/own", "NoExecute");
        check("True", &[own, (NOT_READY, "NoSchedule"), (UNREACHABLE, "NoExecute")], &[own]);
        check(
            "Unknown",
            &[own, (NOT_READY, "NoExecute")],
            &[own, (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        );
        check("False", &[], &[(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]);
    }
}
