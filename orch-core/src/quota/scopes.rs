//! The scopes that an object is in.

use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use serde_json::Value;

use super::pod::{amounts, containers};

/// What scopes ask of an object. Scopes select among pods and claims: a quota with scopes is about
/// nothing else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scopes {
    None,
    Pod {
        terminating: bool,
        best_effort: bool,
        crosses_namespaces: bool,
        priority_class: String,
    },
    /// The volume attributes classes that a claim has or is to have.
    Claim {
        classes: Vec<String>,
    },
}

impl Scopes {
    pub(super) fn of_pod(pod: &Value) -> Self {
        let spec = &pod["spec"];
        Self::Pod {
            terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0),
            best_effort: is_best_effort(spec),
            crosses_namespaces: has_cross_namespace_affinity(spec),
            priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn of_claim(claim: &Value) -> Self {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let names = [
            &spec["volumeAttributesClassName"],
            &status["currentVolumeAttributesClassName"],
            &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
        ];
        let names = names.into_iter().filter_map(Value::as_str).filter(|name| !name.is_empty());
        Self::Claim { classes: names.map(str::to_owned).collect() }
    }

    pub(super) fn are_in(&self, quota: &ResourceQuotaSpec) -> bool {
        let plain = quota.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
        let selector = quota.scope_selector.iter();
        let selected = selector.flat_map(|selector| selector.match_expressions.iter().flatten());
        let selected = selected.map(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            (requirement.scope_name.as_str(), requirement.operator.as_str(), values)
        });
        plain.chain(selected).all(|(scope, operator, values)| self.is_in(scope, operator, values))
    }

    fn is_in(&self, scope: &str, operator: &str, values: &[String]) -> bool {
        match (self, scope) {
            (Self::Pod { terminating, .. }, "Terminating") => *terminating,
            (Self::Pod { terminating, .. }, "NotTerminating") => !terminating,
            (Self::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Self::Pod { best_effort, .. }, "NotBestEffort") => !best_effort,
            (Self::Pod { crosses_namespaces, .. }, "CrossNamespacePodAffinity") => {
                *crosses_namespaces
            }
            (Self::Pod { priority_class, .. }, "PriorityClass") => {
                let class = Some(priority_class).filter(|class| !class.is_empty());
                selects(operator, values, class)
            }
            (Self::Claim { classes }, "VolumeAttributesClass") => {
                let mut classes = classes.iter().map(Some);
                let first = classes.next().unwrap_or(None);
                selects(operator, values, first)
                    || classes.any(|class| selects(operator, values, class))
            }
            _ => false,
        }
    }
}

/// As a label selector does, of a label that may not be there.
fn selects(operator: &str, values: &[String], value: Option<&String>) -> bool {
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "DoesNotExist" => value.is_none(),
        _ => value.is_some(),
    }
}

/// Nothing in the pod asks for processor time or memory.
fn is_best_effort(spec: &Value) -> bool {
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|field| {
            let own = amounts(&resources[field]);
            ["cpu", "memory"].iter().any(|name| own.get(*name).is_some_and(|a| !a.is_zero()))
        })
    };
    let mut all = containers(spec, "containers").chain(containers(spec, "initContainers"));
    !asks(&spec["resources"]) && !all.any(|container| asks(&container["resources"]))
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
            assert_eq!(Scopes::of_pod(pod).are_in(&parsed), expected, "{spec} {pod}");
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
        assert!(!Scopes::None.are_in(&serde_json::from_value(priority("In")).unwrap()));
    }

    #[test]
    fn scopes_select_claims_by_any_of_their_classes() {
        let gold = json!({"spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "silver"}});
        let check = |operator: &str, values: &[&str], claim: &Value, expected: bool| {
            let spec = json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "VolumeAttributesClass", "operator": operator, "values": values},
            ]}});
            let parsed = serde_json::from_value(spec).unwrap();
            assert_eq!(Scopes::of_claim(claim).are_in(&parsed), expected, "{operator} {values:?}");
        };
        check("In", &["silver"], &gold, true);
        check("In", &["bronze"], &gold, false);
        check("Exists", &[], &gold, true);
        check("Exists", &[], &json!({}), false);
        check("DoesNotExist", &[], &json!({}), true);
    }
}
