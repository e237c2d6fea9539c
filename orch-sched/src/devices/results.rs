//! What was found, and how claims tell of it.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
    resource::v1::{
        AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult,
        DeviceRequestAllocationResult, OpaqueDeviceConfiguration,
    },
};
use orch_core::random::Random;

use super::{
    allocator::{Allocator, Stop},
    capacity::Amounts,
    request::Wanted,
};

/// Better alternatives count more when nodes are ranked: the first one so much, each after it one
/// less.
const ALTERNATIVES_MAX: i64 = 8;

/// A device that a claim gets.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) request: usize,
    pub(super) alternative: usize,
    pub(super) slice: usize,
    pub(super) device: usize,
    pub(super) pool: usize,
    pub(super) number: u32,
    /// What is taken of a device that is shared.
    pub(super) consumed: Option<Amounts>,
    /// Whether it took its part of the pool's counters.
    pub(super) counted: bool,
}

#[derive(Clone, Debug, Default)]
struct Own {
    devices: Vec<Chosen>,
    /// The alternative of each request.
    selected: Vec<usize>,
}

/// Devices for claims, in the order in which the claims were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Solution {
    claims: Vec<Own>,
}

impl Solution {
    pub(super) fn of(wanted: &[Wanted]) -> Self {
        let own = |one: &Wanted| Own { selected: vec![0; one.requests.len()], ..Own::default() };
        Self { claims: wanted.iter().map(own).collect() }
    }

    pub(super) fn count(&self, claim: usize) -> usize {
        self.claims[claim].devices.len()
    }

    pub(super) fn push(&mut self, claim: usize, chosen: Chosen) {
        self.claims[claim].devices.push(chosen);
    }

    pub(super) fn pop(&mut self, claim: usize) -> Option<Chosen> {
        self.claims[claim].devices.pop()
    }

    pub(super) fn select(&mut self, claim: usize, request: usize, alternative: usize) {
        self.claims[claim].selected[request] = alternative;
    }

    /// How good it is: claims get what they would rather have.
    ///
    /// Source: `pkg/scheduler/framework/plugins/dynamicresources`, `computeScore`.
    pub(crate) fn score(&self, allocator: &Allocator) -> i64 {
        let wanted = allocator.wanted().unwrap_or_default();
        let of = |(own, wanted): (&Own, &Wanted)| {
            let requests = wanted.requests.iter().enumerate();
            let got = |at: usize| own.devices.iter().any(|chosen| chosen.request == at);
            let prioritized = requests.filter(|(at, request)| request.prioritized && got(*at));
            prioritized.map(|(at, _)| ALTERNATIVES_MAX - own.selected[at] as i64).sum::<i64>()
        };
        self.claims.iter().zip(wanted).map(of).sum()
    }

    /// The allocations of the claims on a node. Shares of devices get ids.
    pub(crate) fn allocations(
        &self,
        allocator: &Allocator,
        node: &str,
        random: &dyn Random,
    ) -> Result<Vec<AllocationResult>, Stop> {
        let claims = self.claims.iter().zip(allocator.wanted()?);
        let allocation = |(own, wanted): (&Own, &Wanted)| AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                config: Some(own.configurations(wanted)).filter(|all| !all.is_empty()),
                results: Some(own.results(allocator, wanted, random)),
            }),
            node_selector: own.node_selector(allocator, node),
        };
        Ok(claims.map(allocation).collect())
    }
}

impl Own {
    fn results(
        &self,
        allocator: &Allocator,
        wanted: &Wanted,
        random: &dyn Random,
    ) -> Vec<DeviceRequestAllocationResult> {
        let result = |chosen: &Chosen| {
            let ask = &wanted.requests[chosen.request].asks[chosen.alternative];
            let slice = allocator.inventory.slice(chosen.slice);
            let raw = slice.raw(chosen.device);
            let consumed = chosen.consumed.as_ref().filter(|consumed| !consumed.is_empty());
            DeviceRequestAllocationResult {
                admin_access: ask.admin.filter(|admin| *admin),
                binding_conditions: raw.binding_conditions.clone(),
                binding_failure_conditions: raw.binding_failure_conditions.clone(),
                consumed_capacity: consumed.map(|all| {
                    all.iter().map(|(name, amount)| (name.clone(), amount.to_quantity())).collect()
                }),
                device: raw.name.clone(),
                driver: slice.driver.to_string(),
                pool: slice.pool.to_string(),
                request: ask.whole_name.clone(),
                share_id: chosen.consumed.is_some().then(|| random.uuid()),
                tolerations: ask.tolerations.clone(),
            }
        };
        self.devices.iter().map(result).collect()
    }

