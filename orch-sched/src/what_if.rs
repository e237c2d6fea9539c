//! What would happen if.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;

use crate::{
    planner::{PlanError, Planner},
    pod_info::PodInfo,
};

/// What happens to the cluster, in this order.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// These nodes are drained: their pods go elsewhere, except those of DaemonSets and static pods,
    /// which go with the node.
    pub drain: Vec<String>,
    /// These nodes come, or change.
    pub add_nodes: Vec<Arc<Node>>,
    /// These pods come.
    pub add_pods: Vec<Arc<Pod>>,
    /// As many pods like this one come as fit,
    pub fill_with: Option<Arc<Pod>>,
    /// but no more than these; `None` is no limit but the cluster.
    pub fill_max: Option<u64>,
}

/// A pod that has a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedPod {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// The drained node that it was on.
    pub from: Option<String>,
    /// The node that it gets.
    pub node: String,
}

/// A pod that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnplacedPod {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// The drained node that it was on.
    pub from: Option<String>,
    /// Why, in the words that users read.
    pub message: String,
}

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The pods that were moved or came and have a place, the most important first.
    pub placed: Vec<PlacedPod>,
    /// Those that have none.
    pub unplaced: Vec<UnplacedPod>,
    /// How many pods like the given one fitted, by node.
    pub filled: BTreeMap<String, u64>,
    /// How many these are altogether.
    pub filled_total: u64,
    /// Why no further one fitted; `None` if none was tried.
    pub full: Option<String>,
}

/// The pod as if it were new.
fn anew(pod: &Pod, name: Option<&str>) -> Arc<PodInfo> {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
    }
    if let Some(status) = &mut pod.status {
        status.nominated_node_name = None;
    }
    pod.metadata.deletion_timestamp = None;
    if let Some(name) = name {
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(name.to_owned());
    }
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// Whether a pod is bound to its node: it does not move.
fn stays_with_node(pod: &Pod) -> bool {
    let mirror = pod.metadata.annotations.as_ref();
    let mirror = mirror.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
    let owners = pod.metadata.owner_references.iter().flatten();
    mirror || owners.into_iter().any(|o| o.controller == Some(true) && o.kind == "DaemonSet")
}

impl Planner {
    /// What would happen if the cluster changed so, on a fork: nothing changes here. Pods are placed
    /// one after the other, by priority; nobody is preempted.
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails.
    pub fn what_if(&mut self, changes: &Changes) -> Result<Outcome, PlanError> {
        let mut fork = self.fork();
        let mut outcome = Outcome::default();
        let mut moving: Vec<(Arc<PodInfo>, Option<String>)> = Vec::new();
        for node in &changes.drain {
            for pod in fork.take_node(node) {
                if !stays_with_node(pod.pod()) {
                    moving.push((anew(pod.pod(), None), Some(node.clone())));
                }
            }
        }
        changes.add_nodes.iter().for_each(|node| fork.set_node(node.clone()));
        let coming = changes.add_pods.iter().map(|pod| (anew(pod, None), None));
        moving.extend(coming);
        moving.sort_by_key(|(pod, _)| std::cmp::Reverse(pod.priority()));
        for (info, from) in moving {
            let pod = info.key().to_string();
            match fork.place(info) {
                Ok(node) => outcome.placed.push(PlacedPod { pod, from, node: node.to_string() }),
                Err(PlanError::Unschedulable(why)) => {
                    outcome.unplaced.push(UnplacedPod { pod, from, message: why.to_string() });
                }
                Err(fault) => return Err(fault),
            }
        }
        if let Some(pod) = &changes.fill_with {
            fork.fill(pod, changes.fill_max, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn fill(
        &mut self,
        pod: &Pod,
        max: Option<u64>,
        outcome: &mut Outcome,
    ) -> Result<(), PlanError> {
        while max.is_none_or(|max| outcome.filled_total < max) {
            let name = format!("what-if-{}", outcome.filled_total);
            match self.place(anew(pod, Some(&name))) {
                Ok(node) => {
                    *outcome.filled.entry(node.to_string()).or_default() += 1;
                    outcome.filled_total += 1;
                }
                Err(PlanError::Unschedulable(why)) => {
                    outcome.full = Some(why.to_string());
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}
