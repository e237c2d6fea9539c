//! Source: `test/e2e/scheduling/preemption.go`.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Pod},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, WatchParams},
};
use serde_json::{Value, json};

use crate::{
    running::{condition, is_going, node_of, on_node, pause_pod, runs},
    watching::{Change, Watching, version},
    world::{MINUTE, World, eventually, gone, object, update},
};

const RESOURCE: &str = "scheduling.k8s.io/foo";
const CLASSES: [(&str, i32); 3] =
    [("low-priority", 1), ("medium-priority", 100), ("high-priority", 1000)];

/// A cluster of so many nodes with priority classes.
async fn start(nodes: usize, classes: &[(&str, i32)]) -> (World, Vec<String>) {
    let world = World::start(nodes).await;
    let api: Api<PriorityClass> = Api::all(world.client.clone());
    for (name, value) in classes {
        let class = object(json!({"metadata": {"name": name}, "value": value}));
        api.create(&PostParams::default(), &class).await.expect("it is created");
    }
    let nodes = world.schedulable_nodes().await;
    (world, nodes)
}

/// A pod of a class that needs so much of a resource.
fn pod(name: &str, class: &str, (resource, amount): (&str, u32), spec: Value) -> Value {
    let mut pod = pause_pod(name, spec);
    let amounts = json!({resource: amount.to_string()});
    pod["spec"]["priorityClassName"] = json!(class);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
    pod
}

/// Two pods on every node take four fifths of a resource; only the first is of low priority.
async fn filled() -> (World, Vec<String>) {
    let (world, nodes) = start(2, &CLASSES).await;
    let mut names = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        world.add_resource(node, RESOURCE, "5").await;
        for j in 0..2 {
            let class = if names.is_empty() { "low-priority" } else { "medium-priority" };
            let name = format!("pod{i}-{j}-{class}");
            let affinity = json!({"affinity": on_node(node)});
            world.create::<Pod>(pod(&name, class, (RESOURCE, 2), affinity)).await;
            names.push(name);
        }
    }
    for name in &names {
        runs(&world.api(), name).await;
    }
    (world, names)
}

/// The first pod was preempted, and no other.
async fn check_victim(world: &World, names: &[String]) {
    let pods: Api<Pod> = world.api();
    assert!(is_going(&pods, &names[0]).await, "{} was not preempted", names[0]);
    for name in &names[1..] {
        assert!(!is_going(&pods, name).await, "{name} was preempted");
    }
}

