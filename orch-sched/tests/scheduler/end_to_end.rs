//! Pods go through the queue, the cycle and the binding.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use orch_core::client::{DeleteOptions, ListOptions, PatchKind};
use orch_sched::{
    CycleState, Fault, Filter, NodeInfo, Permit, Plugin, PodInfo, PreBind, Profile, Verdict,
    WaitingPods,
};
use serde_json::json;

use crate::cluster::{Cluster, cpu};

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_and_an_event_says_so() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    cluster.pod("web", json!({})).await;
    assert_eq!(cluster.placed("web").await, "n1");
    let said = ("Scheduled".to_owned(), "Successfully assigned default/web to n1".to_owned());
    assert_eq!(cluster.events().await, [said]);
}

#[tokio::test(start_paused = true)]
async fn nodes_fill_up_and_never_over() {
    let cluster = Cluster::plain();
    for name in ["n1", "n2"] {
        cluster.node(name, json!({}));
    }
    for n in 0..8 {
        cluster.pod(&format!("p{n}"), cpu("1")).await;
    }
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..8 {
        *counts.entry(cluster.placed(&format!("p{n}")).await).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [4, 4]);
    cluster.pod("late", cpu("1")).await;
    let (reason, message) = cluster.refused("late").await;
    assert_eq!(reason, "Unschedulable");
    assert_eq!(
        message,
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: \
         0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    let events = cluster.events().await;
    assert!(events.contains(&("FailedScheduling".into(), message)), "{events:?}");

    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("p3", now).await.unwrap();
    let start = tokio::time::Instant::now();
    cluster.placed("late").await;
    assert!(start.elapsed() < Duration::from_secs(60), "woken by the event, not by the flush");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_nodes_waits_for_one() {
    let cluster = Cluster::plain();
    cluster.pod("web", json!({})).await;
    let (_, message) = cluster.refused("web").await;
    assert_eq!(message, "no nodes available to schedule pods");
    cluster.node("n1", json!({}));
    assert_eq!(cluster.placed("web").await, "n1");
}

#[tokio::test(start_paused = true)]
async fn gates_hold_a_pod() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    cluster.pod("web", json!({"spec": {"schedulingGates": [{"name": "wait"}]}})).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(cluster.pods.get("web").await.unwrap().spec.as_ref().unwrap().node_name, None);
    let open = json!({"spec": {"schedulingGates": null}});
    cluster.pods.patch("web", PatchKind::Merge, open).await.unwrap();
    assert_eq!(cluster.placed("web").await, "n1");
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_schedulers_are_left_alone() {
    let second = Profile::named("second");
    let configure =
        |builder: orch_sched::SchedulerBuilder| builder.profile(Profile::default()).profile(second);
    let cluster = Cluster::start(1, |client| client, configure);
    cluster.node("n1", json!({}));
    for scheduler in ["second", "other"] {
        cluster.pod(scheduler, json!({"spec": {"schedulerName": scheduler}})).await;
    }
    assert_eq!(cluster.placed("second").await, "n1");
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(cluster.pods.get("other").await.unwrap().spec.as_ref().unwrap().node_name, None);
}

#[derive(Debug)]
struct Panics(Arc<AtomicUsize>);

impl Plugin for Panics {
    fn name(&self) -> &str {
        "Panics"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for Panics {
    fn filter(&self, _: &CycleState, pod: &PodInfo, _: &NodeInfo) -> Result<Verdict, Fault> {
        assert!(pod.key().name != "bad" || self.0.fetch_add(1, Ordering::Relaxed) > 2, "bug");
        Ok(Verdict::Success)
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_panics_fails_its_pod_only() {
    let calls = Arc::new(AtomicUsize::new(0));
    let plugin = Panics(calls.clone());
    let cluster = Cluster::start(1, |client| client, |builder| builder.plugin(plugin));
    cluster.node("n1", json!({}));
    cluster.pod("bad", json!({})).await;
    cluster.pod("good", json!({})).await;
    assert_eq!(cluster.placed("good").await, "n1");
    let (reason, message) = cluster.refused("bad").await;
    assert_eq!(reason, "SchedulerError");
    assert_eq!(message, "running Filter plugin \"Panics\": panicked: bug");
    assert_eq!(cluster.placed("bad").await, "n1", "tried again after a pause");
}

#[derive(Debug)]
struct Hangs;

impl Plugin for Hangs {
    fn name(&self) -> &str {
        "Hangs"
    }

    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        Some(self)
    }
}

#[async_trait]
impl PreBind for Hangs {
    async fn pre_bind(&self, _: &CycleState, pod: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        if pod.key().name == "bad" {
            std::future::pending::<()>().await;
        }
        Ok(Verdict::Success)
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_never_answers_fails_its_pod_only() {
    let patient = Profile::default().plugin_timeout(Duration::from_secs(20));
    let configure = |builder: orch_sched::SchedulerBuilder| builder.profile(patient).plugin(Hangs);
    let cluster = Cluster::start(1, |client| client, configure);
    cluster.node("n1", json!({"status": {"allocatable": {"cpu": "1"}}}));
    cluster.pod("bad", cpu("1")).await;
    let (reason, message) = cluster.refused("bad").await;
    assert_eq!(reason, "SchedulerError");
    assert_eq!(message, "running PreBind plugin \"Hangs\": did not answer within 20s");
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("bad", now).await.unwrap();
    cluster.pod("good", cpu("1")).await;
    assert_eq!(cluster.placed("good").await, "n1", "what was reserved is free again");
}

#[derive(Debug)]
struct Gang(WaitingPods);

impl Plugin for Gang {
    fn name(&self) -> &str {
        "Gang"
    }

    fn as_permit(&self) -> Option<&dyn Permit> {
        Some(self)
    }
}

impl Permit for Gang {
    fn permit(&self, _: &CycleState, _: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        let waiting = self.0.uids();
        if waiting.len() < 2 {
            return Ok(Verdict::Wait(Duration::from_secs(60)));
        }
        for uid in waiting {
            self.0.allow(&uid, "Gang");
        }
        Ok(Verdict::Success)
    }
}

#[tokio::test(start_paused = true)]
async fn permit_holds_pods_until_all_are_there() {
    let waiting = WaitingPods::default();
    let gang = Gang(waiting.clone());
    let configure =
        |builder: orch_sched::SchedulerBuilder| builder.waiting_pods(waiting.clone()).plugin(gang);
    let cluster = Cluster::start(1, |client| client, configure);
    cluster.node("n1", json!({}));
    cluster.pod("a", cpu("1")).await;
    cluster.pod("b", cpu("1")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let placed =
        ListOptions { field_selector: Some("spec.nodeName=n1".into()), ..ListOptions::default() };
    assert!(cluster.pods.list(placed).await.unwrap().is_empty(), "two are not enough");
    cluster.pod("c", cpu("1")).await;
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.placed(name).await, "n1");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_pods_that_are_held() {
    let waiting = WaitingPods::default();
    let gang = Gang(waiting.clone());
    let held = waiting.clone();
    let configure =
        |builder: orch_sched::SchedulerBuilder| builder.waiting_pods(waiting).plugin(gang);
    let mut cluster = Cluster::start(1, |client| client, configure);
    cluster.node("n1", json!({}));
    cluster.pod("a", cpu("1")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(held.uids().len(), 1);
    let start = tokio::time::Instant::now();
    cluster.stop().await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(held.uids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_seed_one_placement() {
    let run = async |seed| {
        let cluster = Cluster::start(seed, |client| client, |builder| builder);
        for n in 0..5 {
            cluster.node(&format!("n{n}"), json!({}));
        }
        // Let the nodes be seen first: what is seen in one order only is the same in every run.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut placed = Vec::new();
        for n in 0..10 {
            cluster.pod(&format!("p{n}"), cpu("100m")).await;
            placed.push(cluster.placed(&format!("p{n}")).await);
        }
        placed
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await, "ties are broken by the seed");
}

#[tokio::test(start_paused = true)]
async fn numbers_have_upstreams_names() {
    let environment = crate::cluster::environment(1);
    let cluster = Cluster::plain();
    let informers =
        orch_core::informer::Informers::new(cluster.memory.clone(), environment.clone());
    let second = Profile::named("second");
    let scheduler = orch_sched::Scheduler::builder(&informers).profile(second).build().unwrap();
    let insight = scheduler.insight();
    let cancel = tokio_util::sync::CancellationToken::new();
    tokio::spawn(scheduler.run(cancel.clone()));
    cluster.node("n1", json!({}));
    cluster.pod("web", json!({"spec": {"schedulerName": "second"}})).await;
    cluster.placed("web").await;
    let mut large = cpu("9");
    large["spec"]["schedulerName"] = "second".into();
    cluster.pod("large", large).await;
    cluster.refused("large").await;
    let text = insight.metrics();
    for line in [
        "scheduler_schedule_attempts_total{profile=\"second\",result=\"scheduled\"} 1",
        "scheduler_schedule_attempts_total{profile=\"second\",result=\"unschedulable\"} 1",
        "scheduler_pending_pods{queue=\"unschedulable\"} 1",
        "scheduler_cache_size{type=\"nodes\"} 1",
        "scheduler_preemption_attempts_total 1",
        "scheduler_pod_scheduling_attempts_count 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    cancel.cancel();
}
