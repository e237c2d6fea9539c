//! What an object uses of a namespace's quotas.

use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use orch_core::{ResourceType, quantity::Amount};
use serde_json::Value;

use super::super::pod_shape::{Amounts, amounts, containers, pod_total, requirement};

/// Core resources that can be counted by their bare name too.
const COUNTED: [&str; 5] =
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets", "services"];

fn one() -> Amount {
    Amount::from_value(1, orch_core::quantity::Format::DecimalSI)
}

fn number(count: usize) -> Amount {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Amount::from_value(count, orch_core::quantity::Format::DecimalSI)
}

/// What an object uses, by quota resource name.
pub(super) fn of(resource: &ResourceType, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    used.insert(format!("count/{}", resource.group_resource()), one());
    if !resource.group.is_empty() {
        return used;
    }
    match &*resource.plural {
        "pods" => pod(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        "services" => service(object, &mut used),
        _ => {}
    }
    if COUNTED.contains(&&*resource.plural) {
        used.insert(resource.plural.to_string(), one());
    }
    used
}

fn pod(pod: &Value, used: &mut Amounts) {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return;
    }
    used.insert("pods".into(), one());
    for (name, amount) in pod_total(&pod["spec"], "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(&pod["spec"], "limits") {
        used.insert(format!("limits.{name}"), amount);
    }
}

fn claim(claim: &Value, used: &mut Amounts) {
    let storage = amounts(&claim["spec"]["resources"]["requests"]);
    let storage = storage.get("storage").copied().unwrap_or_default();
    used.insert("persistentvolumeclaims".into(), one());
    used.insert("requests.storage".into(), storage);
    if let Some(class) = claim["spec"]["storageClassName"].as_str() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{prefix}/persistentvolumeclaims"), one());
        used.insert(format!("{prefix}/requests.storage"), storage);
    }
}

fn service(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(0, Vec::len);
    match spec["type"].as_str() {
        Some("NodePort") => {
            used.insert("services.nodeports".into(), number(ports));
        }
        Some("LoadBalancer") => {
            used.insert("services.loadbalancers".into(), one());
            if spec["allocateLoadBalancerNodePorts"] != false {
                used.insert("services.nodeports".into(), number(ports));
            }
        }
        _ => {}
    }
}

fn is_best_effort(spec: &Value) -> bool {
    let mut all = containers(spec, "containers").chain(containers(spec, "initContainers"));
    all.all(|container| {
        ["requests", "limits"].iter().all(|field| {
            let own = amounts(&container["resources"][field]);
            !own.contains_key("cpu") && !own.contains_key("memory")
        })
    })
}

fn has_cross_namespace_affinity(spec: &Value) -> bool {
    let terms = |kind: &str| {
        let affinity = &spec["affinity"][kind];
        let required = affinity["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = preferred.into_iter().flatten().map(|term| &term["podAffinityTerm"]);
        let crosses = |term: &Value| {
            term["namespaces"].as_array().is_some_and(|n| !n.is_empty())
                || !term["namespaceSelector"].is_null()
        };
        required.into_iter().flatten().chain(preferred).any(crosses)
    };
    terms("podAffinity") || terms("podAntiAffinity")
}

fn in_one_scope(scope: &str, operator: &str, values: &[String], pod: &Value) -> bool {
    let spec = &pod["spec"];
    let terminating = spec["activeDeadlineSeconds"].is_i64();
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "CrossNamespacePodAffinity" => has_cross_namespace_affinity(spec),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or_default();
            match operator {
                "In" => values.iter().any(|value| value == class),
                "NotIn" => !values.iter().any(|value| value == class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

/// Whether a quota is about the object at all. Scopes select among pods; a quota with scopes is
/// about nothing else.
pub(super) fn in_scope(spec: &ResourceQuotaSpec, pod: Option<&Value>) -> bool {
    let plain = spec.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    let selected = selected.map(|requirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        (requirement.scope_name.as_str(), requirement.operator.as_str(), values)
    });
    let mut scopes = plain.chain(selected).peekable();
    match pod {
        None => scopes.peek().is_none(),
        Some(pod) => {
            scopes.all(|(scope, operator, values)| in_one_scope(scope, operator, values, pod))
        }
    }
}

/// The compute resources that a quota limits and some container does not mention, as
/// `limits.cpu for: web`.
pub(super) fn missing_amounts(hard: &Amounts, spec: &Value) -> Vec<String> {
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
        let silent: Vec<&str> = all
            .filter(|container| !requirement(container, field).contains_key(name))
            .map(|container| container["name"].as_str().unwrap_or_default())
            .collect();
        (!silent.is_empty()).then(|| format!("{key} for: {}", silent.join(",")))
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_select_pods() {
        let deadline = json!({"spec": {"activeDeadlineSeconds": 5, "containers": []}});
        let sized = json!({"spec": {"priorityClassName": "high", "containers": [
            {"resources": {"requests": {"cpu": "1"}}},
        ]}});
        let check = |spec: Value, pod: &Value, expected: bool| {
            let parsed = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(in_scope(&parsed, Some(pod)), expected, "{spec} {pod}");
        };
        check(json!({}), &sized, true);
        check(json!({"scopes": ["Terminating"]}), &deadline, true);
        check(json!({"scopes": ["Terminating"]}), &sized, false);
        check(json!({"scopes": ["BestEffort", "Terminating"]}), &deadline, true);
        check(json!({"scopes": ["NotBestEffort"]}), &sized, true);
        let priority = |operator: &str| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]},
            ]}})
        };
        check(priority("In"), &sized, true);
        check(priority("NotIn"), &sized, false);
        check(priority("In"), &deadline, false);
        assert!(!in_scope(&serde_json::from_value(priority("In")).unwrap(), None));
    }
}
