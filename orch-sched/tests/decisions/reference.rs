//! The reference: which nodes a pod fits and how good each is, straight from what upstream
//! documents, over the objects' JSON. Nothing is remembered, indexed or shared with the crate.
//!
//! Relied on: upstream's documentation of each plugin and of its arguments, and the behaviour of
//! `pkg/scheduler/framework/plugins` where the documentation is silent (how scores are rounded and
//! normalized, what an empty selector counts), as known to the authors and not run side by side.

use std::collections::BTreeMap;

use orch_sched::plugins::ScoringStrategy;
use serde_json::Value;

use crate::{reference_pods, reference_volumes, world::World};

pub(crate) const HUNDRED: i64 = 100;

/// What a node is to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Fits,
    /// It would fit if other pods went.
    Unschedulable,
    /// Not even then.
    Unresolvable,
}

/// The nodes that the pod fits, each with its weighted sum of scores.
pub(crate) fn evaluate(world: &World, pod: &Value) -> BTreeMap<String, i64> {
    let fits = |node: &&Value| status(world, pod, node) == Status::Fits;
    // Where room was made for the pod, it goes without asking for the best.
    let promised = pod["status"]["nominatedNodeName"].as_str();
    let promised = promised.and_then(|name| world.nodes.get(name)).filter(fits);
    if let Some(node) = promised {
        return BTreeMap::from([(name(node).to_owned(), 0)]);
    }
    let feasible: Vec<&Value> = world.nodes.values().filter(fits).collect();
    let mut totals = vec![0; feasible.len()];
    let plugins: [(i64, Vec<i64>); 7] = [
        (3, taints(pod, &feasible)),
        (2, node_affinity(world, pod, &feasible)),
        (1, feasible.iter().map(|node| allocated(world, pod, node)).collect()),
        (2, reference_pods::spread_scores(world, pod, &feasible)),
        (2, reference_pods::affinity_scores(world, pod, &feasible)),
        (1, feasible.iter().map(|node| balanced(world, pod, node)).collect()),
        (1, feasible.iter().map(|node| images(world, pod, node)).collect()),
    ];
    for (weight, scores) in plugins {
        assert!(scores.iter().all(|score| (0..=HUNDRED).contains(score)), "{scores:?}");
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    }
    feasible.iter().map(|node| name(node).to_owned()).zip(totals).collect()
}

/// A node must be right with those that wait for room there and go first, and without them.
pub(crate) fn status(world: &World, pod: &Value, node: &Value) -> Status {
    status_since(world, world, pod, node)
}

/// The same in a world that has become another one since the pod's cycle began: what did not matter
/// to the pod then is not looked at for those that wait either.
pub(crate) fn status_since(began: &World, world: &World, pod: &Value, node: &Value) -> Status {
    let mut later = world.clone();
    later.without_affinity |= !reference_pods::affinity_matters(began, pod);
    later.without_disks |= !reference_volumes::disks_matter(began, pod);
    for (key, other) in &world.nominated {
        let here = other["status"]["nominatedNodeName"] == name(node);
        if here && priority(other) >= priority(pod) && name(other) != name(pod) {
            let mut other = other.clone();
            other["spec"]["nodeName"] = name(node).into();
            later.pods.insert(key.clone(), other);
        }
    }
    let with = plain_status(&later, pod, node);
    if with == Status::Fits { plain_status(world, pod, node) } else { with }
}

pub(crate) fn priority(pod: &Value) -> i64 {
    pod["spec"]["priority"].as_i64().unwrap_or(0)
}

