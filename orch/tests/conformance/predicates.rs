//! Source: `test/e2e/scheduling/predicates.go`.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::{
    running::{condition, node_of, pause_pod, phase, runs, selected},
    world::{MINUTE, World, eventually, gone},
};

/// Waits until the scheduler has said of a pod that no node takes it; what it said.
async fn fails(world: &World, name: &str) -> String {
    let events: Api<Event> = world.api();
    let own = ListParams::default()
        .fields(&format!("involvedObject.name={name},reason=FailedScheduling"));
    let event = eventually("the scheduler says why not", 2 * MINUTE, async || {
        events.list(&own).await.expect("a list").items.pop()
    })
    .await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let pod = world.api::<Pod>().get(name).await.expect("there");
    assert_eq!((node_of(&pod), phase(&pod)), ("", "Pending"));
    let scheduled = condition(&pod, "PodScheduled").expect("a condition");
    assert_eq!(
        (scheduled.status.as_str(), scheduled.reason.as_deref()),
        ("False", Some("Unschedulable"))
    );
    let message = event.message.expect("a message");
    assert_eq!(scheduled.message.as_ref(), Some(&message));
    message
}

/// There are so many pods with a node and without one; those with a node are said to be.
async fn check_scheduled(world: &World, with: usize, without: usize) {
    let pods = selected(&world.api::<Pod>(), "").await;
    let (placed, others): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| !node_of(pod).is_empty());
    assert_eq!((placed.len(), others.len()), (with, without));
    for pod in placed {
        let scheduled = condition(pod, "PodScheduled").expect("a condition");
        assert_eq!(scheduled.status, "True", "{}", pod.name_any());
    }
}

/// A node that takes a pod without wishes.
async fn any_node(world: &World) -> String {
    let (pods, name) = (world.api::<Pod>(), "without-label");
    world.create::<Pod>(pause_pod(name, json!({}))).await;
    let node = node_of(&runs(&pods, name).await).to_owned();
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.expect("it is deleted");
    gone(&pods, name, MINUTE).await;
    node
}

/// A container that needs so much CPU.
fn needs(name: &str, millis: i64, spec: Value) -> Value {
    let mut pod = pause_pod(name, spec);
    let cpu = json!({"cpu": format!("{millis}m")});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": cpu, "limits": cpu});
    pod
}

#[tokio::test(start_paused = true)]
async fn validates_resource_limits_of_pods_that_are_allowed_to_run() {
    let world = World::start(2).await;
    let nodes = world.schedulable_nodes().await;
    let mut largest = 0;
    for (number, node) in nodes.iter().enumerate() {
        world.label_node(node, "node", Some(node)).await;
        let status = world.nodes().get(node).await.expect("there").status.expect("a status");
        let cpu = &status.allocatable.expect("allocatable")["cpu"].0;
        let millis = 1000 * cpu.parse::<i64>().expect("whole CPUs");
        largest = largest.max(millis);
        let term = json!({"matchExpressions": [
            {"key": "node", "operator": "In", "values": [node]},
        ]});
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }});
        let name = format!("filler-pod-{number}");
        let filler = needs(&name, millis * 7 / 10, json!({"affinity": affinity}));
        world.create::<Pod>(filler).await;
        assert_eq!(node_of(&runs(&world.api(), &name).await), node);
    }
    world.create::<Pod>(needs("additional-pod", largest * 5 / 10, json!({}))).await;
    let said = fails(&world, "additional-pod").await;
    assert!(said.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{said}");
    check_scheduled(&world, 2, 1).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn validates_that_nodeselector_is_respected_if_not_matching() {
    let world = World::start(2).await;
    world.schedulable_nodes().await;
    let name = "restricted-pod";
    world.create::<Pod>(pause_pod(name, json!({"nodeSelector": {"label": "nonempty"}}))).await;
    let said = fails(&world, name).await;
    let wanted = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    assert!(said.starts_with(wanted), "{said}");
    check_scheduled(&world, 0, 1).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn validates_that_nodeselector_is_respected_if_matching() {
    let (world, name, key) = (World::start(3).await, "with-labels", "kubernetes.io/e2e-label");
    let node = any_node(&world).await;
    world.label_node(&node, key, Some("42")).await;
    world.create::<Pod>(pause_pod(name, json!({"nodeSelector": {key: "42"}}))).await;
    let pod = eventually("the pod is no longer pending", 5 * MINUTE, async || {
        let pod = world.api::<Pod>().get(name).await.expect("there");
        (phase(&pod) != "Pending").then_some(pod)
    })
    .await;
    assert_eq!((node_of(&pod), phase(&pod)), (node.as_str(), "Running"));
    world.shutdown().await;
}

/// A pod that serves on a port of its host; the runtime's script answers its probe.
fn on_host_port(name: &str, host_ip: &str, selector: &Value) -> Value {
    let container = json!({
        "name": "agnhost", "image": "registry.example/agnhost:v2",
        "args": ["netexec", "--http-port=8080", "--udp-port=8080"],
        "ports": [
            {"hostPort": 54322, "containerPort": 8080, "protocol": "TCP", "hostIP": host_ip},
        ],
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080, "scheme": "HTTP"}},
    });
    let spec = json!({"containers": [container], "nodeSelector": selector});
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn validates_that_there_exists_conflict_between_pods_with_same_hostport_and_protocol_but_one_using_0_0_0_0_hostip()
 {
    let world = World::start(2).await;
    let (node, key) = (any_node(&world).await, "kubernetes.io/e2e-label");
    let status = world.nodes().get(&node).await.expect("there").status.expect("a status");
    let addresses = status.addresses.unwrap_or_default();
    let own = addresses.iter().find(|address| address.type_ == "InternalIP");
    let own = &own.expect("an address of the node").address;
    world.label_node(&node, key, Some("95")).await;
    let selector = json!({key: "95"});
    world.create::<Pod>(on_host_port("pod4", "", &selector)).await;
    assert_eq!(node_of(&runs(&world.api(), "pod4").await), node);
    world.create::<Pod>(on_host_port("pod5", own, &selector)).await;
    let said = fails(&world, "pod5").await;
    let wanted = "1 node(s) didn't have free ports for the requested pod ports";
    assert!(said.starts_with("0/2 nodes are available: ") && said.contains(wanted), "{said}");
    world.shutdown().await;
}
