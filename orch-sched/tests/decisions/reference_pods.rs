//! The reference for rules about other pods: spreading, affinity and anti-affinity.

use std::collections::{BTreeMap, BTreeSet};

use orch_sched::plugins::SpreadDefaults;
use serde_json::{Value, json};

use crate::{
    reference::{
        HUNDRED, Status, hard_taints_are_tolerated, label, list, matches_node_affinity, name,
        selects,
    },
    world::World,
};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn namespace(pod: &Value) -> &str {
    text(&pod["metadata"], "namespace")
}

// Spreading.

fn constraints(world: &World, pod: &Value, when: &str) -> Vec<Value> {
    let own = list(&pod["spec"]["topologySpreadConstraints"]);
    let all = if own.is_empty() { defaults(world, pod) } else { own.to_vec() };
    all.into_iter().filter(|constraint| constraint["whenUnsatisfiable"] == when).collect()
}

/// Whether nodes that lack a label are ranked all the same: those of a pod that has no constraints
/// of its own, where the profile has none either.
fn is_lenient(world: &World, pod: &Value) -> bool {
    list(&pod["spec"]["topologySpreadConstraints"]).is_empty()
        && world.arguments.spread_defaults == SpreadDefaults::System
}

/// The constraints of a pod that has none of its own, over what belongs to its services and owner.
fn defaults(world: &World, pod: &Value) -> Vec<Value> {
    let constraints = match &world.arguments.spread_defaults {
        SpreadDefaults::List(constraints) => serde_json::to_value(constraints).expect("JSON"),
        SpreadDefaults::System => json!([
            {"topologyKey": "kubernetes.io/hostname", "maxSkew": 3,
             "whenUnsatisfiable": "ScheduleAnyway"},
            {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 5,
             "whenUnsatisfiable": "ScheduleAnyway"},
        ]),
    };
    let mut selector = json!({"matchLabels": {}, "matchExpressions": []});
    let near = |object: &&Value| object["metadata"]["namespace"] == pod["metadata"]["namespace"];
    for service in world.services.iter().filter(near) {
        let own = service["spec"]["selector"].as_object().into_iter().flatten();
        let own: Vec<_> = own.collect();
        if own.iter().all(|(key, value)| label(pod, key) == value.as_str()) {
            own.iter().for_each(|(key, value)| selector["matchLabels"][*key] = (*value).clone());
        }
    }
    let owner = &pod["metadata"]["ownerReferences"][0]["name"];
    for owner in
        world.replica_sets.iter().filter(near).filter(|one| &one["metadata"]["name"] == owner)
    {
        // Both ask for it, so that nothing is lost where they name the same label.
        let own = owner["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
        let own = own.map(|(key, v)| json!({"key": key, "operator": "In", "values": [v]}));
        let expressions = list(&owner["spec"]["selector"]["matchExpressions"]).iter().cloned();
        let all = list(&selector["matchExpressions"]).iter().cloned();
        let all: Vec<Value> = all.chain(own).chain(expressions).collect();
        selector["matchExpressions"] = all.into();
    }
    let nothing = selector == json!({"matchLabels": {}, "matchExpressions": []});
    let mut constraints = if nothing { Vec::new() } else { list(&constraints).to_vec() };
    constraints.iter_mut().for_each(|one| one["labelSelector"] = selector.clone());
    constraints
}

/// Whether the pods of a node count: it has all the labels and the policies include it.
fn counts(pod: &Value, node: &Value, constraint: &Value, all: &[Value], lenient: bool) -> bool {
    (lenient || all.iter().all(|one| label(node, text(one, "topologyKey")).is_some()))
        && (constraint["nodeAffinityPolicy"] == "Ignore" || matches_node_affinity(pod, node))
        && (constraint["nodeTaintsPolicy"] != "Honor" || hard_taints_are_tolerated(pod, node))
}

/// `matchLabelKeys` narrow the selector to pods with the values that this pod has.
fn is_selected(constraint: &Value, pod: &Value, other: &Value) -> bool {
    let keys = list(&constraint["matchLabelKeys"]).iter().filter_map(Value::as_str);
    let mut keys = keys.filter(|key| label(pod, key).is_some());
    selects(&constraint["labelSelector"], other)
        && keys.all(|key| label(pod, key) == label(other, key))
}

fn matching(world: &World, constraint: &Value, pod: &Value, node: &Value) -> i64 {
    // Upstream counts nothing for a selector without requirements.
    let keys = list(&constraint["matchLabelKeys"]).iter().filter_map(Value::as_str);
    let narrowed = keys.filter(|key| label(pod, key).is_some()).count() > 0;
    let empty = constraint["labelSelector"].as_object().is_some_and(serde_json::Map::is_empty);
    if empty && !narrowed {
        return 0;
    }
    let pods = world.pods_on(name(node)).filter(|other| {
        namespace(other) == namespace(pod)
            && other["metadata"]["deletionTimestamp"].is_null()
            && is_selected(constraint, pod, other)
    });
    pods.count() as i64
}

pub(crate) fn spread_allows(world: &World, pod: &Value, node: &Value) -> Status {
    let all = &constraints(world, pod, "DoNotSchedule");
    let mut each = all.iter().map(|constraint| {
        let key = text(constraint, "topologyKey");
        let Some(here) = label(node, key) else { return Status::Unresolvable };
        let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
        for node in world.nodes.values().filter(|node| counts(pod, node, constraint, all, false)) {
            let value = label(node, key).expect("a node that counts has the label");
            *domains.entry(value).or_default() += matching(world, constraint, pod, node);
        }
        let few = (domains.len() as i64) < constraint["minDomains"].as_i64().unwrap_or(1);
        let least = if few { 0 } else { domains.values().copied().min().unwrap_or(0) };
        let itself = i64::from(is_selected(constraint, pod, pod));
        let skew = domains.get(here).copied().unwrap_or(0) + itself - least;
        let fits = skew <= constraint["maxSkew"].as_i64().expect("a skew");
        if fits { Status::Fits } else { Status::Unschedulable }
    });
    each.find(|status| *status != Status::Fits).unwrap_or(Status::Fits)
}

pub(crate) fn spread_scores(world: &World, pod: &Value, nodes: &[&Value]) -> Vec<i64> {
    let all = constraints(world, pod, "ScheduleAnyway");
    let lenient = is_lenient(world, pod);
    if all.is_empty() {
        return vec![0; nodes.len()];
    }
    let labelled = |node: &&Value| {
        lenient || all.iter().all(|one| label(node, text(one, "topologyKey")).is_some())
    };
    let ranked: Vec<&Value> = nodes.iter().copied().filter(labelled).collect();
    let raw = |node: &Value| {
        let mut sum = 0.0;
        for constraint in &all {
            let key = text(constraint, "topologyKey");
            let here = label(node, key);
            if here.is_none() {
                continue;
            }
            let values: BTreeSet<_> = ranked.iter().map(|node| label(node, key)).collect();
            let by_node = key == "kubernetes.io/hostname";
            let (count, size) = if by_node {
                (matching(world, constraint, pod, node), ranked.len())
            } else {
                let same = world.nodes.values().filter(|other| {
                    label(other, key) == here && counts(pod, other, constraint, &all, lenient)
                });
                (same.map(|node| matching(world, constraint, pod, node)).sum(), values.len())
            };
            let skew = constraint["maxSkew"].as_i64().expect("a skew");
            sum += count as f64 * (size as f64 + 2.0).ln() + (skew - 1) as f64;
        }
        sum.round() as i64
    };
    let scores: Vec<Option<i64>> =
        nodes.iter().map(|node| labelled(node).then(|| raw(node))).collect();
    let min = scores.iter().flatten().copied().min().unwrap_or(0);
    let max = scores.iter().flatten().copied().max().unwrap_or(0);
    let normalized = |score: Option<i64>| match score {
        None => 0,
        Some(_) if max == 0 => HUNDRED,
        Some(score) => HUNDRED * (max + min - score) / max,
    };
    scores.into_iter().map(normalized).collect()
}

// Affinity and anti-affinity.

fn terms<'a>(pod: &'a Value, kind: &str, required: bool) -> Vec<(&'a Value, i64)> {
    let affinity = &pod["spec"]["affinity"][kind];
    if required {
        let terms = list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
        return terms.iter().map(|term| (term, 1)).collect();
    }
    let terms = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
    terms.map(|t| (&t["podAffinityTerm"], t["weight"].as_i64().expect("a weight"))).collect()
}