/// What the first of upstream's filters that has something against the node says.
fn plain_status(world: &World, pod: &Value, node: &Value) -> Status {
    let cordoned = node["spec"]["unschedulable"] == true
        && !tolerated(
            pod,
            &serde_json::json!({
                "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule",
            }),
        );
    let named = pod["spec"]["nodeName"].as_str().is_none_or(|wanted| wanted == name(node));
    let for_good = |fits: bool| if fits { Status::Fits } else { Status::Unresolvable };
    let for_now = |fits: bool| if fits { Status::Fits } else { Status::Unschedulable };
    let checks = [
        for_good(!reference_volumes::is_hopeless(world, pod)),
        for_good(!cordoned && named),
        for_good(hard_taints_are_tolerated(pod, node) && matches_added_affinity(world, node)),
        for_good(matches_node_affinity(pod, node)),
        for_now(ports_are_free(world, pod, node)),
        resources_suffice(world, pod, node),
        for_now(reference_volumes::disks_are_free(world, pod, node)),
        for_now(reference_volumes::can_be_attached(world, pod, node)),
        for_good(reference_volumes::fits(world, pod, node)),
        reference_pods::spread_allows(world, pod, node),
        reference_pods::affinity_allows(world, pod, node),
    ];
    checks.into_iter().find(|status| *status != Status::Fits).unwrap_or(Status::Fits)
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

// Taints.

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (effect, key) = (text(&toleration["effect"]), text(&toleration["key"]));
    (effect.is_empty() || effect == text(&taint["effect"]))
        && (key.is_empty() || key == text(&taint["key"]))
        && match toleration["operator"].as_str() {
            Some("Exists") => true,
            _ => text(&toleration["value"]) == text(&taint["value"]),
        }
}

fn tolerated(pod: &Value, taint: &Value) -> bool {
    list(&pod["spec"]["tolerations"]).iter().any(|toleration| tolerates(toleration, taint))
}

pub(crate) fn hard_taints_are_tolerated(pod: &Value, node: &Value) -> bool {
    let taints = list(&node["spec"]["taints"]).iter();
    taints.filter(|t| t["effect"] != "PreferNoSchedule").all(|taint| tolerated(pod, taint))
}

fn taints(pod: &Value, nodes: &[&Value]) -> Vec<i64> {
    let count = |node: &&Value| {
        let taints = list(&node["spec"]["taints"]).iter();
        let soft = taints.filter(|t| t["effect"] == "PreferNoSchedule" && !tolerated(pod, t));
        soft.count() as i64
    };
    let raw: Vec<i64> = nodes.iter().map(count).collect();
    let most = raw.iter().copied().max().unwrap_or(0);
    let score = |count: i64| if most == 0 { HUNDRED } else { HUNDRED - HUNDRED * count / most };
    raw.into_iter().map(score).collect()
}

// Labels of nodes.

/// One requirement of a label selector or a node selector.
fn requirement_holds(requirement: &Value, value: Option<&str>) -> bool {
    let among = || list(&requirement["values"]).iter().any(|one| one.as_str() == value);
    let bound = || list(&requirement["values"])[0].as_str().and_then(|v| v.parse::<i64>().ok());
    let number = value.and_then(|value| value.parse::<i64>().ok());
    match requirement["operator"].as_str().expect("an operator") {
        "In" => value.is_some() && among(),
        "NotIn" => value.is_none() || !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number.is_some_and(|number| Some(number) > bound()),
        "Lt" => number.is_some_and(|number| bound().is_some_and(|bound| number < bound)),
        other => panic!("operator {other}"),
    }
}

/// A node selector term; an empty one matches nothing.
pub(crate) fn term_holds(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (list(&term["matchExpressions"]), list(&term["matchFields"]));
    let by_label =
        |one: &Value| requirement_holds(one, label(node, one["key"].as_str().expect("a key")));
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(by_label)
        && fields.iter().all(|one| requirement_holds(one, Some(name(node))))
}

/// A label selector over an object; an absent one matches nothing, an empty one everything.
pub(crate) fn selects(selector: &Value, object: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    !selector.is_null()
        && equal.into_iter().all(|(key, value)| label(object, key) == value.as_str())
        && list(&selector["matchExpressions"])
            .iter()
            .all(|one| requirement_holds(one, label(object, one["key"].as_str().expect("a key"))))
}

