//! The pools whose devices a node can reach.
//!
//! Source: `structured/internal/incubating/pools_incubating.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    counters::Sets,
    inventory::{Inventory, PoolId},
    slice::Slice,
};

/// A pool, as far as a node is concerned.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) id: PoolId,
    pub(super) state: State,
    /// The slices with devices for the node, by name.
    pub(super) slices: Vec<usize>,
    /// Whether some of its devices have to be made ready first.
    late: bool,
}

impl Pool {
    /// Where it stands among others: by driver and name, and those whose devices have to be made
    /// ready first come last.
    pub(super) fn place(&self) -> (bool, &PoolId) {
        (self.late, &self.id)
    }
}

/// Whether devices of a pool can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// They can.
    Usable,
    /// The driver has not told of all of it yet.
    Incomplete,
    /// What the driver tells contradicts itself.
    Invalid,
}

/// The pools of some slices, in the order of [`Pool::place`].
pub(super) fn gather(
    inventory: &Inventory,
    slices: impl IntoIterator<Item = usize>,
) -> Vec<Arc<Pool>> {
    let mut found: BTreeMap<PoolId, Vec<usize>> = BTreeMap::new();
    for at in slices {
        let slice = inventory.slice(at);
        let own = found.entry((slice.driver.clone(), slice.pool.clone())).or_default();
        let newest = own.first().map(|first| inventory.slice(*first).generation);
        match newest {
            Some(newest) if slice.generation < newest => {}
            Some(newest) if slice.generation > newest => *own = vec![at],
            _ => own.push(at),
        }
    }
    let pools = found.into_iter().filter_map(|(id, slices)| read(inventory, id, slices));
    let mut pools: Vec<Arc<Pool>> = pools.map(Arc::new).collect();
    pools.sort_by_key(|pool| pool.late);
    pools
}

/// The pool of these slices; `None` if a newer generation of it has nothing for the node.
fn read(inventory: &Inventory, id: PoolId, mut slices: Vec<usize>) -> Option<Pool> {
    let first = inventory.slice(*slices.first()?).clone();
    let is_whole = |slices: &[usize]| slices.len() as i64 == first.of;
    let mut all = slices.clone();
    if !is_whole(&slices) {
        let others = inventory.pool(&id).iter();
        let generation = |at: &usize| inventory.slice(*at).generation;
        if others.clone().any(|at| generation(at) > first.generation) {
            return None;
        }
        all = others.filter(|at| generation(at) == first.generation).copied().collect();
        if !is_whole(&all) {
            return Some(Pool { id, state: State::Incomplete, slices: Vec::new(), late: false });
        }
    }
    slices.retain(|at| inventory.slice(*at).counter_sets.is_empty());
    slices.sort_by(|a, b| inventory.slice(*a).name.cmp(&inventory.slice(*b).name));
    let own: Vec<&Slice> = slices.iter().map(|at| &**inventory.slice(*at)).collect();
    let whole: Vec<&Slice> = all.iter().map(|at| &**inventory.slice(*at)).collect();
    if is_valid(&own, &whole) {
        let late = own.iter().any(|slice| slice.has_binding_conditions);
        Some(Pool { id, state: State::Usable, slices, late })
    } else {
        Some(Pool { id, state: State::Invalid, slices: Vec::new(), late: false })
    }
}

/// Whether names are unique, and counters known that devices take part of.
fn is_valid(own: &[&Slice], whole: &[&Slice]) -> bool {
    let mut names = BTreeSet::new();
    let mut devices = own.iter().flat_map(|slice| &slice.devices);
    if !devices.all(|device| names.insert(device.name.as_str())) {
        return false;
    }
    let mut sets = BTreeMap::new();
    for (name, counters) in whole.iter().flat_map(|slice| &slice.counter_sets) {
        if sets.insert(name, counters).is_some() {
            return false;
        }
    }
    let mut taken = whole.iter().flat_map(|slice| &slice.devices).flat_map(|one| &one.counters);
    taken.all(|(set, counters)| {
        sets.get(set).is_some_and(|known| counters.keys().all(|name| known.contains_key(name)))
    })
}

/// The counters of a pool's newest generation.
pub(super) fn counter_sets(inventory: &Inventory, pool: &[usize]) -> Sets {
    let newest = pool.iter().map(|at| inventory.slice(*at).generation).max();
    let slices = pool.iter().map(|at| inventory.slice(*at));
    let slices = slices.filter(|slice| Some(slice.generation) == newest);
    slices.flat_map(|slice| slice.counter_sets.iter().cloned()).collect()
}
