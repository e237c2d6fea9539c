//! Pods of a group are placed together or not at all.

use std::time::Duration;

use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use orch_core::{
    ResourceType, Resources,
    client::{DeleteOptions, ListOptions},
};
use orch_sched::{Profile, SchedulerBuilder};
use serde_json::{Value, json};

use crate::cluster::{Cluster, cpu};

fn gangs(builder: SchedulerBuilder) -> SchedulerBuilder {
    builder.profile(Profile::default().enable("GangScheduling", 1))
}

fn cluster() -> Cluster {
    Cluster::start(1, |client| client, gangs)
}

fn group(cluster: &Cluster, name: &str, policy: Value) {
    let group = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulingPolicy": policy},
    });
    cluster.memory.seed(&ResourceType::of::<PodGroup>(), group).unwrap();
}

fn gang(min_count: i32) -> Value {
    json!({"gang": {"minCount": min_count}})
}

fn member(group: &str, amount: &str) -> Value {
    let mut pod = cpu(amount);
    pod["spec"]["schedulingGroup"] = json!({"podGroupName": group});
    pod
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The names of the pods that have a node.
async fn bound(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods.list(ListOptions::default()).await.unwrap();
    let bound = pods.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some());
    bound.map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

/// Status, reason and message of the group's condition.
async fn condition(cluster: &Cluster, name: &str) -> Option<[String; 3]> {
    let groups: Resources<PodGroup> = Resources::namespaced(cluster.memory.clone(), "default");
    let group = groups.get(name).await.unwrap();
    let conditions = group.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|one| one.type_ == "PodGroupScheduled")?;
    Some([scheduled.status.clone(), scheduled.reason.clone(), scheduled.message.clone()])
}

