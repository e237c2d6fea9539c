//! What makes no sense is reported, and takes no place from others.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use orch_core::{Resources, client::DeleteOptions};
use orch_sched::{
    CycleState, Fault, Permit, Plugin, PodInfo, SchedulerBuilder, Verdict, WaitingPods,
};
use serde_json::json;

use crate::cluster::{Cluster, cpu};

#[tokio::test(start_paused = true)]
async fn a_topology_that_no_node_has_is_named_as_the_reason() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    let constraint = json!({"maxSkew": 1, "topologyKey": "nowhere",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}});
    cluster.pod("spread", json!({"spec": {"topologySpreadConstraints": [constraint]}})).await;
    let (reason, message) = cluster.refused("spread").await;
    assert_eq!(reason, "Unschedulable");
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing \
         required label). no new claims to deallocate, preemption: 0/1 nodes are available: 1 \
         Preemption is not helpful for scheduling."
    );
}

#[tokio::test(start_paused = true)]
async fn amounts_that_make_no_sense_take_no_place() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    cluster.node("n2", json!({"status": {"allocatable": {"cpu": "much", "pods": "10"}}}));
    for (name, amount, reason) in [
        ("words", "much", "SchedulerError"),
        ("huge", "9999999999999E", "Unschedulable"),
        ("over", "9223372036854775807", "Unschedulable"),
    ] {
        cluster.pod(name, cpu(amount)).await;
        assert_eq!(cluster.refused(name).await.0, reason, "{name}");
    }
    cluster.pod("plain", cpu("4")).await;
    assert_eq!(cluster.placed("plain").await, "n1");
}

/// Holds the pod that is called so.
#[derive(Debug)]
struct Holds;

impl Plugin for Holds {
    fn name(&self) -> &str {
        "Holds"
    }

    fn as_permit(&self) -> Option<&dyn Permit> {
        Some(self)
    }
}

impl Permit for Holds {
    fn permit(&self, _: &CycleState, pod: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        let held = pod.key().name == "held";
        Ok(if held { Verdict::Wait(Duration::from_secs(3600)) } else { Verdict::Success })
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_between_choice_and_binding_keeps_what_was_taken_on_it() {
    let waiting = WaitingPods::default();
    let configure = |builder: SchedulerBuilder| builder.waiting_pods(waiting.clone()).plugin(Holds);
    let cluster = Cluster::start(1, |client| client, configure);
    let nodes: Resources<Node> = Resources::all(cluster.memory.clone());
    cluster.node("n1", json!({}));
    cluster.pod("held", cpu("3")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = waiting.uids();
    assert_eq!(held.len(), 1);
    nodes.delete("n1", DeleteOptions::default()).await.unwrap();
    cluster.pod("second", cpu("3")).await;
    assert_eq!(cluster.refused("second").await.1, "no nodes available to schedule pods");
    cluster.node("n1", json!({}));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let second = cluster.pods.get("second").await.unwrap();
    assert_eq!(second.spec.as_ref().unwrap().node_name, None, "the place is taken");
    assert!(waiting.reject(&held[0], "Holds", "not any more"));
    assert_eq!(cluster.placed("second").await, "n1", "the place was given back");
}
