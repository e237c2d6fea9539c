//! Everything that drivers offer.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    /// Nodes that share a pool of which they have slices of their own.
    split: HashSet<String>,
    /// The pools of the shared slices that a node needs.
    gathered: Mutex<HashMap<View, Pools>>,
}

/// Which of the shared slices a node needs: a bit for each group of them. Nodes without slices of
/// their own that have the same view reach the same devices.
pub(super) type View = u64;

/// For how many views the pools are remembered.
const VIEWS_MAX: usize = 1024;

/// The pools that a node can reach, in the order of [`Pool::place`].
pub(super) type Pools = Arc<[Arc<Pool>]>;

/// The slices of some groups, which are numbered by their names.
fn by_name<'g>(groups: impl Iterator<Item = &'g Vec<usize>>) -> Vec<usize> {
    let mut slices: Vec<usize> = groups.flatten().copied().collect();
    slices.sort_unstable();
    slices
}

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
        inventory.find_split();
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

    /// A node whose pool has slices of others cannot add it to what they gather.
    fn find_split(&mut self) {
        for slices in self.by_pool.values() {
            let nodes = || slices.iter().map(|at| self.slices[*at].node());
            if nodes().any(|node| Some(node) != nodes().next()) {
                self.split.extend(nodes().flatten().map(str::to_owned));
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

    /// The slices that only this node needs.
    fn own(&self, node: &NodeInfo) -> &[usize] {
        self.on_node.get(&**node.name()).map(Vec::as_slice).unwrap_or_default()
    }

    /// What a node has in common with others; `None` where it takes as long to tell as to look.
    pub(super) fn view(&self, node: &NodeInfo) -> Option<View> {
        if self.in_parts || self.shared.len() > View::BITS as usize {
            return None;
        }
        let groups = self.shared.iter().enumerate();
        let needed = groups.filter(|(_, group)| self.concerns(group, node));
        Some(needed.fold(0, |view, (at, _)| view | 1 << at))
    }

    /// Whether a node reaches what all nodes with its view do, and nothing else.
    pub(super) fn is_like_others(&self, node: &NodeInfo) -> bool {
        self.own(node).is_empty()
    }

    /// The slices that a node needs to look at: its own, then shared ones by name.
    pub(super) fn concerning(&self, node: &NodeInfo) -> impl Iterator<Item = usize> + '_ {
        let groups = self.shared.iter().filter(|group| self.concerns(group, node));
        self.own(node).iter().copied().chain(by_name(groups))
    }

    /// The pools that a node can reach.
    pub(super) fn pools(&self, node: &NodeInfo, view: Option<View>) -> Pools {
        let own = self.own(node);
        let Some(view) = view.filter(|_| !self.split.contains(&**node.name())) else {
            return pools::gather(self, self.concerning(node)).into();
        };
        let known = self.gathered.lock().get(&view).cloned();
        let shared = known.unwrap_or_else(|| {
            let groups = self.shared.iter().enumerate().filter(|(at, _)| view & (1 << at) != 0);
            let slices = by_name(groups.map(|(_, group)| group));
            let pools: Pools = pools::gather(self, slices).into();
            let mut gathered = self.gathered.lock();
            if gathered.len() >= VIEWS_MAX {
                gathered.clear();
            }
            gathered.insert(view, pools.clone());
            pools
        });
        if own.is_empty() {
            return shared;
        }
        let mut pools = pools::gather(self, own.iter().copied());
        pools.extend(shared.iter().cloned());
        pools.sort_by(|a, b| a.place().cmp(&b.place()));
        pools.into()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, pool: &str, place: &serde_json::Value, late: bool) -> Arc<Slice> {
        let device = json!({"name": name, "bindingConditions": late.then_some(["ready"])});
        let mut slice = json!({
            "metadata": {"name": name},
            "spec": {"driver": "d", "pool": {"name": pool, "generation": 1,
                     "resourceSliceCount": 1 + usize::from(pool == "split")}, "devices": [device]},
        });
        slice["spec"].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        Arc::new(Slice::read(Arc::new(serde_json::from_value(slice).unwrap())))
    }

    /// What nodes have in common is gathered once, and gives each of them what it would get alone.
    #[test]
    fn pools_are_those_of_all_slices_that_concern_the_node() {
        let term = json!({"matchExpressions": [{"key": "fast", "operator": "Exists"}]});
        let fast = json!({"nodeSelector": {"nodeSelectorTerms": [term]}});
        let (own, all) = (json!({"nodeName": "n1"}), json!({"allNodes": true}));
        let slices = [
            slice("a", "z-own", &own, false),
            slice("b", "a-own-late", &own, true),
            slice("c", "m-all", &all, false),
            slice("d", "b-all-late", &all, true),
            slice("e", "c-fast", &fast, false),
            slice("f", "split", &own, false),
            slice("g", "split", &all, false),
            slice("h", "y-other", &json!({"nodeName": "n2"}), false),
        ];
        let node = |name: &str, labels: serde_json::Value| {
            let node = json!({"metadata": {"name": name, "labels": labels}});
            NodeInfo::new(Arc::new(serde_json::from_value(node).unwrap()), [])
        };
        let check = |slices: &[Arc<Slice>], node: &NodeInfo, pools: &[&str]| {
            let slices = slices.iter().map(|slice| (slice.name.clone(), slice.clone())).collect();
            let inventory = Inventory::of(&slices);
            let names = |pools: &[Arc<Pool>]| {
                pools.iter().map(|pool| pool.id.1.to_string()).collect::<Vec<_>>()
            };
            let alone = pools::gather(&inventory, inventory.concerning(node));
            let view = inventory.view(node);
            for _ in 0..2 {
                let found = inventory.pools(node, view);
                assert_eq!(names(&found), names(&alone));
                assert_eq!(names(&found), pools);
                let of = |pools: &[Arc<Pool>]| -> Vec<_> {
                    pools.iter().map(|pool| (pool.state, pool.slices.clone())).collect()
                };
                assert_eq!(of(&found), of(&alone));
            }
        };
        let (first, fast) = (node("n1", json!({})), node("n3", json!({"fast": ""})));
        let whole: Vec<_> =
            slices.iter().filter(|slice| &*slice.pool != "split").cloned().collect();
        check(&whole, &first, &["m-all", "z-own", "a-own-late", "b-all-late"]);
        check(&whole, &fast, &["c-fast", "m-all", "b-all-late"]);
        check(&slices, &first, &["m-all", "split", "z-own", "a-own-late", "b-all-late"]);
        check(&slices, &fast, &["c-fast", "m-all", "split", "b-all-late"]);
    }
}