#[tokio::test(start_paused = true)]
async fn a_gang_waits_for_its_group_and_for_enough_pods() {
    let cluster = cluster();
    cluster.node("n1", json!({}));
    for name in ["a", "b"] {
        cluster.pod(name, member("g", "1")).await;
    }
    wait(1000).await;
    assert!(bound(&cluster).await.is_empty(), "there is no group");
    group(&cluster, "g", gang(3));
    wait(1000).await;
    assert!(bound(&cluster).await.is_empty(), "two are not enough");
    let start = tokio::time::Instant::now();
    cluster.pod("c", member("g", "1")).await;
    for name in ["a", "b", "c"] {
        cluster.placed(name).await;
    }
    assert!(start.elapsed() < Duration::from_secs(1), "the third one lets all of them go");
    wait(1).await;
    let scheduled = ["True", "Scheduled", ""].map(str::to_owned);
    assert_eq!(condition(&cluster, "g").await, Some(scheduled));
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_does_not_fit_as_a_whole_takes_no_place() {
    let cluster = cluster();
    cluster.node("n1", json!({}));
    group(&cluster, "g", gang(3));
    for name in ["a", "b", "c"] {
        cluster.pod(name, member("g", "2")).await;
    }
    let mut messages = Vec::new();
    for name in ["a", "b", "c"] {
        messages.push(cluster.refused(name).await.1);
    }
    let waits = |name: &str| {
        format!(
            "pod group is unschedulable, one or more plugins asked to wait and no plugin rejected \
             pod \"{name}\""
        )
    };
    let full = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
                preemption: 0/1 nodes are available: 1 No preemption victims found for incoming \
                pod.";
    assert_eq!(messages, [waits("a"), waits("b"), full.to_owned()]);
    let unschedulable = ["False", "Unschedulable", "pod group is unschedulable"];
    assert_eq!(condition(&cluster, "g").await, Some(unschedulable.map(str::to_owned)));
    // What was looked at for the gang is free for others, and what helps one helps all.
    cluster.pod("alone", cpu("4")).await;
    assert_eq!(cluster.placed("alone").await, "n1");
    cluster.node("n2", json!({}));
    wait(30).await;
    assert_eq!(bound(&cluster).await, ["alone"], "two of three");
    let start = tokio::time::Instant::now();
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("alone", now).await.unwrap();
    for name in ["a", "b", "c"] {
        cluster.placed(name).await;
    }
    assert!(start.elapsed() < Duration::from_secs(60), "woken by the event, not by the flush");
}

#[tokio::test(start_paused = true)]
async fn two_gangs_that_fit_one_after_the_other_do_not_block_each_other() {
    let cluster = cluster();
    cluster.node("n1", json!({}));
    for name in ["g", "h"] {
        group(&cluster, name, gang(3));
    }
    for n in 0..3 {
        for name in ["g", "h"] {
            cluster.pod(&format!("{name}{n}"), member(name, "1")).await;
        }
    }
    wait(400).await;
    let placed = bound(&cluster).await;
    assert_eq!(placed.len(), 3, "{placed:?}");
    let first = &placed[0][..1];
    assert!(placed.iter().all(|name| name.starts_with(first)), "{placed:?}");
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    for name in &placed {
        cluster.pods.delete(name, now.clone()).await.unwrap();
    }
    wait(60).await;
    assert_eq!(bound(&cluster).await.len(), 3, "the other one");
}

#[tokio::test(start_paused = true)]
async fn a_basic_group_needs_nobody_else() {
    let cluster = cluster();
    cluster.node("n1", json!({}));
    group(&cluster, "g", json!({"basic": {}}));
    for (name, amount) in [("small", "1"), ("large", "9")] {
        cluster.pod(name, member("g", amount)).await;
    }
    assert_eq!(cluster.placed("small").await, "n1");
    assert!(cluster.refused("large").await.1.contains("Insufficient cpu"));
}

#[tokio::test(start_paused = true)]
async fn members_must_ask_for_one_scheduler() {
    let configure = |builder| {
        let second = Profile::named("second").enable("GangScheduling", 1);
        gangs(builder).profile(second)
    };
    let cluster = Cluster::start(1, |client| client, configure);
    cluster.node("n1", json!({}));
    cluster.pod("a", member("g", "1")).await;
    let mut other = member("g", "1");
    other["spec"]["schedulerName"] = "second".into();
    cluster.pod("b", other).await;
    wait(1).await;
    group(&cluster, "g", gang(2));
    for name in ["a", "b"] {
        let (reason, message) = cluster.refused(name).await;
        assert_eq!(reason, "SchedulerError");
        assert_eq!(
            message,
            "all pods in a single pod group should have the same .spec.schedulerName set, \
             got: \"default-scheduler\" and \"second\""
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gang_makes_room_only_if_all_of_it_then_fits() {
    let cluster = cluster();
    for (node, kept) in [("n1", "4"), ("n2", "4")] {
        cluster.node(node, json!({}));
        let mut low = cpu(kept);
        low["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        cluster.pod(&format!("low-{node}"), low).await;
        cluster.placed(&format!("low-{node}")).await;
    }
    let important = |group: &str| {
        let mut pod = member(group, "4");
        pod["spec"]["priority"] = 100.into();
        pod
    };
    group(&cluster, "large", gang(3));
    for n in 0..3 {
        cluster.pod(&format!("large{n}"), important("large")).await;
    }
    wait(10).await;
    let deleting = async |cluster: &Cluster| {
        let pods = cluster.pods.list(ListOptions::default()).await.unwrap();
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count()
    };
    assert_eq!(deleting(&cluster).await, 0, "three do not fit on two nodes");
    group(&cluster, "small", gang(2));
    for n in 0..2 {
        cluster.pod(&format!("small{n}"), important("small")).await;
    }
    wait(2).await;
    assert_eq!(deleting(&cluster).await, 2);
    let waiting = "pod group is unschedulable, pod group is waiting for preemption to complete";
    let preempting = ["False", "Unschedulable", waiting].map(str::to_owned);
    assert_eq!(condition(&cluster, "small").await, Some(preempting));
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    for node in ["n1", "n2"] {
        cluster.pods.delete(&format!("low-{node}"), now.clone()).await.unwrap();
    }
    for n in 0..2 {
        cluster.placed(&format!("small{n}")).await;
    }
}
