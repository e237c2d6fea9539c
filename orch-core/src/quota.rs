//! What objects use of their namespace's quotas.
//!
//! Admission charges what is new, a controller counts what is there: both by this.
//!
//! Source: `k8s.io/kubernetes/pkg/quota/v1/evaluator/core`, `k8s.io/apiserver/pkg/quota/v1`.
//! Differs: a pod whose containers were resized in place is counted by its spec alone.

mod devices;
mod extended;
mod names;
mod pod;
mod scopes;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::ResourceQuotaSpec, apimachinery::pkg::api::resource::Quantity};
use serde_json::Value;

use self::scopes::Scopes;
pub use self::{
    extended::{Extended, is_of_devices},
    names::{counted, is_counted, is_measured},
    pod::{add, amount, amounts, containers, missing_amounts, pod_total, requirement},
};
use crate::quantity::{Amount, Format};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Amount>;

/// Amounts out of a typed map of quantities. What is no quantity is left out.
pub fn parsed(map: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let entries = map.into_iter().flatten();
    entries.filter_map(|(name, quantity)| Some((name.clone(), quantity.0.parse().ok()?))).collect()
}

/// What one object uses, and which scopes it is in.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    amounts: Amounts,
    scopes: Scopes,
    /// From then on only the object itself counts: the pod should be gone.
    ends: Option<Timestamp>,
}

impl Usage {
    /// What an object of this resource uses.
    pub fn of(group: &str, plural: &str, object: &Value) -> Self {
        let mut amounts = Amounts::from([(names::object_count(group, plural), whole(1))]);
        let (mut scopes, mut ends) = (Scopes::None, None);
        match (group, plural) {
            ("", "pods") => {
                scopes = Scopes::of_pod(object);
                if !is_over(object) {
                    ends = gone_at(object);
                    of_pod(object, &mut amounts);
                }
            }
            ("", "persistentvolumeclaims") => {
                scopes = Scopes::of_claim(object);
                of_claim(object, &mut amounts);
            }
            ("", "services") => of_service(object, &mut amounts),
            ("resource.k8s.io", "resourceclaims") => devices::of_claim(object, &mut amounts),
            ("", alias) if names::ALIASES.contains(&alias) => {
                amounts.insert(alias.to_owned(), whole(1));
            }
            _ => {}
        }
        Self { amounts, scopes, ends }
    }

    /// What it uses now, by quota resource name.
    pub fn amounts(&self, now: Timestamp) -> impl Iterator<Item = (&str, Amount)> {
        let over = self.ends.is_some_and(|ends| now > ends);
        let counts = move |name: &str| !over || name.starts_with(names::COUNT);
        self.amounts.iter().filter(move |(name, _)| counts(name)).map(|(n, a)| (n.as_str(), *a))
    }

    /// Whether a quota is about the object at all: it is in all of the quota's scopes.
    pub fn is_in_scope(&self, quota: &ResourceQuotaSpec) -> bool {
        self.scopes.are_in(quota)
    }
}

fn whole(count: usize) -> Amount {
    Amount::from_value(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSI)
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// A pod that should be gone by then is not held against anybody: its node may be lost.
fn gone_at(pod: &Value) -> Option<Timestamp> {
    let meta = &pod["metadata"];
    let deleted: Timestamp = meta["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace_s = meta["deletionGracePeriodSeconds"].as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace_s)).ok()
}

fn of_pod(pod: &Value, used: &mut Amounts) {
    used.insert("pods".to_owned(), whole(1));
    for (name, amount) in pod_total(&pod["spec"], "requests") {
        let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if native || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(&pod["spec"], "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn of_claim(claim: &Value, used: &mut Amounts) {
    let beta = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = beta.as_str().or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let mut charge = |name: &str, amount: Amount| {
        used.insert(name.to_owned(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{}{name}", names::OF_CLASS), amount);
        }
    };
    charge("persistentvolumeclaims", whole(1));
    let storage = |map: &Value| amounts(map).get("storage").copied();
    let Some(requested) = storage(&claim["spec"]["resources"]["requests"]) else { return };
    let allocated = storage(&claim["status"]["allocatedResources"]).unwrap_or_default();
    charge("requests.storage", requested.max(allocated).rounded_to_whole());
}

fn of_service(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let balances = spec["type"] == "LoadBalancer";
    let node_ports = if balances && spec["allocateLoadBalancerNodePorts"] == false {
        ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count()
    } else if balances || spec["type"] == "NodePort" {
        ports.len()
    } else {
        0
    };
    used.insert("services".to_owned(), whole(1));
    used.insert("services.nodeports".to_owned(), whole(node_ports));
    used.insert("services.loadbalancers".to_owned(), whole(usize::from(balances)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(plural: &str, object: &Value, now: &str) -> Vec<String> {
        let usage = Usage::of("", plural, object);
        let now = now.parse().unwrap();
        usage.amounts(now).map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn a_pod_counts_until_it_should_be_gone() {
        let mut pod = json!({"spec": {"containers": [{"resources": {
            "requests": {"cpu": "500m", "example.com/gpu": "2"}, "limits": {"cpu": "1"},
        }}]}});
        let all = [
            "count/pods=1",
            "cpu=500m",
            "limits.cpu=1",
            "pods=1",
            "requests.cpu=500m",
            "requests.example.com/gpu=2",
        ];
        let now = "2026-01-01T00:01:00Z";
        assert_eq!(used("pods", &pod, now), all);
        pod["metadata"] = json!({
            "deletionTimestamp": "2026-01-01T00:00:50Z", "deletionGracePeriodSeconds": 30,
        });
        assert_eq!(used("pods", &pod, now), all);
        assert_eq!(used("pods", &pod, "2026-01-01T00:01:21Z"), ["count/pods=1"]);
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(used("pods", &pod, now), ["count/pods=1"]);
    }

    #[test]
    fn services_and_claims_count_what_they_hold() {
        let now = "2026-01-01T00:00:00Z";
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {"nodePort": 30080}],
            "allocateLoadBalancerNodePorts": false}});
        assert_eq!(
            used("services", &service, now),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=1"]
        );
        let claim = json!({
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}},
            "status": {"allocatedResources": {"storage": "1Ki"}},
        });
        assert_eq!(
            used("persistentvolumeclaims", &claim, now),
            [
                "count/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/requests.storage=1Ki",
                "persistentvolumeclaims=1",
                "requests.storage=1Ki",
            ]
        );
        assert_eq!(used("secrets", &json!({}), now), ["count/secrets=1", "secrets=1"]);
    }
}