    /// The configurations of classes, each once with all its requests, then those of the claim that
    /// are about what was chosen.
    fn configurations(&self, wanted: &Wanted) -> Vec<DeviceAllocationConfiguration> {
        let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
        let add = |source: &str, opaque: &Option<OpaqueDeviceConfiguration>, requests| {
            let (opaque, source) = (opaque.clone(), source.to_owned());
            DeviceAllocationConfiguration { opaque, requests, source }
        };
        let mut of_class = BTreeMap::new();
        let mut names = Vec::new();
        for (at, request) in wanted.requests.iter().enumerate() {
            let ask = &request.asks[self.selected[at]];
            let class = ask.class.metadata.name.clone().unwrap_or_default();
            if let Some((from, to)) = of_class.get(&class).copied() {
                for known in &mut all[from..to] {
                    known.requests.get_or_insert_default().push(ask.whole_name.clone());
                }
            } else {
                let from = all.len();
                for config in ask.class.spec.config.iter().flatten() {
                    let requests = Some(vec![ask.whole_name.clone()]);
                    all.push(add("FromClass", &config.opaque, requests));
                }
                of_class.insert(class, (from, all.len()));
            }
            names.push((request.name.as_str(), ask.whole_name.as_str()));
        }
        let devices = wanted.claim.spec.devices.as_ref();
        for config in devices.iter().flat_map(|devices| devices.config.iter().flatten()) {
            let requests = config.requests.as_deref().unwrap_or_default();
            let is_about = |(name, whole): &(&str, &str)| {
                requests.iter().any(|one| one == name) || requests.iter().any(|one| one == whole)
            };
            // Upstream lists it once for each request that it is about.
            let times =
                if requests.is_empty() { 1 } else { names.iter().filter(|n| is_about(n)).count() };
            for _ in 0..times {
                all.push(add("FromClaim", &config.opaque, config.requests.clone()));
            }
        }
        all
    }

    /// Where the devices can be used: `None` is everywhere.
    fn node_selector(&self, allocator: &Allocator, node: &str) -> Option<NodeSelector> {
        let mut term = NodeSelectorTerm::default();
        for chosen in &self.devices {
            let slice = allocator.inventory.slice(chosen.slice);
            let (local, selector) = slice.place(chosen.device);
            if local {
                let only = NodeSelectorRequirement {
                    key: "metadata.name".into(),
                    operator: "In".into(),
                    values: Some(vec![node.to_owned()]),
                };
                term = NodeSelectorTerm { match_fields: Some(vec![only]), ..Default::default() };
                return Some(NodeSelector { node_selector_terms: vec![term] });
            }
            // A slice's selector has one term.
            let Some(own) = selector.and_then(|one| one.node_selector_terms.first()) else {
                continue;
            };
            add_new(&own.match_fields, &mut term.match_fields);
            add_new(&own.match_expressions, &mut term.match_expressions);
        }
        let some = term.match_fields.is_some() || term.match_expressions.is_some();
        some.then(|| NodeSelector { node_selector_terms: vec![term] })
    }
}

fn add_new(
    from: &Option<Vec<NodeSelectorRequirement>>,
    to: &mut Option<Vec<NodeSelectorRequirement>>,
) {
    let sorted = |one: &NodeSelectorRequirement| {
        let mut values = one.values.clone().unwrap_or_default();
        values.sort();
        values.dedup();
        values
    };
    for new in from.iter().flatten() {
        let same = |known: &NodeSelectorRequirement| {
            known.key == new.key && known.operator == new.operator && sorted(known) == sorted(new)
        };
        if !to.iter().flatten().any(same) {
            to.get_or_insert_default().push(new.clone());
        }
    }
}
