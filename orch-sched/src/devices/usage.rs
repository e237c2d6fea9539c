//! What is taken of all devices.

use std::collections::HashMap;

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceRequestAllocationResult};

use super::{capacity::Amounts, inventory::Inventory, slice::amount};

/// The devices that an allocation takes, and their places. Access for administrators takes nothing
/// away; a device that no slice has any more does not matter to anybody.
pub(super) fn taken<'a>(
    allocation: &'a AllocationResult,
    inventory: &'a Inventory,
) -> impl Iterator<Item = (u32, &'a DeviceRequestAllocationResult)> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    let results = results.filter(|result| result.admin_access != Some(true));
    results.filter_map(|result| {
        let place = inventory.find(&result.driver, &result.pool, &result.device)?;
        Some((place, result))
    })
}

/// What is taken, by the places of the devices in an inventory.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// By how many claims a device is taken as a whole.
    whole: Vec<u16>,
    /// By how many a device is shared.
    shares: HashMap<u32, u32>,
    /// What they take of it.
    capacity: HashMap<u32, Amounts>,
}

impl Usage {
    pub(super) fn of(places: usize) -> Self {
        Self { whole: vec![0; places], ..Self::default() }
    }

    /// Whether a device is taken as a whole.
    pub(super) fn is_taken(&self, place: u32) -> bool {
        self.whole[place as usize] > 0
    }

    /// Whether anybody has anything of a device.
    pub(super) fn is_used(&self, place: u32) -> bool {
        self.is_taken(place) || self.shares.contains_key(&place)
    }

    /// What is taken of a shared device.
    pub(super) fn capacity(&self, place: u32) -> Option<&Amounts> {
        self.capacity.get(&place)
    }

    /// Whether somebody takes a part of a device's capacity.
    pub(super) fn has_capacity(&self, place: u32) -> bool {
        self.capacity.contains_key(&place)
    }

    /// Counts an allocation in, or out again.
    pub(super) fn count(
        &mut self,
        allocation: &AllocationResult,
        inventory: &Inventory,
        more: bool,
    ) {
        for (place, result) in taken(allocation, inventory) {
            if result.share_id.is_none() {
                let count = &mut self.whole[place as usize];
                *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
                continue;
            }
            let shares = self.shares.entry(place).or_default();
            *shares = if more { *shares + 1 } else { shares.saturating_sub(1) };
            let amounts = self.capacity.entry(place).or_default();
            for (name, taken) in result.consumed_capacity.iter().flatten() {
                let all = amounts.entry(name.clone()).or_default();
                *all = if more { *all + amount(taken) } else { *all - amount(taken) };
            }
            if self.shares[&place] == 0 {
                self.shares.remove(&place);
                self.capacity.remove(&place);
            }
        }
    }
}
