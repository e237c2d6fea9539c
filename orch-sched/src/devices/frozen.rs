//! Devices as they are when a cycle begins, and for which nodes that is news.

use std::{collections::VecDeque, sync::Arc};

use k8s_openapi::api::resource::v1::AllocationResult;

use super::{
    inventory::Inventory,
    ledger::Devices,
    usage::{Usage, taken},
};

/// How many nodes are remembered whose devices were taken or given back; for one who missed more,
/// all changed.
const REMEMBERED_MAX: usize = 4096;

/// What drivers offer and what is taken of it, at one time.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(super) inventory: Arc<Inventory>,
    pub(super) usage: Arc<Usage>,
    /// How often something changed that matters to more than one node.
    shared: u64,
}

impl Frozen {
    /// The same as long as what a node offers changes only with the nodes that
    /// [`Following::freeze`] names.
    pub(crate) fn version(&self) -> (u64, u64) {
        (self.inventory.number, self.shared)
    }
}

/// Where devices were taken or given back.
#[derive(Debug, Default)]
pub(super) struct News {
    nodes: VecDeque<Arc<str>>,
    /// How many are no longer remembered.
    forgotten: u64,
    shared: u64,
}

impl News {
    /// Notes what an allocation takes, or gives back.
    pub(super) fn note(&mut self, allocation: &AllocationResult, inventory: &Inventory) {
        for (place, _) in taken(allocation, inventory) {
            match inventory.home(place) {
                None => self.shared += 1,
                Some(node) => self.nodes.push_back(node.clone()),
            }
        }
        while self.nodes.len() > REMEMBERED_MAX {
            self.nodes.pop_front();
            self.forgotten += 1;
        }
    }

    /// The nodes since this was last called; `None` if they are no longer known.
    fn since(&self, seen: &mut u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        let now = self.forgotten + self.nodes.len() as u64;
        let known = std::mem::replace(seen, now).checked_sub(self.forgotten)?;
        Some(self.nodes.iter().skip(known as usize))
    }
}

/// Somebody who looks at nodes again when the devices that they reach were taken or given back.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    devices: Arc<Devices>,
    seen: u64,
}

impl Following {
    /// Begins with all nodes as they are now.
    pub(crate) fn of(devices: Arc<Devices>) -> Self {
        Self { devices, seen: 0 }
    }

    /// The devices as they are now, and the nodes for which something changed since the last time:
    /// `None` is any of them.
    pub(crate) fn freeze(&mut self) -> (Frozen, Option<Vec<Arc<str>>>) {
        let seen = &mut self.seen;
        self.devices.look(|(inventory, usage), news| {
            let nodes = news.since(seen).map(|nodes| nodes.cloned().collect());
            (Frozen { inventory, usage, shared: news.shared }, nodes)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::devices::slice::Slice;

    /// Of a pool on one node, one on another node whose counters are elsewhere, and one for all.
    fn inventory() -> Inventory {
        let slice = |name: &str, pool: &str, place: serde_json::Value| {
            let mut slice = json!({
                "metadata": {"name": name},
                "spec": {"driver": "d", "pool": {"name": pool, "generation": 1,
                         "resourceSliceCount": 1}, "devices": [{"name": name}]},
            });
            slice["spec"].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
            let slice = Arc::new(serde_json::from_value(slice).unwrap());
            (name.to_owned(), Arc::new(Slice::read(slice)))
        };
        let slices: BTreeMap<String, Arc<Slice>> = [
            slice("own", "own", json!({"nodeName": "n1"})),
            slice("part", "parts", json!({"nodeName": "n2"})),
            slice("other", "parts", json!({"nodeName": "n3"})),
            slice("any", "any", json!({"allNodes": true})),
        ]
        .into();
        Inventory::of(&slices)
    }

    fn allocation(pool: &str, device: &str, admin: bool) -> AllocationResult {
        let result = json!({"driver": "d", "pool": pool, "device": device, "request": "r",
                            "adminAccess": admin});
        serde_json::from_value(json!({"devices": {"results": [result]}})).unwrap()
    }

    #[test]
    fn a_device_concerns_the_only_node_that_reaches_its_pool_or_all() {
        let inventory = inventory();
        let check = |(pool, device, admin): (&str, &str, bool), nodes: &[&str], shared: u64| {
            let mut news = News::default();
            news.note(&allocation(pool, device, admin), &inventory);
            let found: Vec<&str> = news.nodes.iter().map(|node| &**node).collect();
            assert_eq!((found.as_slice(), news.shared), (nodes, shared), "{pool}/{device}");
        };
        check(("own", "own", false), &["n1"], 0);
        check(("own", "own", true), &[], 0);
        check(("own", "gone", false), &[], 0);
        check(("parts", "part", false), &[], 1);
        check(("any", "any", false), &[], 1);
    }

    #[test]
    fn who_missed_too_much_is_told_so() {
        let (inventory, own) = (inventory(), allocation("own", "own", false));
        let mut news = News::default();
        let count = |news: &News, seen: &mut u64| news.since(seen).map(Iterator::count);
        let (mut often, mut seldom) = (0, 0);
        news.note(&own, &inventory);
        assert_eq!(count(&news, &mut often), Some(1));
        assert_eq!(count(&news, &mut often), Some(0));
        (0..REMEMBERED_MAX).for_each(|_| news.note(&own, &inventory));
        assert_eq!(count(&news, &mut often), Some(REMEMBERED_MAX));
        assert_eq!(count(&news, &mut seldom), None);
        assert_eq!(count(&news, &mut seldom), Some(0));
    }
}
