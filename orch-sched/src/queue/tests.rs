//! The queue by examples and by chance.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{Actions, EventResource};

fn queue() -> Queue {
    Queue::new(Arc::new(Profiles::for_tests()), Backoff::default())
}

fn pod(name: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
    let gates = if gated { json!([{"name": "wait"}]) } else { json!([]) };
    let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name},
                     "spec": {"priority": priority, "schedulingGates": gates, "containers": []}});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

async fn pop(queue: &Queue) -> Option<Arc<QueuedPod>> {
    tokio::time::timeout(Duration::from_millis(10), queue.pop()).await.ok()
}

async fn pop_name(queue: &Queue) -> Option<String> {
    Some(pop(queue).await?.info.key().name.clone())
}

fn by(plugin: &str) -> BTreeSet<Arc<str>> {
    BTreeSet::from([plugin.into()])
}

#[tokio::test(start_paused = true)]
async fn higher_priority_goes_first_then_who_came_first() {
    let queue = queue();
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
        queue.set(pod(name, priority, false));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    queue.delete("d");
    let mut order = Vec::new();
    while let Some(name) = pop_name(&queue).await {
        order.push(name);
    }
    assert_eq!(order, ["b", "a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_from_one_second_to_ten() {
    let queue = queue();
    queue.set(pod("a", 0, false));
    for seconds in [1, 2, 4, 8, 10, 10] {
        let pod = queue.pop().await;
        let failed = Instant::now();
        queue.retry(&pod, BTreeSet::new());
        let again = queue.pop().await;
        assert_eq!(failed.elapsed().as_secs(), seconds);
        // Put it back as if it had never been popped a second time.
        let again = QueuedPod { attempts: again.attempts - 1, ..(*again).clone() };
        queue.done("a");
        let mut state = queue.state.lock();
        state.put(again, Place::Active, &queue.profiles);
    }
}

#[tokio::test(start_paused = true)]
async fn unschedulable_pods_wait_for_a_change_that_helps() {
    let queue = queue();
    queue.set(pod("a", 0, false));
    let popped = queue.pop().await;
    queue.retry(&popped, by("NodeResourcesFit"));
    assert_eq!(queue.lengths().unschedulable, 1);
    tokio::time::advance(Duration::from_secs(20)).await;
    queue.changed(&ClusterChange::of(EventResource::StorageClass, Actions::ADD));
    assert_eq!(pop_name(&queue).await, None, "a change that does not concern the plugin");
    queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
    assert_eq!(pop_name(&queue).await.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_cycle_is_not_lost() {
    let queue = queue();
    queue.set(pod("a", 0, false));
    let popped = queue.pop().await;
    queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
    queue.retry(&popped, by("NodeResourcesFit"));
    let lengths = queue.lengths();
    assert_eq!((lengths.backoff, lengths.unschedulable), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn whom_a_change_helps_waits_only_behind_others() {
    let queue = queue();
    queue.set(pod("a", 0, false));
    let popped = queue.pop().await;
    queue.retry(&popped, by("NodeResourcesFit"));
    queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
    queue.set(pod("b", 0, false));
    assert_eq!((queue.lengths().backoff, pop_name(&queue).await.as_deref()), (1, Some("b")));
    queue.done("b");
    let start = Instant::now();
    let again = queue.pop().await;
    assert_eq!((&*again.info.key().name, start.elapsed()), ("a", Duration::ZERO));
    // On its way to a node nobody knows what happened meanwhile.
    queue.placed("a");
    queue.changed(&ClusterChange::of(EventResource::AssignedPod, Actions::DELETE));
    queue.retry(&again, by("NodeResourcesFit"));
    queue.pop().await;
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_forgotten() {
    let queue = queue();
    queue.set(pod("a", 0, false));
    let popped = queue.pop().await;
    queue.retry(&popped, by("NodeResourcesFit"));
    let start = Instant::now();
    queue.pop().await;
    assert_eq!(start.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn gated_pods_wait_for_their_gates() {
    let queue = queue();
    queue.set(pod("a", 0, true));
    assert_eq!((pop_name(&queue).await, queue.lengths().gated), (None, 1));
    queue.set(pod("a", 0, false));
    assert_eq!(pop_name(&queue).await.as_deref(), Some("a"));
    queue.delete("a");
    queue.retry(&popped_of("a"), BTreeSet::new());
    assert_eq!(queue.lengths(), QueueLengths::default(), "deleted in flight");
}

fn popped_of(name: &str) -> QueuedPod {
    QueuedPod {
        info: pod(name, 0, false),
        since: Instant::now(),
        arrived: Instant::now(),
        began: Instant::now(),
        attempts: 1,
        rejected_by: BTreeSet::new(),
        sequence: 0,
        backoff_until: Instant::now(),
        penalized: false,
        gated_by: None,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize),
    Delete(usize),
    Pop,
    Reject(usize),
    Fault(usize),
    Done(usize),
    Change,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pods = 0..6usize;
    let step = prop_oneof![
        pods.clone().prop_map(Step::Set),
        pods.clone().prop_map(Step::Delete),
        Just(Step::Pop),
        pods.clone().prop_map(Step::Reject),
        pods.clone().prop_map(Step::Fault),
        pods.prop_map(Step::Done),
        Just(Step::Change),
        (0..400u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

/// Carries out the steps and gives the pods that must still come out, and those that do.
async fn run(steps: Vec<Step>) -> (BTreeSet<String>, BTreeSet<String>) {
    let queue = queue();
    let (mut expected, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    let mut flying: HashMap<String, Arc<QueuedPod>> = HashMap::new();
    for step in steps {
        match step {
            Step::Set(n) => {
                let name = n.to_string();
                if !flying.contains_key(&name) {
                    expected.insert(name.clone());
                }
                deleted.remove(&name);
                queue.set(pod(&name, (n % 3) as i32, false));
            }
            Step::Delete(n) => {
                queue.delete(&n.to_string());
                expected.remove(&n.to_string());
                deleted.insert(n.to_string());
            }
            Step::Pop => {
                if let Some(popped) = pop(&queue).await {
                    let name = popped.info.key().name.clone();
                    assert!(expected.remove(&name), "{name} came out without being in");
                    flying.insert(name, popped);
                }
            }
            Step::Reject(n) | Step::Fault(n) => {
                let rejected = matches!(step, Step::Reject(_));
                if let Some(popped) = flying.remove(&n.to_string()) {
                    let by = if rejected { by("NodeResourcesFit") } else { BTreeSet::new() };
                    queue.retry(&popped, by);
                    if !deleted.contains(&n.to_string()) {
                        expected.insert(n.to_string());
                    }
                }
            }
            Step::Done(n) => {
                if flying.remove(&n.to_string()).is_some() {
                    queue.done(&n.to_string());
                }
            }
            Step::Change => {
                let change = ClusterChange::of(EventResource::AssignedPod, Actions::DELETE);
                queue.changed(&change);
            }
            Step::Wait(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
        }
    }
    tokio::time::advance(UNSCHEDULABLE_MAX + Backoff::default().max).await;
    let mut out = BTreeSet::new();
    while let Some(name) = pop_name(&queue).await {
        out.insert(name);
    }
    (expected, out)
}

proptest! {
    #[test]
    fn no_pod_is_lost_and_none_comes_out_twice(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (expected, out) = runtime.block_on(run(steps));
        prop_assert_eq!(expected, out);
    }
}
