//! The devices that a claim may get, by their class.
//!
//! Source: `k8s.io/kubernetes/pkg/quota/v1/evaluator/core/resource_claims.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Amounts, names, whole};

/// So many devices a claim has at most: who asks for all of a kind is charged for as many.
const ALL: usize = 32;

/// Charges a claim for the most devices of each class that it may get. Of a request's alternatives
/// only one is taken: of each class the largest counts.
pub(super) fn of_claim(claim: &Value, used: &mut Amounts) {
    for request in claim["spec"]["devices"]["requests"].as_array().into_iter().flatten() {
        let alternatives = request["firstAvailable"].as_array().filter(|all| !all.is_empty());
        let wanted = match alternatives {
            Some(alternatives) => alternatives.as_slice(),
            None => std::slice::from_ref(&request["exactly"]),
        };
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for one in wanted {
            if let Some(class) = one["deviceClassName"].as_str() {
                let most = most.entry(class).or_default();
                *most = count(one).max(*most);
            }
        }
        for (class, count) in most {
            *used.entry(format!("{class}{}", names::DEVICES_OF_CLASS)).or_default() += whole(count);
        }
    }
}

fn count(request: &Value) -> usize {
    match request["allocationMode"].as_str() {
        Some("ExactCount") => {
            request["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
        }
        Some("All") => ALL,
        // Modes that nobody here knows are not held against anybody.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_charged_for_the_worst_case() {
        let exact = |class: &str, count: u64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": exact("gpu", 2)},
            {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [exact("gpu", 1), exact("gpu", 4), exact("tpu", 3)]},
            {"name": "d", "exactly": {"deviceClassName": "new", "allocationMode": "Some"}},
        ]}}});
        let mut used = Amounts::new();
        of_claim(&claim, &mut used);
        let told: Vec<String> = used
            .iter()
            .map(|(name, amount)| {
                format!("{}={amount}", name.trim_end_matches(names::DEVICES_OF_CLASS))
            })
            .collect();
        assert_eq!(told, ["gpu=6", "new=0", "nic=32", "tpu=3"]);
    }
}
