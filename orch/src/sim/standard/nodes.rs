//! Nodes and what is placed on them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{Key, quantity::Amount};

use super::replica_sets::is_over;
use crate::sim::{Invariant, Step, View};

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// A pod is placed once, on a node that has room for it beside the others; and who has succeeded
/// or failed has done so for ever.
#[derive(Clone, Copy, Debug)]
pub struct NodesAreNotOverbooked;

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn milli(quantities: Option<&BTreeMap<String, Quantity>>, resource: &str) -> i128 {
    let amount = quantities.and_then(|all| all.get(resource)).map(Amount::try_from);
    amount.and_then(Result::ok).map_or(0, |amount| i128::from(amount.milli_value()))
}

fn requested(pod: &Pod, resource: &str) -> i128 {
    let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter());
    let requests = containers.map(|container| container.resources.as_ref());
    requests.map(|r| milli(r.and_then(|r| r.requests.as_ref()), resource)).sum()
}

fn fits(name: &str, view: &View) -> Result<(), String> {
    let Some(node) = view.get::<Node>(&Key::cluster(name)) else { return Ok(()) };
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let pods = view.list::<Pod>();
    let here: Vec<_> =
        pods.iter().filter(|pod| node_of(pod) == Some(name) && !is_over(pod)).collect();
    for resource in RESOURCES {
        let used: i128 = here.iter().map(|pod| requested(pod, resource)).sum();
        let most = milli(allocatable, resource);
        if used > most {
            return Err(format!("{name} has {most} milli of {resource}, {used} are booked"));
        }
    }
    let most = milli(allocatable, "pods") / 1000;
    if here.len() as i128 > most {
        return Err(format!("{name} takes {most} pods and has {}", here.len()));
    }
    Ok(())
}

impl Invariant for NodesAreNotOverbooked {
    fn name(&self) -> &str {
        "pods are placed once, where there is room"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        for change in step.changes {
            let Some((old, new)) = change.updated::<Pod>() else { continue };
            let key = Key::of(&new.metadata);
            match (node_of(&old), node_of(&new)) {
                (None, Some(node)) => fits(node, step.view)?,
                (Some(before), after) if after != Some(before) => {
                    return Err(format!("pod {key} moved from {before} to {after:?}"));
                }
                _ => {}
            }
            if old.metadata.uid == new.metadata.uid && is_over(&old) && !is_over(&new) {
                return Err(format!("pod {key} was over and is not any more"));
            }
        }
        Ok(())
    }
}
