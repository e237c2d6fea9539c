//! What pods ask for and may use.
//!
//! Source: `k8s.io/component-helpers/resource/helpers.go`, `pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::quantity::Amount;

use super::spec::{self, Role};
use crate::runtime::ResourceLimits;

pub(crate) type Amounts = BTreeMap<String, Amount>;

pub(crate) fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let parsed = |(name, quantity): (&String, &Quantity)| {
        Some((name.clone(), Amount::try_from(quantity).ok()?))
    };
    list.into_iter().flatten().filter_map(parsed).collect()
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    // What has a limit but no request asks for its limit; the API defaults it so.
    let mut all = amounts(resources.and_then(|r| r.limits.as_ref()));
    all.extend(amounts(resources.and_then(|r| r.requests.as_ref())));
    all
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match to.get_mut(name) {
            Some(sum) => *sum += *amount,
            None => _ = to.insert(name.clone(), *amount),
        }
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let value = to.entry(name.clone()).or_insert(*amount);
        *value = (*value).max(*amount);
    }
}

/// What a pod asks of its node: its containers and sidecars together, or the most that an init
/// container and the sidecars before it need, and its overhead.
pub(crate) fn pod_requests(pod: &Pod) -> Amounts {
    let spec = spec::spec(pod);
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut total, &requests(container.resources.as_ref()));
    }
    for init in spec::init_containers(pod) {
        let own = requests(init.resources.as_ref());
        if spec::init_role(init) == Role::Sidecar {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            raise(&mut peak, &with_sidecars);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    total.extend(requests(spec.resources.as_ref()));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// Guaranteed, Burstable or BestEffort.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for (_, container) in spec::all_containers(pod) {
        let resources = container.resources.as_ref();
        let limits = amounts(resources.and_then(|r| r.limits.as_ref()));
        let requests = requests(resources);
        for name in ["cpu", "memory"] {
            let (limit, request) = (limits.get(name), requests.get(name));
            any |= limit.or(request).is_some_and(|a| !a.is_zero());
            guaranteed &= limit.is_some_and(|l| !l.is_zero()) && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A container's limits as the runtime takes them.
///
/// Source: `pkg/kubelet/qos/policy.go` for the OOM score.
pub(crate) fn limits(pod: &Pod, container: &Container, node_memory_bytes: i64) -> ResourceLimits {
    let limits = amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let requests = requests(container.resources.as_ref());
    let memory_request = requests.get("memory").map_or(0, |a| a.value());
    let oom_score_adj = match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = i128::from(memory_request) * 1000 / i128::from(node_memory_bytes.max(1));
            i32::try_from(1000 - share).unwrap_or(2).clamp(3, 999)
        }
    };
    let huge = |(name, amount): (&String, &Amount)| {
        Some((name.strip_prefix("hugepages-")?.to_owned(), amount.value()))
    };
    ResourceLimits {
        cpu_limit_millis: limits.get("cpu").map(|a| a.milli_value()),
        cpu_request_millis: requests.get("cpu").map(|a| a.milli_value()),
        memory_limit_bytes: limits.get("memory").map(|a| a.value()),
        oom_score_adj,
        huge_pages_bytes: limits.iter().filter_map(huge).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "tests read better so")]
    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn cpu(amount: &str) -> Value {
        json!({ "requests": { "cpu": amount } })
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let pod = pod(json!({
            "initContainers": [
                { "name": "s", "restartPolicy": "Always", "resources": cpu("100m") },
                { "name": "i", "resources": cpu("500m") }
            ],
            "containers": [
                { "name": "a", "resources": cpu("200m") },
                { "name": "b", "resources": { "limits": { "cpu": "100m" } } }
            ],
            "overhead": { "cpu": "50m" }
        }));
        assert_eq!(pod_requests(&pod)["cpu"].milli_value(), 650);
    }

    #[test]
    fn qos_classes() {
        let check = |resources| {
            let containers = json!([{ "name": "a", "resources": resources }]);
            qos_class(&pod(json!({ "containers": containers })))
        };
        let full = json!({ "cpu": "1", "memory": "1Gi" });
        assert_eq!(check(json!({})), "BestEffort");
        assert_eq!(check(json!({ "limits": full })), "Guaranteed");
        assert_eq!(check(json!({ "limits": full, "requests": { "cpu": "100m" } })), "Burstable");
        assert_eq!(check(json!({ "requests": full })), "Burstable");
    }
}
