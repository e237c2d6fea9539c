//! One slice of a pool, read once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::NodeSelector,
        resource::v1::{self as api, ResourceSlice, ResourceSliceSpec},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::quantity::Amount;
use parking_lot::Mutex;

use super::{
    capacity::Capacity,
    selectors::{Compiled, Selectors},
};
use crate::{node_info::NodeInfo, pod_info::term_matches};

/// For how many selectors a slice remembers which of its devices they select.
const REMEMBERED_MAX: usize = 64;

/// Amounts by the name of a counter.
pub(super) type Counters = BTreeMap<String, Amount>;

/// A device as far as decisions need it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    /// Whether several claims may share it.
    pub(super) multiple: bool,
    pub(super) capacities: BTreeMap<String, Capacity>,
    /// What it takes of the counters of each counter set.
    pub(super) counters: Vec<(String, Counters)>,
    /// The taints that keep claims off it.
    pub(super) taints: Vec<api::DeviceTaint>,
}

type Selected = Option<Result<bool, Arc<str>>>;

/// A slice of a pool.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) name: String,
    pub(super) driver: Arc<str>,
    pub(super) pool: Arc<str>,
    pub(super) generation: i64,
    /// How many slices the pool has.
    pub(super) of: i64,
    pub(super) devices: Vec<Device>,
    pub(super) counter_sets: Vec<(String, Counters)>,
    pub(super) has_binding_conditions: bool,
    source: Arc<ResourceSlice>,
    /// By expression, what it says about each device that it was asked about.
    selected: Mutex<HashMap<Arc<str>, Vec<Selected>>>,
}

pub(super) fn amount(quantity: &Quantity) -> Amount {
    // The API refuses what is no quantity.
    quantity.try_into().unwrap_or_default()
}

fn counters(counters: &BTreeMap<String, api::Counter>) -> Counters {
    counters.iter().map(|(name, counter)| (name.clone(), amount(&counter.value))).collect()
}

/// Whether a selector of nodes matches one.
pub(crate) fn selects(selector: &NodeSelector, node: &NodeInfo) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_matches(term, node.labels(), node.name()))
}

fn reaches(
    (name, all, selector): (Option<&str>, Option<bool>, Option<&NodeSelector>),
    node: &NodeInfo,
) -> bool {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => name == &**node.name(),
        None if all == Some(true) => true,
        None => selector.is_some_and(|selector| selects(selector, node)),
    }
}

impl Device {
    fn read(device: &api::Device) -> Self {
        let capacities = device.capacity.iter().flatten();
        let consumed = device.consumes_counters.iter().flatten();
        let taints = device.taints.iter().flatten();
        // Taints of other effects are for people to read.
        let taints = taints.filter(|taint| {
            let effect = taint.effect.as_str();
            effect == "NoSchedule" || effect == "NoExecute"
        });
        Self {
            name: device.name.clone(),
            multiple: device.allow_multiple_allocations == Some(true),
            capacities: capacities.map(|(name, of)| (name.clone(), Capacity::read(of))).collect(),
            counters: consumed.map(|of| (of.counter_set.clone(), counters(&of.counters))).collect(),
            taints: taints.cloned().collect(),
        }
    }
}

impl Slice {
    pub(super) fn read(source: Arc<ResourceSlice>) -> Self {
        let spec = &source.spec;
        let devices: Vec<Device> = spec.devices.iter().flatten().map(Device::read).collect();
        let sets = spec.shared_counters.iter().flatten();
        let mut raw = spec.devices.iter().flatten();
        Self {
            name: source.metadata.name.clone().unwrap_or_default(),
            driver: spec.driver.as_str().into(),
            pool: spec.pool.name.as_str().into(),
            generation: spec.pool.generation,
            of: spec.pool.resource_slice_count,
            devices,
            counter_sets: sets.map(|set| (set.name.clone(), counters(&set.counters))).collect(),
            has_binding_conditions: raw.any(|device| device.binding_conditions.is_some()),
            selected: Mutex::default(),
            source,
        }
    }

    fn spec(&self) -> &ResourceSliceSpec {
        &self.source.spec
    }

    /// A device as the driver tells of it.
    pub(super) fn raw(&self, device: usize) -> &api::Device {
        // The devices were read from these.
        &self.spec().devices.as_deref().unwrap_or_default()[device]
    }

    /// The one node whose devices these are, if nobody else needs the slice.
    pub(super) fn node(&self) -> Option<&str> {
        self.home().filter(|_| self.counter_sets.is_empty())
    }

    /// The one node that the slice is about.
    pub(super) fn home(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Equal for slices that concern the same nodes.
    pub(super) fn reach(&self) -> String {
        let spec = self.spec();
        if !self.counter_sets.is_empty() {
            return String::new();
        }
        if self.is_per_device() {
            return format!("parts {}", self.name);
        }
        let selector = spec.node_selector.as_ref().map(serde_json::to_string);
        let selector = selector.and_then(Result::ok).unwrap_or_default();
        format!("{:?} {:?} {selector}", self.home(), spec.all_nodes)
    }

    pub(super) fn is_per_device(&self) -> bool {
        self.spec().per_device_node_selection == Some(true)
    }

    /// Whether a node needs to look at the slice.
    pub(super) fn concerns(&self, node: &NodeInfo) -> bool {
        let (spec, name) = (self.spec(), self.home());
        if !self.counter_sets.is_empty() {
            return true;
        }
        if name.is_some() || spec.all_nodes == Some(true) || spec.node_selector.is_some() {
            return reaches((name, spec.all_nodes, spec.node_selector.as_ref()), node);
        }
        self.is_per_device()
            && (0..self.devices.len()).any(|device| self.device_reaches(device, node))
    }

    fn device_reaches(&self, device: usize, node: &NodeInfo) -> bool {
        let device = self.raw(device);
        let name = device.node_name.as_deref();
        reaches((name, device.all_nodes, device.node_selector.as_ref()), node)
    }

    /// Whether a device can be used on a node that the slice concerns.
    pub(super) fn is_usable(&self, device: usize, node: &NodeInfo) -> bool {
        !self.is_per_device() || self.device_reaches(device, node)
    }

    /// Where a device can be used: on one node, or on those that a selector names, or on all.
    pub(super) fn place(&self, device: usize) -> (bool, Option<&NodeSelector>) {
        let (spec, raw) = (self.spec(), self.raw(device));
        let (name, selector) = if self.is_per_device() {
            (&raw.node_name, &raw.node_selector)
        } else {
            (&spec.node_name, &spec.node_selector)
        };
        (name.is_some() || raw.binds_to_node == Some(true), selector.as_ref())
    }

    /// What a selector says about a device: remembered, as it depends on nothing else.
    pub(super) fn is_selected(
        &self,
        device: usize,
        expression: &Arc<str>,
        selectors: &Selectors,
    ) -> Result<bool, Arc<str>> {
        let mut selected = self.selected.lock();
        if selected.len() >= REMEMBERED_MAX && !selected.contains_key(expression) {
            selected.clear();
        }
        let of =
            selected.entry(expression.clone()).or_insert_with(|| vec![None; self.devices.len()]);
        let found = of[device].get_or_insert_with(|| self.ask(device, &selectors.get(expression)));
        found.clone()
    }

    fn ask(&self, device: usize, selector: &Compiled) -> Result<bool, Arc<str>> {
        match selector {
            Err(error) => Err(format!("CEL compile error: {error}").into()),
            Ok(selector) => {
                let matches = super::selectors::matches(selector, &self.driver, self.raw(device));
                matches.map_err(|error| format!("CEL runtime error: {error}").into())
            }
        }
    }
}
