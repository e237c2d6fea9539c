//! Which pods go first when there are too many.
//!
//! Source: `ActivePodsWithRanks` of `k8s.io/kubernetes/pkg/controller/controller_utils.go`.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts pods so that those to delete come first: unassigned before assigned, pending before
/// running, not ready before ready, cheap before costly, crowded before lonely, and then, roughly,
/// young before old.
pub(super) fn first_to_go(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *on_node.entry(node(pod)).or_insert(0) += 1;
    }
    pods.sort_by(|a, b| compare(a, b, &on_node, now));
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn compare(a: &Pod, b: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let crowd = |pod| on_node.get(node(pod)).copied().unwrap_or(0);
    let assigned = |pod| !node(pod).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| by_age(pods::ready_since(a), pods::ready_since(b), a, b, now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| by_age(created(a), created(b), a, b, now))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    statuses.unwrap_or_default().iter().map(|status| status.restart_count).max().unwrap_or(0)
}

/// Young before old, where ages differ by more than about a factor of two; otherwise by uid, which
/// is as good as random, so that pods of one generation do not all go together.
fn by_age(
    at: Option<Timestamp>,
    bt: Option<Timestamp>,
    a: &Pod,
    b: &Pod,
    now: Timestamp,
) -> Ordering {
    if at == bt {
        return Ordering::Equal;
    }
    let (Some(at), Some(bt)) = (at, bt) else {
        // What was never ready (or never created) counts as the youngest.
        return at.is_some().cmp(&bt.is_some());
    };
    let magnitude = |time: Timestamp| {
        let nanos = u64::try_from(now.duration_since(time).as_nanos()).unwrap_or(0);
        nanos.checked_ilog2().map_or(-1, i64::from)
    };
    magnitude(at).cmp(&magnitude(bt)).then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, more: &Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        });
        json_patch::merge(&mut value, more);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn each_criterion_outweighs_those_after_it() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let unassigned = pod("f", &json!({"spec": {"nodeName": null}}));
        let pending = pod("e", &json!({"status": {"phase": "Pending"}}));
        let not_ready = pod("d", &json!({"status": {"conditions": []}}));
        let cheap = pod("c", &json!({"metadata": {"annotations": {DELETION_COST: "-1"}}}));
        let crowded = pod("b", &json!({"spec": {"nodeName": "n2"}}));
        let young = pod(
            "z",
            &json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T23:59:59Z"}]}}),
        );
        let plain = pod("a", &json!({}));
        let related = [crowded.clone(), crowded.clone(), crowded.clone(), plain.clone()];
        let mut pods =
            [&plain, &young, &crowded, &cheap, &not_ready, &pending, &unassigned].map(Arc::clone);
        first_to_go(&mut pods, &related, now);
        let names = pods.map(|pod| pod.metadata.name.clone().unwrap_or_default());
        assert_eq!(names, ["f", "e", "d", "c", "b", "z", "a"]);
    }
}
