//! Constraints of pods that have none of their own.
//!
//! Source: `pkg/scheduler/framework/plugins/helper/spread.go`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::{ReplicationController, Service, TopologySpreadConstraint},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference},
};
use orch_core::{
    Key,
    informer::{Informer, Informers},
    selector::Selector,
};

use super::{Constraint, HOSTNAME};
use crate::{error::Fault, plugins::SpreadDefaults, pod_info::PodInfo};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Finds out which pods belong together, and by what they spread.
#[derive(Clone)]
pub(super) struct Defaults {
    constraints: Vec<TopologySpreadConstraint>,
    /// Whether nodes that lack a label are ranked all the same.
    system: bool,
    services: Informer<Service>,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
}

impl fmt::Debug for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Defaults({} constraints)", self.constraints.len())
    }
}

/// Rather over hosts, and a little over zones.
fn system() -> Vec<TopologySpreadConstraint> {
    let constraint = |(key, max_skew): (&str, i32)| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    };
    [(HOSTNAME, 3), (ZONE, 5)].map(constraint).into()
}

impl Defaults {
    pub(super) fn new(informers: &Informers, defaults: SpreadDefaults) -> Self {
        let (system, constraints) = match defaults {
            SpreadDefaults::System => (true, system()),
            SpreadDefaults::List(constraints) => (false, constraints),
        };
        Self {
            constraints,
            system,
            services: informers.of(),
            controllers: informers.of(),
            replica_sets: informers.of(),
            stateful_sets: informers.of(),
        }
    }

    /// Whether nodes that lack a label are ranked all the same.
    pub(super) fn are_systems(&self) -> bool {
        self.system
    }

    /// The constraints of one kind for a pod; none for one that belongs to nothing.
    pub(super) fn of(&self, pod: &PodInfo, when: &str) -> Result<Vec<Constraint>, Fault> {
        let mut wanted = self.constraints.iter().filter(|c| c.when_unsatisfiable == when);
        let mut wanted = wanted.by_ref().peekable();
        if wanted.peek().is_none() {
            return Ok(Vec::new());
        }
        let Some(selector) = self.selector(pod) else { return Ok(Vec::new()) };
        let constraints = wanted.map(|constraint| {
            let constraint = Constraint::new(constraint, pod)?;
            Ok(Constraint { selector: selector.clone(), ..constraint })
        });
        constraints.collect()
    }

    /// The pods that belong to the same services and owner.
    fn selector(&self, pod: &PodInfo) -> Option<Selector> {
        let owner = controller(pod);
        if owner.is_none() && self.services.is_empty() {
            return None;
        }
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for service in self.services.list_in(pod.namespace()) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { continue };
            if selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)) {
                labels.extend(selector.clone());
            }
        }
        let mut more = None;
        if let Some(owner) = owner {
            let key = Key::new(pod.namespace(), owner.name.as_str());
            match (owner.api_version.as_str(), owner.kind.as_str()) {
                ("v1", "ReplicationController") => {
                    let owner = self.controllers.get(&key);
                    let own = owner.and_then(|owner| owner.spec.as_ref()?.selector.clone());
                    labels.extend(own.into_iter().flatten());
                }
                ("apps/v1", "ReplicaSet") => {
                    let owner = self.replica_sets.get(&key);
                    more = owner.and_then(|owner| Some(owner.spec.as_ref()?.selector.clone()));
                }
                ("apps/v1", "StatefulSet") => {
                    let owner = self.stateful_sets.get(&key);
                    more = owner.and_then(|owner| Some(owner.spec.as_ref()?.selector.clone()));
                }
                _ => {}
            }
        }
        let selector = joined(&labels, more.as_ref());
        (!selector.is_everything()).then_some(selector)
    }
}

fn joined(labels: &BTreeMap<String, String>, more: Option<&LabelSelector>) -> Selector {
    let mut requirements = Selector::from_labels(labels).requirements().to_vec();
    if let Some(more) = more
        && let Ok(more) = Selector::from_label_selector(Some(more))
    {
        requirements.extend(more.requirements().to_vec());
    }
    Selector::new(requirements)
}

fn controller(pod: &PodInfo) -> Option<&OwnerReference> {
    let owners = pod.pod().metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}