pub(crate) fn matches_node_affinity(pod: &Value, node: &Value) -> bool {
    let selector = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let required =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = list(&required["nodeSelectorTerms"]);
    selector.into_iter().all(|(key, value)| label(node, key) == value.as_str())
        && (required.is_null() || terms.iter().any(|term| term_holds(term, node)))
}

fn matches_added_affinity(world: &World, node: &Value) -> bool {
    let required = &added(world)["requiredDuringSchedulingIgnoredDuringExecution"];
    required.is_null()
        || list(&required["nodeSelectorTerms"]).iter().any(|term| term_holds(term, node))
}

fn added(world: &World) -> Value {
    serde_json::to_value(&world.arguments.added_affinity).expect("it is JSON")
}

fn node_affinity(world: &World, pod: &Value, nodes: &[&Value]) -> Vec<i64> {
    let preferred =
        &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let added = &added(world)["preferredDuringSchedulingIgnoredDuringExecution"];
    let sum = |node: &&Value| {
        let all = list(preferred).iter().chain(list(added));
        let terms = all.filter(|term| term_holds(&term["preference"], node));
        terms.map(|term| term["weight"].as_i64().expect("a weight")).sum()
    };
    let raw: Vec<i64> = nodes.iter().map(sum).collect();
    let most = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter().map(|sum| if most == 0 { 0 } else { HUNDRED * sum / most }).collect()
}

// Ports.

fn ports(pod: &Value) -> Vec<(String, String, i64)> {
    let ports = list(&pod["spec"]["containers"]).iter().flat_map(|c| list(&c["ports"]));
    let wanted = ports.filter_map(|port| {
        let ip = port["hostIP"].as_str().unwrap_or("0.0.0.0").to_owned();
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        Some((ip, protocol, port["hostPort"].as_i64()?))
    });
    wanted.collect()
}

fn ports_are_free(world: &World, pod: &Value, node: &Value) -> bool {
    let taken: Vec<_> = world.pods_on(name(node)).flat_map(ports).collect();
    !ports(pod).iter().any(|(ip, protocol, port)| {
        taken.iter().any(|(other_ip, other_protocol, other_port)| {
            protocol == other_protocol
                && port == other_port
                && (ip == other_ip || ip == "0.0.0.0" || other_ip == "0.0.0.0")
        })
    })
}

// Resources.

const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "example.com/gpu"];

/// Thousandths, the only unit in which every amount of the tests is whole.
fn amount(quantity: &Value) -> i64 {
    let text = quantity.as_str().unwrap_or("0");
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().expect("a number");
    }
    match text.strip_suffix("Mi") {
        Some(mebi) => mebi.parse::<i64>().expect("a number") * 1000 * 1024 * 1024,
        None => text.parse::<i64>().expect("a number") * 1000,
    }
}

fn requested(pod: &Value, resource: &str) -> i64 {
    let containers = list(&pod["spec"]["containers"]).iter();
    containers.map(|c| amount(&c["resources"]["requests"][resource])).sum()
}

/// Containers without a request count as small ones when nodes are ranked.
fn ranked(pod: &Value, resource: &str) -> i64 {
    let default = if resource == "cpu" { 100 } else { 200 * 1000 * 1024 * 1024 };
    let own = |container: &Value| {
        let request = &container["resources"]["requests"][resource];
        if request.is_null() { default } else { amount(request) }
    };
    list(&pod["spec"]["containers"]).iter().map(own).sum()
}

fn resources_suffice(world: &World, pod: &Value, node: &Value) -> Status {
    let has = &node["status"]["allocatable"];
    let room = (world.pods_on(name(node)).count() as i64 + 1) * 1000 <= amount(&has["pods"]);
    let mut status = if room { Status::Fits } else { Status::Unschedulable };
    for resource in RESOURCES {
        let used: i64 = world.pods_on(name(node)).map(|pod| requested(pod, resource)).sum();
        let (wants, has) = (requested(pod, resource), amount(&has[resource]));
        if wants > has {
            return Status::Unresolvable;
        }
        if wants > 0 && wants + used > has {
            status = Status::Unschedulable;
        }
    }
    status
}

