//! Endpoints are dealt out to zones in proportion to the zones' CPUs, for services that ask for it
//! with `service.kubernetes.io/topology-mode: Auto`.
//!
//! Source: `k8s.io/endpointslice/topologycache`.
//! Differs: of zones that are equal in everything, the first by name is taken.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone},
};
use orch_core::quantity::Amount;

use super::{
    Groups, ZONE,
    hints::is_ready,
    packing::{Plan, identity},
};

/// By how much more than its share an endpoint may be asked at most.
const OVERLOAD: f64 = 0.2;

/// How many endpoints are meant for each zone.
pub(super) type Allocated = BTreeMap<String, usize>;

/// Each zone's part of all CPUs; `None` if that is not known of every node.
pub(super) type Ratios = Option<BTreeMap<String, f64>>;

/// Why there are no hints, for an event.
pub(super) type Refusal = String;

#[derive(Clone, Copy, Debug)]
struct Share {
    maximum: usize,
    desired: f64,
}

/// Whether a service asks for it.
pub(super) fn is_asked_for(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let of = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
    let mode = of("service.kubernetes.io/topology-aware-hints")
        .or_else(|| of("service.kubernetes.io/topology-mode"));
    matches!(mode, Some("Auto" | "auto"))
}

/// What a node brings to its zone; `Err` if that cannot be told, `Ok(None)` if it does not count.
fn brings(node: &Node) -> Result<Option<(&str, Amount)>, ()> {
    const EXCLUDED: [&str; 2] =
        ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    if EXCLUDED.iter().any(|name| label(name).is_some())
        || ready.is_none_or(|ready| ready.status != "True")
    {
        return Ok(None);
    }
    let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    let cpu = cpu.and_then(|cpu| Amount::try_from(cpu).ok()).filter(|cpu| !cpu.is_zero());
    match (label(ZONE).filter(|zone| !zone.is_empty()), cpu) {
        (Some(zone), Some(cpu)) => Ok(Some((zone, cpu))),
        _ => Err(()),
    }
}

/// Whether a change of a node may change the ratios.
pub(super) fn concerns_ratios(old: &Node, new: &Node) -> bool {
    brings(old) != brings(new)
}

pub(super) fn ratios(nodes: &[Arc<Node>]) -> Ratios {
    let mut by_zone = BTreeMap::<&str, Amount>::new();
    for node in nodes {
        if let Some((zone, cpu)) = brings(node).ok()? {
            *by_zone.entry(zone).or_default() += cpu;
        }
    }
    if by_zone.len() < 2 {
        return None;
    }
    let milli = |amount: &Amount| amount.milli_value() as f64;
    let total: f64 = by_zone.values().map(milli).sum();
    Some(by_zone.iter().map(|(zone, cpu)| ((*zone).to_owned(), milli(cpu) / total)).collect())
}

/// Whether a zone has fewer endpoints than it needs by now.
pub(super) fn is_overloaded(allocated: &Allocated, ratios: &Ratios) -> bool {
    let Some(ratios) = ratios else { return !allocated.is_empty() };
    let total: usize = allocated.values().sum();
    !allocated.is_empty()
        && ratios.iter().any(|(zone, ratio)| {
            allocated.get(zone).is_none_or(|has| *has < minimum(total as f64 * ratio))
        })
}

fn minimum(desired: f64) -> usize {
    (desired / (1.0 + OVERLOAD)).ceil() as usize
}

/// Endpoints that are what they were keep their hints, so that slices stay as they are.
pub(super) fn carry(groups: &mut Groups, existing: &[Arc<EndpointSlice>]) {
    let known = existing.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let known: BTreeMap<String, &Endpoint> = known.map(|one| (identity(one), one)).collect();
    for endpoint in groups.values_mut().flat_map(|(_, endpoints)| endpoints) {
        if let Some(known) = known.get(&identity(endpoint)) {
            let same = Endpoint { hints: known.hints.clone(), ..endpoint.clone() };
            if same == **known {
                *endpoint = same;
            }
        }
    }
}

fn shares(ratios: &Ratios, endpoints: usize) -> Result<BTreeMap<String, Share>, Refusal> {
    let Some(ratios) = ratios else {
        return Err("Insufficient Node information: allocatable CPU or zone not specified on one \
                    or more nodes"
            .to_owned());
    };
    let counts = format!("({endpoints} endpoints, {} zones)", ratios.len());
    if ratios.len() > endpoints {
        return Err(format!("Insufficient number of endpoints {counts}"));
    }
    let minima: BTreeMap<&String, (usize, f64)> = ratios
        .iter()
        .map(|(zone, ratio)| {
            let desired = ratio * endpoints as f64;
            (zone, (minimum(desired), desired))
        })
        .collect();
    let total: usize = minima.values().map(|(minimum, _)| minimum).sum();
    let Some(spare) = endpoints.checked_sub(total) else {
        return Err(format!(
            "Unable to allocate minimum required endpoints to each zone without exceeding \
             overload threshold {counts}"
        ));
    };
    let share = |(minimum, desired): (usize, f64)| Share {
        maximum: minimum + spare,
        desired: desired.max(minimum as f64),
    };
    Ok(minima.into_iter().map(|(zone, of)| (zone.clone(), share(of))).collect())
}

