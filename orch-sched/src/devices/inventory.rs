//! Everything that drivers offer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::slice::Slice;
use crate::node_info::NodeInfo;

/// A pool by its driver and its name.
pub(super) type PoolId = (Arc<str>, Arc<str>);

/// All slices at one time, with places for their devices. Devices of the same driver, pool and name
/// have one place, in whichever slices and generations they are.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    slices: Vec<Arc<Slice>>,
    /// The places of the devices of each slice.
    places: Vec<Vec<u32>>,
    by_name: HashMap<String, u32>,
    on_node: HashMap<String, Vec<usize>>,
    shared: Vec<usize>,
    by_pool: HashMap<PoolId, Vec<usize>>,
}

/// A device's name among all.
fn whole_name(driver: &str, pool: &str, device: &str) -> String {
    format!("{driver}/{pool}/{device}")
}

impl Inventory {
    pub(super) fn of(slices: &BTreeMap<String, Arc<Slice>>) -> Self {
        let mut inventory = Self { slices: slices.values().cloned().collect(), ..Self::default() };
        for (at, slice) in slices.values().enumerate() {
            match slice.node() {
                Some(node) => inventory.on_node.entry(node.to_owned()).or_default().push(at),
                None => inventory.shared.push(at),
            }
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
        inventory
    }

    pub(super) fn slice(&self, at: usize) -> &Arc<Slice> {
        &self.slices[at]
    }

    /// The slices that a node needs to look at.
    pub(super) fn concerning<'s>(&'s self, node: &'s NodeInfo) -> impl Iterator<Item = usize> + 's {
        let own = self.on_node.get(&**node.name()).into_iter().flatten();
        let shared = self.shared.iter().filter(|at| self.slices[**at].concerns(node));
        own.chain(shared).copied()
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
