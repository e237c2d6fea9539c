//! Pods and what becomes of them, as upstream's tests wait for it.
//!
//! Source: `test/e2e/framework/pod/wait.go`, `test/e2e/framework/pod/resource.go`.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use orch::core::quantity::Amount;
use serde_json::{Value, json};

use crate::world::{Kind, MINUTE, World, eventually};

/// How long upstream's tests wait for a pod to start.
pub(crate) const POD_START: Duration = Duration::from_secs(300);

/// The objects with these labels.
pub(crate) async fn selected<K: Kind>(api: &Api<K>, selector: &str) -> Vec<K> {
    api.list(&ListParams::default().labels(selector)).await.expect("a list").items
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub(crate) fn image_of(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

/// Waits until a pod runs; it must not end before.
pub(crate) async fn runs(pods: &Api<Pod>, name: &str) -> Pod {
    eventually(&format!("{name} runs"), POD_START, async || {
        let pod = pods.get(name).await.expect("there");
        assert!(!matches!(phase(&pod), "Failed" | "Succeeded"), "{name} has ended: {pod:?}");
        (phase(&pod) == "Running").then_some(pod)
    })
    .await
}

/// Waits until a pod runs and is Ready.
pub(crate) async fn ready(pods: &Api<Pod>, name: &str) -> Pod {
    runs(pods, name).await;
    eventually(&format!("{name} is Ready"), POD_START, async || {
        Some(pods.get(name).await.expect("there")).filter(is_ready)
    })
    .await
}

/// Waits until there are exactly so many pods that nobody has deleted, and they all run.
pub(crate) async fn all_run(pods: &Api<Pod>, selector: &str, count: usize) -> Vec<Pod> {
    let found = eventually(&format!("{count} pods with {selector}"), POD_START, async || {
        let mut found = selected(pods, selector).await;
        found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        (found.len() == count).then_some(found)
    })
    .await;
    let mut running = Vec::new();
    for pod in found {
        running.push(runs(pods, &pod.name_any()).await);
    }
    running
}

/// Whether a pod is gone or going.
pub(crate) async fn is_going(pods: &Api<Pod>, name: &str) -> bool {
    let pod = pods.get_opt(name).await.expect("an answer");
    pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

/// A pod whose container runs until it is stopped, as the restricted level of pod security wants
/// it.
pub(crate) fn pause_pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": name,
                "image": "registry.example/pause:v1",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    });
    let Value::Object(more) = spec else { panic!("fields of a spec: {spec}") };
    pod["spec"].as_object_mut().expect("a spec").extend(more);
    pod
}

/// Requires a node of this name.
pub(crate) fn on_node(name: &str) -> Value {
    let fields = json!([{"key": "metadata.name", "operator": "In", "values": [name]}]);
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": fields}],
    }}})
}

impl World {
    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// The names of the nodes that are Ready and that everybody may use, in their order.
    ///
    /// Source: `test/e2e/framework/node/resource.go` (`GetReadySchedulableNodes`).
    pub(crate) async fn schedulable_nodes(&self) -> Vec<String> {
        self.cluster.nodes_ready().await;
        eventually("the nodes are schedulable", 10 * MINUTE, async || {
            let nodes = self.nodes().list(&ListParams::default()).await.expect("a list").items;
            let mut names: Vec<_> = nodes
                .iter()
                .filter(|node| is_schedulable(node))
                .map(|node| node.name_any())
                .collect();
            names.sort();
            (names.len() == nodes.len()).then_some(names)
        })
        .await
    }

    /// Sets a node's label; `None` takes it away.
    pub(crate) async fn label_node(&self, node: &str, key: &str, value: Option<&str>) {
        let labels = json!({"metadata": {"labels": {key: value}}});
        let patch = Patch::Merge(labels);
        let patched = self.nodes().patch(node, &PatchParams::default(), &patch).await;
        let labels = patched.expect("it is patched").metadata.labels.unwrap_or_default();
        assert_eq!(labels.get(key).map(String::as_str), value);
    }

    /// Has a node offer a resource that its agent knows nothing of, and waits until it does.
    ///
    /// Source: `test/e2e/framework/node/resource.go` (`AddExtendedResource`).
    pub(crate) async fn add_resource(&self, node: &str, resource: &str, amount: &str) {
        let offered = json!({resource: amount});
        let status = json!({"status": {"capacity": offered, "allocatable": offered}});
        let patch = Patch::Strategic(status);
        let nodes = self.nodes();
        nodes.patch_status(node, &PatchParams::default(), &patch).await.expect("it is patched");
        eventually("the resource is offered", MINUTE / 2, async || {
            let allocatable = nodes.get(node).await.expect("there").status?.allocatable?;
            let offered = Amount::try_from(allocatable.get(resource)?).ok()?;
            (Some(offered) == Amount::try_from(&Quantity(amount.to_owned())).ok()).then_some(())
        })
        .await;
    }
}

fn is_schedulable(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && spec.unschedulable != Some(true) && spec.taints.unwrap_or_default().is_empty()
}
