//! What is taken of all devices.

use std::collections::HashMap;

use k8s_openapi::api::resource::v1::AllocationResult;

use super::{capacity::Amounts, inventory::Inventory, slice::amount};

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

    /// Counts an allocation in, or out again. Access for administrators takes nothing away.
    pub(super) fn count(
        &mut self,
        allocation: &AllocationResult,
        inventory: &Inventory,
        more: bool,
    ) {
        let results =
            allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        for result in results.filter(|result| result.admin_access != Some(true)) {
            // A device that no slice has any more does not matter to anybody.
            let place = inventory.find(&result.driver, &result.pool, &result.device);
            let Some(place) = place else { continue };
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
