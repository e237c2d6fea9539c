//! A pod's quality of service class.
//!
//! Source: `pkg/apis/core/helper/qos/qos.go`.

use std::collections::BTreeMap;

use orch_core::quantity::Amount;
use serde_json::Value;

use crate::kinds::{field::Field, pod_spec::resources::amount};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn class(pod: &Value) -> &'static str {
    let spec = Field::root(pod).get("spec");
    let own = spec.get("resources");
    let holders: Vec<Field<'_>> = if own.has("requests") || own.has("limits") {
        vec![own]
    } else {
        ["initContainers", "containers"]
            .iter()
            .flat_map(|list| spec.items(list))
            .map(|container| container.get("resources"))
            .collect()
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    for holder in &holders {
        add(holder, "requests", &mut requests);
        let found = add(holder, "limits", &mut limits);
        guaranteed &= found == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.len() == limits.len()
        && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount));
    if guaranteed && equal { "Guaranteed" } else { "Burstable" }
}

/// Adds up processor and memory; gives how many of the two were asked for.
fn add<'a>(holder: &Field<'a>, list: &str, sum: &mut BTreeMap<&'a str, Amount>) -> usize {
    let mut found = 0;
    for (name, value) in holder.entries(list) {
        if !matches!(name, "cpu" | "memory") {
            continue;
        }
        if let Some(amount) = amount(value).filter(|amount| !amount.is_zero()) {
            *sum.entry(name).or_default() += amount;
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_are_upstreams() {
        let check = |resources: Value, class_wanted: &str| {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(class(&pod), class_wanted, "{pod}");
        };
        let full = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": full, "requests": full}), "Guaranteed");
        check(json!({"limits": full, "requests": {"cpu": "500m", "memory": "1Gi"}}), "Burstable");
        check(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable");
        check(json!({"requests": {"example.com/x": "1"}}), "BestEffort");
    }
}
