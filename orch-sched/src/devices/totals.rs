//! How many devices of a class there are.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::DeviceClass;

use super::{inventory::Inventory, request::expressions, selectors::Selectors, usage::Usage};
use crate::node_info::NodeInfo;

impl Inventory {
    /// The devices of a class that a node reaches, and those of them that somebody has: of all
    /// generations of all pools, as upstream counts. A device about which a selector fails does not
    /// count; `None` if a selector is none.
    pub(super) fn totals(
        &self,
        usage: &Usage,
        class: &DeviceClass,
        node: &NodeInfo,
        selectors: &Selectors,
    ) -> Option<(i64, i64)> {
        let own = expressions(class.spec.selectors.as_deref(), "").ok()?;
        if own.iter().any(|(_, one)| selectors.get(one).is_err()) {
            return None;
        }
        let selects = |at: usize, device: usize| {
            let is_selected = |(_, one): &(String, Arc<str>)| {
                self.slice(at).is_selected(device, one, selectors) == Ok(true)
            };
            own.iter().all(is_selected)
        };
        let (mut all, mut taken) = (0, 0);
        for at in self.concerning(node) {
            let slice = self.slice(at);
            for device in 0..slice.devices.len() {
                if slice.is_usable(device, node) && selects(at, device) {
                    all += 1;
                    taken += i64::from(usage.is_used(self.place(at, device)));
                }
            }
        }
        Some((all, taken))
    }
}