/// By the strategy of the profile: how empty a node is, how full, or how near to what is best.
fn allocated(world: &World, pod: &Value, node: &Value) -> i64 {
    let (resources, shape) = match &world.arguments.node_resources_fit.strategy {
        ScoringStrategy::LeastAllocated(resources) => (resources, vec![(0, 100), (100, 0)]),
        ScoringStrategy::MostAllocated(resources) => (resources, vec![(0, 0), (100, 100)]),
        ScoringStrategy::RequestedToCapacityRatio(resources, shape) => {
            (resources, shape.iter().map(|one| (one.utilization, one.score * 10)).collect())
        }
    };
    let by_ratio = matches!(
        world.arguments.node_resources_fit.strategy,
        ScoringStrategy::RequestedToCapacityRatio(..)
    );
    let (mut sum, mut weights) = (0, 0);
    for resource in resources {
        let has = amount(&node["status"]["allocatable"][&resource.name]);
        let used: i64 = world.pods_on(name(node)).map(|pod| ranked(pod, &resource.name)).sum();
        let used = (used + ranked(pod, &resource.name)).min(has);
        if has == 0 {
            continue;
        }
        // What is free is rounded for itself, so that it is not a hundred minus the rest.
        let percent = |part: i64| (i128::from(part) * 100 / i128::from(has)) as i64;
        let score = match &world.arguments.node_resources_fit.strategy {
            ScoringStrategy::LeastAllocated(_) => percent(has - used),
            _ => linear(&shape, percent(used)),
        };
        if score > 0 || !by_ratio {
            sum += score * resource.weight;
            weights += resource.weight;
        }
    }
    match weights {
        0 => 0,
        _ if by_ratio => (sum as f64 / weights as f64).round() as i64,
        _ => sum / weights,
    }
}

fn linear(shape: &[(i64, i64)], at: i64) -> i64 {
    let mut before = shape[0];
    for point in shape {
        if at <= point.0 {
            let width = (point.0 - before.0).max(1);
            return before.1 + (point.1 - before.1) * (at - before.0) / width;
        }
        before = *point;
    }
    before.1
}

fn balanced(world: &World, pod: &Value, node: &Value) -> i64 {
    if requested(pod, "cpu") == 0 && requested(pod, "memory") == 0 {
        return 0;
    }
    let fraction = |resource: &str| {
        let has = amount(&node["status"]["allocatable"][resource]);
        let used: i64 = world.pods_on(name(node)).map(|pod| requested(pod, resource)).sum();
        (has > 0).then(|| ((used + requested(pod, resource)) as f64 / has as f64).min(1.0))
    };
    let deviation = match (fraction("cpu"), fraction("memory")) {
        (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * 100.0) as i64
}

// Images.

fn images(world: &World, pod: &Value, node: &Value) -> i64 {
    let size = |node: &Value, image: &str| {
        let mut images = list(&node["status"]["images"]).iter();
        let found = images.rfind(|one| list(&one["names"]).iter().any(|name| name == image));
        found.map(|one| one["sizeBytes"].as_i64().expect("a size"))
    };
    let containers = list(&pod["spec"]["containers"]);
    let mut sum = 0;
    for container in containers {
        let image = format!("{}:latest", container["image"].as_str().expect("an image"));
        let having = world.nodes.values().filter(|node| size(node, &image).is_some()).count();
        let spread = having as f64 / world.nodes.len() as f64;
        sum += size(node, &image).map_or(0, |bytes| (bytes as f64 * spread) as i64);
    }
    let (least, most) = (23 << 20, (1000 << 20) * containers.len() as i64);
    HUNDRED * (sum.clamp(least, most) - least) / (most - least)
}
