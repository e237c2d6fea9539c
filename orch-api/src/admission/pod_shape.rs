//! Reading pods as JSON: their containers and what these ask for.

use std::collections::BTreeMap;

use orch_core::quantity::Amount;
use serde_json::{Map, Value};

/// Amounts by resource name.
pub(super) type Amounts = BTreeMap<String, Amount>;

/// The containers of a list of the spec: `containers`, `initContainers`, `ephemeralContainers`.
pub(super) fn containers<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    spec[list].as_array().into_iter().flatten()
}

/// Runs over the init containers and the containers to change them.
pub(super) fn each_container(spec: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

/// Amounts out of a map of quantities. What is no quantity is left for validation to refuse.
pub(super) fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), amount(value)?))).collect()
}

/// An amount out of a quantity, which JSON may have as a string or a number.
pub(super) fn amount(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Adds amounts to others.
pub(super) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

fn at_least(floor: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = floor.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

/// What a pod as a whole needs of `requests` or `limits`: the containers together, or a step of
/// its initialization if that needs more; sidecars run beside both.
///
/// Source: `k8s.io/component-helpers/resource`, `PodRequests`.
pub(super) fn pod_total(spec: &Value, field: &str) -> Amounts {
    let mut running = Amounts::new();
    for container in containers(spec, "containers") {
        add(&mut running, &requirement(container, field));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in containers(spec, "initContainers") {
        let own = requirement(container, field);
        if container["restartPolicy"] == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            at_least(&mut starting, &sidecars);
        } else {
            let mut step = sidecars.clone();
            add(&mut step, &own);
            at_least(&mut starting, &step);
        }
    }
    at_least(&mut running, &starting);
    // Amounts for the pod as a whole go before those of its containers.
    for (name, amount) in amounts(&spec["resources"][field]) {
        running.insert(name, amount);
    }
    let overhead = amounts(&spec["overhead"]);
    for (name, amount) in overhead {
        if field == "requests" || running.contains_key(&name) {
            *running.entry(name).or_default() += amount;
        }
    }
    running
}

/// What a container asks for. A limit without a request is a request too, as defaulting makes it.
pub(super) fn requirement(container: &Value, field: &str) -> Amounts {
    let mut own = amounts(&container["resources"][field]);
    if field == "requests" {
        for (name, limit) in amounts(&container["resources"]["limits"]) {
            own.entry(name).or_insert(limit);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_its_containers_or_its_greediest_step() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        let check = |spec: Value, expected: &str| {
            let total = pod_total(&spec, "requests");
            assert_eq!(total["cpu"].to_string(), expected, "{spec}");
        };
        check(json!({"containers": [of("1"), of("500m")]}), "1500m");
        check(json!({"containers": [of("1")], "initContainers": [of("3")]}), "3");
        check(json!({"containers": [of("1")], "initContainers": [sidecar, of("950m")]}), "1100m");
        check(json!({"containers": [of("1")], "overhead": {"cpu": "250m"}}), "1250m");
    }
}