#[tokio::test(start_paused = true)]
async fn validates_basic_preemption_works() {
    let (world, names) = filled().await;
    let high = pod("preemptor-pod", "high-priority", (RESOURCE, 2), json!({}));
    world.create::<Pod>(high).await;
    runs(&world.api(), "preemptor-pod").await;
    check_victim(&world, &names).await;
    let events: Api<Event> = world.api();
    let told =
        ListParams::default().fields(&format!("involvedObject.name={},reason=Preempted", names[0]));
    eventually("the victim is told", MINUTE, async || {
        events.list(&told).await.expect("a list").items.pop()
    })
    .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn validates_lower_priority_pod_preemption_by_critical_pod() {
    let (world, names) = filled().await;
    let name = "critical-pod";
    let system: Api<Pod> = Api::namespaced(world.client.clone(), "kube-system");
    let critical = pod(name, "system-cluster-critical", (RESOURCE, 2), json!({}));
    let created = system.create(&PostParams::default(), &object(critical)).await;
    created.expect("it is created");
    runs(&system, name).await;
    check_victim(&world, &names).await;
    system.delete(name, &DeleteParams::default().grace_period(0)).await.expect("it is deleted");
    gone(&system, name, MINUTE).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn validates_pod_disruption_condition_is_added_to_the_preempted_pod() {
    let (world, nodes) = start(2, &CLASSES).await;
    let (pods, victim, finalizer) =
        (world.api::<Pod>(), "victim-pod", "example.com/test-finalizer");
    world.add_resource(&nodes[0], RESOURCE, "1").await;
    let affinity = json!({"affinity": on_node(&nodes[0])});
    let mut low = pod(victim, "low-priority", (RESOURCE, 1), affinity.clone());
    low["metadata"]["finalizers"] = json!([finalizer]);
    world.create::<Pod>(low).await;
    runs(&pods, victim).await;
    let high = pod("preemptor-pod", "high-priority", (RESOURCE, 1), affinity);
    world.create::<Pod>(high).await;
    eventually("the victim is going", 5 * MINUTE, async || {
        is_going(&pods, victim).await.then_some(())
    })
    .await;
    let going = pods.get(victim).await.expect("the finalizer keeps it");
    let target = condition(&going, "DisruptionTarget").expect("a condition");
    assert_eq!(
        (target.status.as_str(), target.reason.as_deref()),
        ("True", Some("PreemptionByScheduler"))
    );
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(target.message.as_deref(), Some(message));
    update(&pods, victim, |pod: &mut Pod| pod.metadata.finalizers = None).await;
    gone(&pods, victim, 5 * MINUTE).await;
    runs(&pods, "preemptor-pod").await;
    world.shutdown().await;
}

/// One replica of a class on a host, with so much of the resource; it must become available.
async fn runs_replicated(world: &World, number: usize, host: &str, amount: u32) {
    const FAKE: &str = "example.com/fakecpu";
    let (name, class) = (format!("pod{number}"), format!("p{number}"));
    let selector = json!({"nodeSelector": {"kubernetes.io/hostname": host}});
    let spec = pod(&name, &class, (FAKE, amount), selector)["spec"].take();
    let labels = json!({"name": name});
    let set = json!({
        "metadata": {"name": format!("rs-{name}")},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    world.create::<ReplicaSet>(set).await;
    eventually("the replica is available", 5 * MINUTE, async || {
        let set = world.api::<ReplicaSet>().get(&format!("rs-{name}")).await.expect("there");
        (set.status?.available_replicas == Some(1)).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn runs_replicasets_to_verify_preemption_running_path() {
    let (world, nodes) = start(2, &[("p1", 1), ("p2", 2), ("p3", 3), ("p4", 4)]).await;
    let fake = "example.com/fakecpu";
    let node = world.nodes().get(&nodes[0]).await.expect("there");
    let host = node.labels()["kubernetes.io/hostname"].clone();
    world.add_resource(&nodes[0], fake, "1000").await;
    let pods: Api<Pod> = world.api();
    let mut watching = Watching::since(&pods, WatchParams::default(), &version(&pods).await).await;
    for (number, amount) in [(1, 200), (2, 300), (3, 450)] {
        runs_replicated(&world, number, &host, amount).await;
    }
    let selector = json!({"nodeSelector": {"kubernetes.io/hostname": host}});
    world.create::<Pod>(pod("pod4", "p4", (fake, 500), selector)).await;
    eventually("the fourth pod has a node", 5 * MINUTE, async || {
        let pod = pods.get("pod4").await.expect("there");
        (node_of(&pod) == nodes[0]).then_some(())
    })
    .await;
    // Only those of the two lowest priorities give way, each once. Each has a successor.
    let mut seen = [0; 3];
    let mut count = |change, pod: &Pod| {
        let number = ["rs-pod1", "rs-pod2", "rs-pod3"]
            .iter()
            .position(|name| change == Change::Added && pod.name_any().starts_with(name));
        if let Some(number) = number {
            seen[number] += 1;
        }
        seen == [2, 2, 1]
    };
    watching.until("the victims have successors", 2 * MINUTE, &mut count).await;
    let more = async {
        loop {
            let (change, pod) = watching.next().await;
            count(change, &pod);
        }
    };
    let stable = tokio::time::timeout(Duration::from_secs(5), more).await;
    assert!(stable.is_err());
    assert_eq!(seen, [2, 2, 1]);
    world.shutdown().await;
}