/// Whether a term that `owner` has is about `other`.
fn is_about(world: &World, owner: &Value, term: &Value, other: &Value) -> bool {
    let named = list(&term["namespaces"]);
    let by_selector = &term["namespaceSelector"];
    let in_namespace = if named.is_empty() && by_selector.is_null() {
        namespace(owner) == namespace(other)
    } else {
        named.iter().any(|one| one == namespace(other))
            || world
                .namespaces
                .iter()
                .any(|one| name(one) == namespace(other) && selects(by_selector, one))
    };
    in_namespace && selects(&term["labelSelector"], other)
}

/// The placed pods with their nodes.
fn placed(world: &World) -> impl Iterator<Item = (&Value, &Value)> {
    let pods = world.pods.values();
    pods.filter_map(|pod| Some((pod, world.nodes.get(text(&pod["spec"], "nodeName"))?)))
}

fn same_place(a: &Value, b: &Value, key: &str) -> bool {
    label(a, key).is_some() && label(a, key) == label(b, key)
}

/// Upstream does not look at other pods, not even at those that wait for room, when the pod
/// requires nothing of its surroundings and no placed pod has anything against it.
pub(crate) fn affinity_matters(world: &World, pod: &Value) -> bool {
    let own = |kind: &str| !terms(pod, kind, true).is_empty();
    own("podAffinity")
        || own("podAntiAffinity")
        || placed(world).any(|(other, where_)| {
            terms(other, "podAntiAffinity", true).iter().any(|(term, _)| {
                is_about(world, other, term, pod)
                    && label(where_, text(term, "topologyKey")).is_some()
            })
        })
}