/// The zones that an unchanged slice's hints are for; `None` if it has to change.
fn zones_of(
    slice: &EndpointSlice,
    allocated: &Allocated,
    shares: &BTreeMap<String, Share>,
) -> Option<Allocated> {
    let mut zones = Allocated::new();
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
        let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref());
        for zone in hints.filter(|zones| !zones.is_empty())? {
            *zones.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = allocated.get(zone).copied().unwrap_or(0);
        shares.get(zone).is_some_and(|share| count + before <= share.maximum)
    };
    zones.iter().all(fits).then_some(zones)
}

fn for_zone(name: &str) -> Option<EndpointHints> {
    let for_zones = Some(vec![ForZone { name: name.to_owned() }]);
    Some(EndpointHints { for_nodes: None, for_zones })
}

/// Gives the endpoints of one address family their hints. Gives how many are for each zone, or why
/// none have any.
pub(super) fn deal(plan: &mut Plan, ratios: &Ratios) -> Result<Allocated, Refusal> {
    let ready = plan.slices().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = ready.filter(|endpoint| is_ready(endpoint)).count();
    let dealt = shares(ratios, ready).and_then(|shares| deal_out(plan, &shares));
    if dealt.is_err() {
        plan.without_hints();
    }
    dealt
}

fn deal_out(plan: &mut Plan, shares: &BTreeMap<String, Share>) -> Result<Allocated, Refusal> {
    let mut allocated = Allocated::new();
    plan.change_unless(|slice| match zones_of(slice, &allocated, shares) {
        Some(zones) => {
            zones.into_iter().for_each(|(zone, count)| {
                *allocated.entry(zone).or_default() += count;
            });
            true
        }
        None => false,
    });
    for endpoint in plan.changing() {
        let zone = endpoint
            .zone
            .clone()
            .filter(|zone| !zone.is_empty())
            .ok_or_else(|| "One or more endpoints do not have a zone specified".to_owned())?;
        endpoint.hints = for_zone(&zone);
        *allocated.entry(zone).or_default() += 1;
    }
    let (mut giving, mut receiving) = gifts(shares, &allocated);
    for endpoint in plan.changing() {
        let Some(from) = endpoint.zone.clone() else { continue };
        let Some(left) = giving.get_mut(&from).filter(|left| **left > 0) else { continue };
        let Some((to, needs)) = receiving.iter_mut().find(|(_, needs)| **needs > 0) else { break };
        (*left, *needs) = (*left - 1, *needs - 1);
        endpoint.hints = for_zone(to);
        *allocated.entry(to.clone()).or_default() += 1;
        if let Some(count) = allocated.get_mut(&from) {
            *count -= 1;
        }
    }
    if allocated.is_empty() {
        return Err("No hints allocated for zones".to_owned());
    }
    Ok(allocated)
}

/// How many endpoints each zone gives to others, and gets.
fn gifts(shares: &BTreeMap<String, Share>, allocated: &Allocated) -> (Allocated, Allocated) {
    let (mut too_many, mut too_few) = (BTreeMap::new(), BTreeMap::new());
    for (zone, share) in shares {
        let has = allocated.get(zone).copied().unwrap_or(0) as f64;
        if has > share.desired {
            too_many.insert(zone.clone(), has - share.desired);
        } else if has < share.desired {
            too_few.insert(zone.clone(), share.desired - has);
        }
    }
    let (mut giving, mut receiving) = (Allocated::new(), Allocated::new());
    loop {
        let (Some((from, give)), Some((to, take))) = (most(&too_many), most(&too_few)) else {
            return (giving, receiving);
        };
        if (give < 1.0 && take < 1.0) || give < 0.5 || take < 0.5 {
            return (giving, receiving);
        }
        *giving.entry(from.clone()).or_default() += 1;
        *receiving.entry(to.clone()).or_default() += 1;
        too_many.insert(from, give - 1.0);
        too_few.insert(to, take - 1.0);
    }
}

fn most(zones: &BTreeMap<String, f64>) -> Option<(String, f64)> {
    let mut most: Option<(&String, f64)> = None;
    for (zone, count) in zones {
        if *count > most.map_or(0.0, |(_, known)| known) {
            most = Some((zone, *count));
        }
    }
    most.map(|(zone, count)| (zone.clone(), count))
}
