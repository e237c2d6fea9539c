//! A driver that tells of devices, the controllers that claims need, and claims that are allocated
//! before any pod comes.
//!
//! Source: `test/integration/scheduler_perf/dra.go`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::{ResourceClaim, ResourceSlice},
};
use orch_controllers::{
    Manager,
    standard::{StandardOptions, standard},
};
use orch_core::{
    ResourceType, Resources, client::ListOptions, informer::Informers, random::Random,
};
use orch_sched::{DeviceAllocator, NodeInfo};
use serde_json::{Value, json};
use tokio::time::interval;

use crate::{Error, objects::Objects};

/// How often those who wait for slices look.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The controllers that make claims, take them back, and remove those of pods that are gone.
pub(crate) fn controllers(informers: &Informers) -> Result<Manager, Error> {
    let types = vec![ResourceType::of::<Pod>(), ResourceType::of::<ResourceClaim>()];
    let mut options = StandardOptions::new(types);
    options.controllers =
        ["resourceclaim-controller", "garbage-collector-controller"].map(str::to_owned).into();
    let mut manager = Manager::new();
    manager.extend(standard(informers, &options)?);
    Ok(manager)
}

/// One node's devices.
fn slice(driver: &str, node: &str, count: u64) -> Value {
    let device = |n: u64| {
        json!({
            "name": format!("instance-{n}"),
            "attributes": {
                "model": {"string": "A100"}, "family": {"string": "GPU"},
                "driverVersion": {"version": "1.2.3"}, "dra.example.com/numa": {"int": n},
            },
            "capacity": {"memory": {"value": "1Gi"}},
        })
    };
    json!({
        "kind": "ResourceSlice", "apiVersion": "resource.k8s.io/v1",
        "metadata": {"name": node},
        "spec": {
            "driver": driver, "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": (0..count).map(device).collect::<Vec<_>>(),
        },
    })
}

/// Whether a name is of a pattern in which `*` stands for anything.
fn is_of(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            let rest = name.strip_prefix(before);
            rest.is_some_and(|rest| (0..=rest.len()).any(|at| is_of(after, &rest[at..])))
        }
    }
}

/// Publishes the devices of nodes, and waits until the scheduler has seen them. Gives how many
/// nodes.
pub(crate) async fn publish(
    objects: &Objects,
    seen: &Informers,
    (driver, nodes, per_node): (&str, &str, u64),
) -> Result<usize, Error> {
    let all: Resources<Node> = Resources::all(objects.client().clone());
    let all = all.list(ListOptions::default()).await?;
    let names = all.iter().filter_map(|node| node.metadata.name.as_deref());
    let names: Vec<&str> = names.filter(|name| is_of(nodes, name)).collect();
    let slices = seen.of::<ResourceSlice>();
    let expected = slices.len() + names.len();
    for name in &names {
        objects.any(None, slice(driver, name, per_node)).await?;
    }
    let mut looks = interval(LOOK_EVERY);
    while slices.len() < expected {
        looks.tick().await;
    }
    Ok(names.len())
}

/// Allocates all claims of a namespace, each on any node.
pub(crate) async fn allocate(
    objects: &Objects,
    informers: &Informers,
    namespace: Option<&str>,
) -> Result<(), Error> {
    let claims: Resources<ResourceClaim> =
        Resources::namespaced(objects.client().clone(), namespace.unwrap_or_default());
    let nodes: Resources<Node> = Resources::all(objects.client().clone());
    let nodes = nodes.list(ListOptions::default()).await?;
    let mut nodes: Vec<NodeInfo> = nodes.into_iter().map(|node| NodeInfo::new(node, [])).collect();
    let allocator = DeviceAllocator::new(informers);
    allocator.synced().await;
    for claim in claims.list(ListOptions::default()).await? {
        if claim.status.as_ref().is_some_and(|status| status.allocation.is_some()) {
            continue;
        }
        shuffle(&mut nodes, &*informers.environment().random);
        let mut found = None;
        for node in &nodes {
            found = allocator
                .allocate(std::slice::from_ref(&claim), node)?
                .and_then(|mut all| all.pop());
            if found.is_some() {
                break;
            }
        }
        let name = claim.metadata.name.clone().unwrap_or_default();
        let allocation = found.ok_or_else(|| format!("there is no device for claim {name}"))?;
        let mut claim = Arc::unwrap_or_clone(claim);
        claim.status.get_or_insert_default().allocation = Some(allocation);
        allocator.assume(&claims.update_status(&claim).await?);
    }
    Ok(())
}

fn shuffle<T>(items: &mut [T], random: &dyn Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}
