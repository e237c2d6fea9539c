//! The Node object: registered once, its status kept up.
//!
//! Source: `pkg/kubelet/kubelet_node_status.go`, `pkg/kubelet/nodestatus/setters.go`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
        NodeSpec, NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use orch_core::{ClientError, Resources, clock::to_seconds};

use super::Context;

/// The version that nodes report: Kubernetes' whose behaviour this is, and ours.
const VERSION: &str = concat!("v1.36.0+orch-", env!("CARGO_PKG_VERSION"));
/// So many images are shown in the status.
const IMAGES_MAX: usize = 50;
/// The conditions that the node agent keeps; others may keep more.
const OWN_CONDITIONS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
/// So often a status write that lost against another is tried again.
const WRITE_TRIES: usize = 5;

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn labels(context: &Context) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", context.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    labels.extend(context.options.labels.clone());
    labels
}

/// Leaves attaching volumes to the controller for that, as upstream's kubelet does.
fn annotations() -> BTreeMap<String, String> {
    const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
    BTreeMap::from([(MANAGED.to_owned(), "true".to_owned())])
}

/// Creates the node, or takes over the one of the same name; goes on trying until it is there.
pub(super) async fn register(context: &Context) {
    loop {
        match try_register(context).await {
            Ok(node) => {
                context.events.of_node(&node, "Starting", "Starting kubelet.");
                *context.node.lock() = node;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, node = context.node_name, "not registered yet");
                context.environment.clock.sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn try_register(context: &Context) -> Result<Arc<Node>, ClientError> {
    let nodes = Resources::<Node>::all(context.client.clone());
    let Some(known) = nodes.get_opt(&context.node_name).await? else {
        let taints = context.options.taints.clone();
        let node = Node {
            metadata: ObjectMeta {
                name: Some(context.node_name.clone()),
                labels: Some(labels(context)),
                annotations: Some(annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!taints.is_empty()).then_some(taints),
                ..NodeSpec::default()
            }),
            status: Some(status(context, &Node::default()).await),
        };
        return nodes.create(&node).await;
    };
    let mut node = (*known).clone();
    node.metadata.labels.get_or_insert_default().extend(labels(context));
    node.metadata.annotations.get_or_insert_default().extend(annotations());
    if node == *known {
        return Ok(known);
    }
    nodes.update(&node).await
}

/// Keeps the status up: looked at with every heartbeat, written when it changed or is old.
pub(super) async fn keep_status(context: &Context) {
    let clock = &context.environment.clock;
    let mut written: Option<Timestamp> = None;
    loop {
        let now = clock.now();
        let age = written.and_then(|at| std::time::Duration::try_from(now.duration_since(at)).ok());
        let is_old = age.is_none_or(|age| age >= context.options.status_report);
        match write_status(context, is_old).await {
            Ok(true) => written = Some(now),
            Ok(false) => {}
            Err(error) if error.is_not_found() => register(context).await,
            Err(error) => tracing::debug!(%error, "the node's status was not written"),
        }
        clock.sleep(context.options.heartbeat).await;
    }
}

/// Whether it was written.
async fn write_status(context: &Context, force: bool) -> Result<bool, ClientError> {
    let nodes = Resources::<Node>::all(context.client.clone());
    let mut tries = 1;
    loop {
        let known = read(context).await?;
        let mut status = status(context, &known).await;
        if !force && known.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        beat(&mut status, context.environment.clock.now());
        // Right after the registration there is nothing to say that it did not say.
        if known.status.as_ref() == Some(&status) {
            return Ok(force);
        }
        let node = Node { status: Some(status), ..(*known).clone() };
        match nodes.update_status(&node).await {
            Ok(node) => {
                tell_readiness(context, &known, &node);
                *context.node.lock() = node;
                return Ok(true);
            }
            Err(error) if error.is_conflict() && tries < WRITE_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn tell_readiness(context: &Context, old: &Node, new: &Node) {
    if is_ready(old) != is_ready(new) {
        let reason = if is_ready(new) { "NodeReady" } else { "NodeNotReady" };
        let text = format!("Node {} status is now: {reason}", context.node_name);
        context.events.of_node(new, reason, &text);
    }
}

/// Reads the node, and keeps it as what is known of it.
pub(super) async fn read(context: &Context) -> Result<Arc<Node>, ClientError> {
    let nodes = Resources::<Node>::all(context.client.clone());
    let node = nodes.get(&context.node_name).await?;
    *context.node.lock() = node.clone();
    Ok(node)
}

/// Says of the node's own conditions that they were looked at now.
fn beat(status: &mut NodeStatus, now: Timestamp) {
    for condition in status.conditions.iter_mut().flatten() {
        if OWN_CONDITIONS.contains(&condition.type_.as_str()) {
            condition.last_heartbeat_time = Some(Time(to_seconds(now)));
        }
    }
}

/// The status as it is now, but for the heartbeats: those of conditions that stay are as they were,
/// so that one sees whether anything has changed.
async fn status(context: &Context, known: &Node) -> NodeStatus {
    let old = known.status.clone().unwrap_or_default();
    let options = &context.options;
    let mut addresses = options.addresses.clone();
    if !addresses.iter().any(|a| a.type_ == "Hostname") {
        addresses
            .push(NodeAddress { type_: "Hostname".into(), address: context.node_name.clone() });
    }
    let endpoint = DaemonEndpoint { port: i32::from(options.server_port) };
    // What somebody else says that the node has stays; nothing is reserved of anything.
    let mut capacity = old.capacity.clone().unwrap_or_default();
    capacity.extend(options.machine.capacity.clone());
    NodeStatus {
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(context, &old).await),
        addresses: Some(addresses),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(endpoint) }),
        node_info: Some(node_info(context)),
        images: images(context).await,
        ..old
    }
}

fn node_info(context: &Context) -> NodeSystemInfo {
    let machine = &context.options.machine;
    NodeSystemInfo {
        architecture: arch().into(),
        operating_system: "linux".into(),
        kubelet_version: VERSION.into(),
        kube_proxy_version: String::new(),
        container_runtime_version: format!("{}://{}", context.info.name, context.info.version),
        kernel_version: machine.kernel_version.clone(),
        os_image: machine.os_image.clone(),
        boot_id: machine.boot_id.clone(),
        machine_id: machine.machine_id.clone(),
        system_uuid: machine.machine_id.clone(),
        ..NodeSystemInfo::default()
    }
}

async fn images(context: &Context) -> Option<Vec<ContainerImage>> {
    let mut images = context.runtime.images().await.ok()?;
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    images.truncate(IMAGES_MAX);
    let convert = |image: crate::runtime::ImageInfo| ContainerImage {
        // Zero is not written, so that what is read back would always differ from it.
        size_bytes: i64::try_from(image.size_bytes).ok().filter(|size| *size > 0),
        names: Some(image.digests.into_iter().chain(image.tags).collect()),
    };
    (!images.is_empty()).then(|| images.into_iter().map(convert).collect())
}

async fn conditions(context: &Context, old: &NodeStatus) -> Vec<NodeCondition> {
    let trouble = match context.runtime.info().await {
        Ok(info) => info.not_ready.or(info.network_not_ready),
        Err(error) => Some(("ContainerRuntimeNotReady".into(), error.to_string())),
    };
    let now = context.environment.clock.now();
    let (ready, reason, message) = match &trouble {
        None => ("True", "KubeletReady", "kubelet is posting ready status"),
        Some((reason, message)) => ("False", reason.as_str(), message.as_str()),
    };
    let mut conditions: Vec<_> = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", ready, reason, message),
    ]
    .into_iter()
    .map(|parts| condition(old, parts, now))
    .collect();
    let is_own = |c: &&NodeCondition| OWN_CONDITIONS.contains(&c.type_.as_str());
    conditions.extend(old.conditions.iter().flatten().filter(|c| !is_own(c)).cloned());
    conditions
}

fn condition(
    old: &NodeStatus,
    (type_, status, reason, message): (&str, &str, &str, &str),
    now: Timestamp,
) -> NodeCondition {
    let now = Time(to_seconds(now));
    let before = old.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone());
    let beat = before.and_then(|c| c.last_heartbeat_time.clone());
    NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: beat.or_else(|| Some(now.clone())),
        last_transition_time: since.or(Some(now)),
    }
}
