//! DaemonSets: one pod on every node that suits.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use orch_core::owner::controller_of;

use super::{
    quotas::is_full,
    replica_sets::{by_workloads, is_active, is_ready},
};
use crate::sim::{Invariant, Step, View};

/// A DaemonSet never creates a pod for a node that has one of its pods, except a second one where
/// an update surges; and in the end every node that suits has exactly one, and it is Ready. Nodes
/// suit whose taints are all of kinds that every DaemonSet tolerates; sets that choose nodes are
/// not looked at in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnePodPerNode {
    _private: (),
}

impl OnePodPerNode {
    /// The invariant.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The node that a pod is on, or is meant for.
fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter());
    let name = fields.flatten().find(|field| field.key == "metadata.name")?;
    name.values.as_ref()?.first().map(String::as_str)
}

fn surges(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    match rolling.and_then(|rolling| rolling.max_surge.as_ref()) {
        Some(IntOrString::Int(surge)) => *surge > 0,
        Some(IntOrString::String(surge)) => surge != "0%" && surge != "0",
        None => false,
    }
}

fn check(pod: &Pod, view: &View) -> Result<(), String> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "DaemonSet");
    let (Some(owner), Some(node)) = (owner, node_of(pod)) else { return Ok(()) };
    let set = view.by_uid(&owner.uid).and_then(|object| object.decode::<DaemonSet>().ok());
    let Some(set) = set else { return Ok(()) };
    let there: Vec<Arc<Pod>> = view.controlled_by::<Pod>(&owner.uid);
    let others = there.iter().filter(|other| {
        node_of(other) == Some(node)
            && other.metadata.uid != pod.metadata.uid
            && (is_active(other) || !surges(&set))
    });
    let (others, most) = (others.count(), usize::from(surges(&set)));
    if others <= most {
        return Ok(());
    }
    Err(format!("DaemonSet {} has {others} more pods on {node}", owner.name))
}

fn suits(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect != "PreferNoSchedule").all(|taint| {
        taint.key.starts_with("node.kubernetes.io/")
            && taint.key != "node.kubernetes.io/out-of-service"
    })
}

impl Invariant for OnePodPerNode {
    fn name(&self) -> &str {
        "DaemonSets have one pod on each node"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        if !by_workloads(step) {
            return Ok(());
        }
        let created = step.changes.iter().filter_map(|change| change.created::<Pod>());
        created.into_iter().try_for_each(|pod| check(&pod, step.view))
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        let nodes = view.list::<Node>();
        for set in view.list::<DaemonSet>() {
            let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            if spec.is_some_and(|spec| spec.node_selector.is_some() || spec.affinity.is_some()) {
                continue;
            }
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let pods = view.controlled_by::<Pod>(uid);
            for node in &nodes {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let on = |pod: &&Arc<Pod>| node_of(pod) == Some(name);
                let here: Vec<_> = pods.iter().filter(on).collect();
                let ready = here.iter().filter(|pod| is_ready(pod)).count();
                let wanted = usize::from(suits(node));
                let waits = || here.is_empty() && is_full(set.metadata.namespace.as_deref(), view);
                // Taints without effect on what runs let it stay.
                if here.len() > 1 || (wanted == 1 && ready != 1 && !waits()) {
                    let (set, count) = (set.metadata.name.as_deref(), here.len());
                    return Err(format!("{set:?} has {count} pods on {name}, {ready} ready"));
                }
            }
        }
        Ok(())
    }
}
