//! Finds devices for the claims of a pod, node by node.
//!
//! Source: `structured/internal/incubating/allocator_incubating.go`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::clock::Clock;
use parking_lot::Mutex;

use super::{
    counters::Left,
    inventory::{Inventory, PoolId, View},
    ledger::Devices,
    pools::{State, counter_sets},
    request::{FindClass, Wanted},
    results::Solution,
    search::Search,
    selectors::Selectors,
    usage::Usage,
};
use crate::node_info::NodeInfo;

/// The most devices that one claim can have.
pub(super) const RESULTS_MAX: usize = 32;

/// Why nobody can say whether there are devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Something is wrong with a claim or a class, which is so on every node.
    Fault(String),
    /// The search took too long.
    TimedOut,
    /// There are none on this node, but what a driver tells contradicts itself.
    InvalidPools,
}

/// How long a search may take, and by which clock.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) clock: Arc<dyn Clock>,
    /// `None` is for ever.
    pub(crate) timeout: Option<Duration>,
}

/// Finds devices for some claims, on any node of the cluster as it is now.
#[derive(Debug)]
pub(crate) struct Allocator {
    pub(super) devices: Arc<Devices>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) usage: Arc<Usage>,
    wanted: Result<Vec<Wanted>, String>,
    /// What is left of the counters of pools, as far as somebody asked.
    left: Mutex<HashMap<PoolId, Left>>,
    /// What was found on nodes that reach the same devices.
    found: Mutex<HashMap<View, Option<Solution>>>,
    pub(super) patience: Patience,
}

impl Allocator {
    pub(super) fn new(
        devices: Arc<Devices>,
        (inventory, usage): (Arc<Inventory>, Arc<Usage>),
        claims: &[Arc<ResourceClaim>],
        find: FindClass<'_>,
        patience: Patience,
    ) -> Self {
        let wanted = claims.iter().map(|claim| Wanted::read(claim, find)).collect();
        let (left, found) = Default::default();
        Self { devices, inventory, usage, wanted, left, found, patience }
    }

    /// The same for other claims, with the devices as they were.
    pub(crate) fn for_claims(&self, claims: &[Arc<ResourceClaim>]) -> Self {
        let now = (self.inventory.clone(), self.usage.clone());
        let (devices, patience) = (self.devices.clone(), self.patience.clone());
        Self::new(devices, now, claims, &|name| self.devices.class(name), patience)
    }

    pub(super) fn selectors(&self) -> &Selectors {
        self.devices.selectors()
    }

    /// The claims, worked out.
    pub(super) fn wanted(&self) -> Result<&[Wanted], Stop> {
        self.wanted.as_deref().map_err(|words| Stop::Fault(words.clone()))
    }

    /// Devices for all claims on a node, the first that are found; `None` if there are none. The
    /// same cluster gives the same devices.
    pub(crate) fn allocate(&self, node: &NodeInfo) -> Result<Option<Solution>, Stop> {
        let wanted = self.wanted()?;
        let view = self.inventory.view(node);
        let alike = view.filter(|_| self.inventory.is_like_others(node));
        let known = alike.and_then(|view| self.found.lock().get(&view).cloned());
        if let Some(found) = known {
            return Ok(found);
        }
        let pools = self.inventory.pools(node, view);
        let is_invalid = pools.iter().any(|pool| pool.state == State::Invalid);
        let found = Search::new(self, wanted, node, pools)?.run()?;
        if found.is_none() && is_invalid {
            return Err(Stop::InvalidPools);
        }
        if let Some(view) = alike {
            self.found.lock().insert(view, found.clone());
        }
        Ok(found)
    }

    /// What is left of a pool's counters before the search.
    pub(super) fn left(&self, id: &PoolId) -> Left {
        let mut left = self.left.lock();
        if let Some(found) = left.get(id) {
            return found.clone();
        }
        let pool = self.inventory.pool(id);
        let sets = counter_sets(&self.inventory, pool);
        let newest = pool.iter().map(|at| self.inventory.slice(*at).generation).max();
        let own = pool.iter().filter(|at| Some(self.inventory.slice(**at).generation) == newest);
        let taken = own.flat_map(|at| {
            let devices = self.inventory.slice(*at).devices.iter().enumerate();
            let used = devices
                .filter(move |(device, _)| self.usage.is_used(self.inventory.place(*at, *device)));
            used.flat_map(|(_, device)| &device.counters)
        });
        let new = Left::of(sets, taken);
        left.insert(id.clone(), new.clone());
        new
    }
}