pub(crate) fn affinity_allows(world: &World, pod: &Value, node: &Value) -> Status {
    if world.without_affinity {
        return Status::Fits;
    }
    let key = |term: &Value| text(term, "topologyKey").to_owned();
    let anti = terms(pod, "podAntiAffinity", true);
    let near = anti.iter().any(|(term, _)| {
        placed(world).any(|(other, where_)| {
            is_about(world, pod, term, other) && same_place(node, where_, &key(term))
        })
    });
    let unwanted = placed(world).any(|(other, where_)| {
        terms(other, "podAntiAffinity", true).iter().any(|(term, _)| {
            is_about(world, other, term, pod) && same_place(node, where_, &key(term))
        })
    });
    match required_affinity_holds(world, pod, node) {
        false => Status::Unresolvable,
        true if near || unwanted => Status::Unschedulable,
        true => Status::Fits,
    }
}

/// Only pods that all terms are about count. The first of a group may start anywhere that has the
/// labels.
fn required_affinity_holds(world: &World, pod: &Value, node: &Value) -> bool {
    let all = terms(pod, "podAffinity", true);
    let about_all = |other: &Value| all.iter().all(|(term, _)| is_about(world, pod, term, other));
    let companions: Vec<_> = placed(world).filter(|(other, _)| about_all(other)).collect();
    let key = |term: &Value| text(term, "topologyKey").to_owned();
    let has_labels = all.iter().all(|(term, _)| label(node, &key(term)).is_some());
    let met = all
        .iter()
        .all(|(term, _)| companions.iter().any(|(_, where_)| same_place(node, where_, &key(term))));
    // A companion on a node without any of the labels is in no place that counts.
    let nobody = !companions
        .iter()
        .any(|(_, where_)| all.iter().any(|(term, _)| label(where_, &key(term)).is_some()));
    all.is_empty() || has_labels && (met || nobody && about_all(pod))
}

pub(crate) fn affinity_scores(world: &World, pod: &Value, nodes: &[&Value]) -> Vec<i64> {
    let arguments = &world.arguments.inter_pod_affinity;
    let own = |kind: &str| !terms(pod, kind, false).is_empty();
    let ignoring =
        arguments.ignore_preferred_of_existing && !own("podAffinity") && !own("podAntiAffinity");
    let raw = |node: &&Value| {
        let mut sum = 0;
        for (other, where_) in placed(world) {
            let mut count = |owner, about, kind, required, sign: i64| {
                for (term, weight) in terms(owner, kind, required) {
                    let near = same_place(node, where_, text(term, "topologyKey"));
                    if near && is_about(world, owner, term, about) {
                        sum += sign * weight;
                    }
                }
            };
            count(pod, other, "podAffinity", false, 1);
            count(pod, other, "podAntiAffinity", false, -1);
            if ignoring {
                continue;
            }
            count(other, pod, "podAffinity", true, arguments.hard_weight);
            count(other, pod, "podAffinity", false, 1);
            count(other, pod, "podAntiAffinity", false, -1);
        }
        sum
    };
    let scores: Vec<i64> = nodes.iter().map(raw).collect();
    let (Some(min), Some(max)) = (scores.iter().min(), scores.iter().max()) else { return scores };
    let part = |score: &i64| (score - min) as f64 / (max - min).max(1) as f64;
    scores.iter().map(|score| (100.0 * part(score)) as i64).collect()
}
