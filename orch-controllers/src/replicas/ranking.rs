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
    let all = pods.to_vec();
    let order = Order {
        on_node: crowds(related),
        ready: Ages::of(&all, pods::ready_since, now),
        created: Ages::of(&all, created, now),
    };
    pods.sort_by(|a, b| order.compare(a, b));
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// How many pods each node has.
fn crowds(related: &[Arc<Pod>]) -> HashMap<&str, usize> {
    let mut on_node = HashMap::new();
    for pod in related {
        *on_node.entry(node(pod)).or_insert(0) += 1;
    }
    on_node
}

/// What pods are compared with.
struct Order<'a> {
    on_node: HashMap<&'a str, usize>,
    ready: Ages<'a>,
    created: Ages<'a>,
}

impl Order<'_> {
    fn compare(&self, a: &Pod, b: &Pod) -> Ordering {
        let crowd = |pod| self.on_node.get(node(pod)).copied().unwrap_or(0);
        let assigned = |pod| !node(pod).is_empty();
        assigned(a)
            .cmp(&assigned(b))
            .then_with(|| phase_order(a).cmp(&phase_order(b)))
            .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
            .then_with(|| cost(a).cmp(&cost(b)))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| self.ready.compare(pods::ready_since(a), pods::ready_since(b)))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| self.created.compare(created(a), created(b)))
    }
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
///
/// Differs: upstream compares the uids of the two pods. Of pods of exactly the same age, which the
/// next criterion decides between, one speaks for all here: otherwise the order would contradict
/// itself as soon as a third pod's uid lies between theirs.
struct Ages<'a> {
    now: Timestamp,
    /// The least uid of the pods of each age.
    speakers: HashMap<Timestamp, &'a str>,
}

impl<'a> Ages<'a> {
    fn of(pods: &'a [Arc<Pod>], time: fn(&Pod) -> Option<Timestamp>, now: Timestamp) -> Self {
        let mut speakers = HashMap::new();
        for pod in pods {
            let Some(time) = time(pod) else { continue };
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let speaker = speakers.entry(time).or_insert(uid);
            *speaker = uid.min(speaker);
        }
        Self { now, speakers }
    }

    fn compare(&self, a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
        let (Some(a), Some(b)) = (a, b) else {
            // What was never ready (or never created) counts as the youngest.
            return a.is_some().cmp(&b.is_some());
        };
        let magnitude = |time: Timestamp| {
            let nanos = u64::try_from(self.now.duration_since(time).as_nanos()).unwrap_or(0);
            nanos.checked_ilog2().map_or(-1, i64::from)
        };
        let speaker = |time| self.speakers.get(&time);
        magnitude(a).cmp(&magnitude(b)).then_with(|| speaker(a).cmp(&speaker(b)))
    }
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

    /// Equal ages among ages of one magnitude, with uids in between: every two pods must stand to
    /// each other as their places say.
    #[test]
    fn the_order_does_not_contradict_itself() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut pods: Vec<_> = (0..60u32)
            .map(|number| {
                let second = number * 7 % 5;
                let ready = format!("2026-01-01T00:00:1{second}Z");
                let restarts = number % 3;
                let uid = format!("{:02}", number * 37 % 60);
                let more = json!({"metadata": {"uid": uid}, "status": {
                    "conditions": [
                        {"type": "Ready", "status": "True", "lastTransitionTime": ready}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
                        "restartCount": restarts}],
                }});
                pod("p", &more)
            })
            .collect();
        first_to_go(&mut pods, &[], now);
        let all = pods.clone();
        let order = Order {
            on_node: HashMap::new(),
            ready: Ages::of(&all, pods::ready_since, now),
            created: Ages::of(&all, created, now),
        };
        for (place, pod) in pods.iter().enumerate() {
            for later in &pods[place..] {
                assert_ne!(order.compare(pod, later), Ordering::Greater);
            }
        }
    }
}
