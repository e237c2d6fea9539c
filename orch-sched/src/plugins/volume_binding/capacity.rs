//! Where volumes can still be made.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, TopologySelectorTerm},
    storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass},
};
use orch_core::{
    Key,
    informer::{Informer, Informers},
    quantity::Amount,
    selector::Selector,
};

use super::storage;
use crate::node_info::NodeInfo;

/// Looks up what drivers say about the space that they have.
#[derive(Clone, Debug)]
pub(super) struct StorageCapacity {
    drivers: Informer<CSIDriver>,
    capacities: Informer<CSIStorageCapacity>,
}

/// Where a volume can be made for one claim, as one cycle sees it.
#[derive(Clone, Debug)]
pub(super) struct Provision {
    /// The class's own limits, of which one must hold; none is no limit.
    topologies: Vec<TopologySelectorTerm>,
    /// The nodes that reach space enough; `None` is all.
    space: Option<Vec<Selector>>,
}

impl StorageCapacity {
    pub(super) fn new(informers: &Informers) -> Self {
        Self { drivers: informers.of(), capacities: informers.of() }
    }

    /// Where a volume of this class can be made for a claim.
    pub(super) fn provision(
        &self,
        class: &Arc<StorageClass>,
        claim: &PersistentVolumeClaim,
    ) -> Provision {
        let topologies = class.allowed_topologies.clone().unwrap_or_default();
        Provision { topologies, space: self.space(class, claim) }
    }

    /// A driver that does not publish its capacity is taken to have enough.
    fn space(&self, class: &StorageClass, claim: &PersistentVolumeClaim) -> Option<Vec<Selector>> {
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref();
        let wants = requests.filter(|requests| requests.contains_key("storage"))?;
        let driver = self.drivers.get(&Key::cluster(class.provisioner.as_str()))?;
        driver.spec.storage_capacity.filter(|publishes| *publishes)?;
        let wants = storage(Some(wants));
        let enough = |capacity: &Arc<CSIStorageCapacity>| {
            let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
            let limit: Amount = limit.0.parse().ok()?;
            let own = Some(&capacity.storage_class_name) == class.metadata.name.as_ref();
            let topology = capacity.node_topology.as_ref().filter(|_| own && limit >= wants)?;
            Selector::from_label_selector(Some(topology)).ok()
        };
        Some(self.capacities.list().iter().filter_map(enough).collect())
    }
}

impl Provision {
    /// Whether space is counted.
    pub(super) fn has_limits(&self) -> bool {
        self.space.is_some()
    }

    /// What [`Provision::reaches`] depends on, apart from the node.
    pub(super) fn reach(&self) -> Vec<Vec<(&str, &[String])>> {
        let terms =
            self.topologies.iter().map(|term| term.match_label_expressions.iter().flatten());
        let conditions =
            terms.map(|all| all.map(|one| (one.key.as_str(), one.values.as_slice())).collect());
        conditions.collect()
    }

    /// Whether the class allows volumes there.
    pub(super) fn reaches(&self, node: &NodeInfo) -> bool {
        let holds = |term: &TopologySelectorTerm| {
            // A term without conditions holds nowhere.
            let mut all = term.match_label_expressions.iter().flatten().peekable();
            all.peek().is_some()
                && all.all(|one| {
                    node.label(&one.key).is_some_and(|v| one.values.iter().any(|w| w == v))
                })
        };
        self.topologies.is_empty() || self.topologies.iter().any(holds)
    }

    /// Whether there is space there.
    pub(super) fn has_space(&self, node: &NodeInfo) -> bool {
        let space = self.space.as_ref();
        space.is_none_or(|space| space.iter().any(|reach| reach.matches(node.labels())))
    }
}
