//! Reading pods as JSON: their containers and what these ask for.

use serde_json::Value;

use super::Amounts;
use crate::quantity::Amount;

/// The containers of a list of the spec: `containers`, `initContainers`, `ephemeralContainers`.
pub fn containers<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    spec[list].as_array().into_iter().flatten()
}

/// Amounts out of a map of quantities. What is no quantity is left for validation to refuse.
pub fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), amount(value)?))).collect()
}

/// An amount out of a quantity, which JSON may have as a string or a number.
pub fn amount(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, more: &Amounts) {
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
pub fn pod_total(spec: &Value, field: &str) -> Amounts {
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
pub fn requirement(container: &Value, field: &str) -> Amounts {
    let mut own = amounts(&container["resources"][field]);
    if field == "requests" {
        for (name, limit) in amounts(&container["resources"]["limits"]) {
            own.entry(name).or_insert(limit);
        }
    }
    own
}

/// The compute resources that a quota limits and some container does not mention, as
/// `limits.cpu for: web`.
pub fn missing_amounts(hard: &Amounts, spec: &Value) -> Vec<String> {
    let compute = hard.keys().filter_map(|key| {
        let (field, name) = match key.as_str() {
            "cpu" | "memory" => ("requests", key.as_str()),
            _ => key.split_once('.')?,
        };
        let known = matches!(name, "cpu" | "memory") && matches!(field, "requests" | "limits");
        known.then_some((key, field, name))
    });
    let missing = compute.filter_map(|(key, field, name)| {
        let all = containers(spec, "containers").chain(containers(spec, "initContainers"));
        let mut silent: Vec<&str> = all
            .filter(|container| !requirement(container, field).contains_key(name))
            .map(|container| container["name"].as_str().unwrap_or_default())
            .collect();
        silent.sort_unstable();
        (!silent.is_empty()).then(|| format!("{key} for: {}", silent.join(",")))
    });
    missing.collect()
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
