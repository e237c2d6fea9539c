//! Everything that drivers offer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::{
    pools::{self, Pool},
    slice::Slice,
};
use crate::node_info::NodeInfo;

/// A pool by its driver and its name.
pub(super) type PoolId = (Arc<str>, Arc<str>);

/// All slices at one time, with places for their devices. Devices of the same driver, pool and name
/// have one place, in whichever slices and generations they are.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// No two of a process have the same.
    pub(super) number: u64,
    slices: Vec<Arc<Slice>>,
    /// The places of the devices of each slice.
    places: Vec<Vec<u32>>,
    by_name: HashMap<String, u32>,
    /// The one node that can reach a place, if there is but one.
    homes: Vec<Option<Arc<str>>>,
    on_node: HashMap<String, Vec<usize>>,
    /// Slices that several nodes may need, together with those that the same nodes need.
    shared: Vec<Vec<usize>>,
    /// Whether a node may need a part of a slice.
    in_parts: bool,
    by_pool: HashMap<PoolId, Vec<usize>>,
    /// The pools of nodes that need the same slices.
    gathered: Mutex<HashMap<View, Arc<[Pool]>>>,
}

/// Which of the shared slices a node needs: whether each group of them. Nodes without slices of
/// their own that have the same view reach the same devices.
pub(super) type View = Vec<bool>;

/// A device's name among all.
fn whole_name(driver: &str, pool: &str, device: &str) -> String {
    format!("{driver}/{pool}/{device}")
}

impl Inventory {
    pub(super) fn of(slices: &BTreeMap<String, Arc<Slice>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut inventory = Self {
            number: NEXT.fetch_add(1, Relaxed),
            slices: slices.values().cloned().collect(),
            ..Self::default()
        };
        let mut shared: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, slice) in slices.values().enumerate() {
            match slice.node() {
                Some(node) => inventory.on_node.entry(node.to_owned()).or_default().push(at),
                None => shared.entry(slice.reach()).or_default().push(at),
            }
            inventory.in_parts |= slice.is_per_device();
            let id = (slice.driver.clone(), slice.pool.clone());
            inventory.by_pool.entry(id).or_default().push(at);
            let places = slice.devices.iter().map(|device| {
                let name = whole_name(&slice.driver, &slice.pool, &device.name);
                let next = inventory.by_name.len() as u32;
                *inventory.by_name.entry(name).or_insert(next)
            });
            let places = places.collect();
            inventory.places.push(places);
        }
        inventory.shared = shared.into_values().collect();
        inventory.find_homes();
        inventory
    }

    /// A pool whose slices are all about one node is that node's alone. Devices of another pool may
    /// take of counters that several nodes share.
    fn find_homes(&mut self) {
        self.homes = vec![None; self.by_name.len()];
        for slices in self.by_pool.values() {
            let mut names = slices.iter().map(|at| self.slices[*at].home());
            let Some(Some(first)) = names.next() else { continue };
            if !names.all(|name| name == Some(first)) {
                continue;
            }
            let home: Arc<str> = first.into();
            for place in slices.iter().flat_map(|at| &self.places[*at]) {
                self.homes[*place as usize] = Some(home.clone());
            }
        }
    }

    /// The one node that can reach a place; `None` if several may.
    pub(super) fn home(&self, place: u32) -> Option<&Arc<str>> {
        self.homes[place as usize].as_ref()
    }

    pub(super) fn slice(&self, at: usize) -> &Arc<Slice> {
        &self.slices[at]
    }

    fn concerns(&self, group: &[usize], node: &NodeInfo) -> bool {
        group.first().is_some_and(|first| self.slices[*first].concerns(node))
    }

    /// The slices that a node needs to look at: its own, then shared ones by name.
    pub(super) fn concerning(&self, node: &NodeInfo) -> Vec<usize> {
        let groups = self.shared.iter().filter(|group| self.concerns(group, node));
        let mut shared: Vec<usize> = groups.flatten().copied().collect();
        shared.sort_unstable();
        let own = self.on_node.get(&**node.name()).into_iter().flatten();
        own.copied().chain(shared).collect()
    }

    /// What a node has in common with others; `None` if it has devices of its own.
    pub(super) fn view(&self, node: &NodeInfo) -> Option<View> {
        let alone = self.in_parts || self.on_node.contains_key(&**node.name());
        (!alone).then(|| self.shared.iter().map(|group| self.concerns(group, node)).collect())
    }

    /// The pools that a node can reach, as by [`pools::gather`].
    pub(super) fn pools(&self, node: &NodeInfo, view: Option<&View>) -> Arc<[Pool]> {
        let Some(view) = view else { return pools::gather(self, node).into() };
        let known = self.gathered.lock().get(view).cloned();
        known.unwrap_or_else(|| {
            let pools: Arc<[Pool]> = pools::gather(self, node).into();
            self.gathered.lock().insert(view.clone(), pools.clone());
            pools
        })
    }

    /// All slices of a pool.
    pub(super) fn pool(&self, id: &PoolId) -> &[usize] {
        self.by_pool.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn place(&self, slice: usize, device: usize) -> u32 {
        self.places[slice][device]
    }

    /// The place of a device, if any slice has it.
    pub(super) fn find(&self, driver: &str, pool: &str, device: &str) -> Option<u32> {
        self.by_name.get(&whole_name(driver, pool, device)).copied()
    }
}
