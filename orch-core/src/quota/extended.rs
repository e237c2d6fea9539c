//! What claims for devices use under the names of extended resources.
//!
//! A pod is charged for the extended resources that it requests. A claim is charged for its devices
//! under the same names; one that a scheduler made for what its pod requests, for what goes beyond
//! that.
//!
//! Source: `k8s.io/kubernetes/pkg/quota/v1/evaluator/core/resource_claims.go`.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{Amounts, Usage, names::DEVICES_OF_CLASS};
use crate::{
    extended_resource::{CLAIM_ANNOTATION, CLASS_PREFIX, DeviceClasses, may_be_devices},
    quantity::Amount,
};

/// Whether claims for devices may use what a quota limits under this name.
pub fn is_of_devices(name: &str) -> bool {
    name.strip_prefix("requests.").is_some_and(may_be_devices)
}

/// What decides, besides a claim itself, what it uses under the names of extended resources: the
/// classes of devices, and the pods and claims of its namespace.
#[derive(Debug)]
pub struct Extended {
    classes: DeviceClasses,
    /// By uid.
    pods: HashMap<String, Value>,
    /// The first claim that was made for each pod's extended resources, by the pod's uid.
    firsts: HashMap<String, Age>,
}

/// When an object was created, and its name.
type Age = (String, String);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn age(object: &Value) -> Age {
    (text(&object["metadata"]["creationTimestamp"]), text(&object["metadata"]["name"]))
}

/// The uid of the pod for whose extended resources a claim was made.
fn claimant(claim: &Value) -> Option<&str> {
    let meta = &claim["metadata"];
    let owners = meta["ownerReferences"]
        .as_array()
        .filter(|_| meta["annotations"][CLAIM_ANNOTATION] == "true")?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let is_pod = owner["kind"] == "Pod" && owner["apiVersion"] == "v1";
    owner["uid"].as_str().filter(|_| is_pod)
}

impl Extended {
    /// With the pods and the claims of one namespace.
    pub fn new<'v>(
        classes: DeviceClasses,
        pods: impl IntoIterator<Item = Value>,
        claims: impl IntoIterator<Item = &'v Value>,
    ) -> Self {
        let pods = pods.into_iter().map(|pod| (text(&pod["metadata"]["uid"]), pod)).collect();
        let mut firsts: HashMap<String, Age> = HashMap::new();
        for claim in claims {
            let Some(pod) = claimant(claim) else { continue };
            let own = age(claim);
            let first = firsts.entry(pod.to_owned()).or_insert_with(|| own.clone());
            if own < *first {
                *first = own;
            }
        }
        Self { classes, pods, firsts }
    }

    /// What a claim uses, by quota resource name. Names that mean no class are left out.
    pub fn of(&self, claim: &Value, now: Timestamp) -> Amounts {
        let mut used = Amounts::new();
        let devices = Usage::of("resource.k8s.io", "resourceclaims", claim);
        for (name, count) in devices.amounts(now) {
            let Some(class) = name.strip_suffix(DEVICES_OF_CLASS) else { continue };
            if self.classes.behind(&format!("{CLASS_PREFIX}{class}")).is_none() {
                continue;
            }
            used.insert(format!("requests.{CLASS_PREFIX}{class}"), count);
            if let Some(resource) = self.classes.resource_of(class) {
                used.insert(format!("requests.{resource}"), count);
            }
        }
        let Some(pod) = self.charged_pod(claim) else { return used };
        for (name, amount) in Usage::of("", "pods", pod).amounts(now) {
            if let Some(own) = used.get_mut(name) {
                *own -= amount;
            }
        }
        used.retain(|_, amount| *amount > Amount::ZERO);
        used
    }

    /// The pod that is charged for what a claim was made for.
    fn charged_pod(&self, claim: &Value) -> Option<&Value> {
        let uid = claimant(claim)?;
        let pod = self.pods.get(uid)?;
        let is_its = match &pod["status"]["extendedResourceClaimStatus"] {
            // Of several the first is the pod's.
            Value::Null => self.firsts.get(uid).is_none_or(|first| age(claim) <= *first),
            told => told["resourceClaimName"] == claim["metadata"]["name"],
        };
        is_its.then_some(pod)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn classes() -> DeviceClasses {
        let mut classes = DeviceClasses::default();
        let spec = |resource: Option<&str>| json!({"extendedResourceName": resource});
        for (name, resource) in [("gpus", Some("example.com/gpu")), ("nics", None)] {
            let class = json!({"metadata": {"name": name}, "spec": spec(resource)});
            classes.set(&Arc::new(serde_json::from_value(class).unwrap()));
        }
        classes
    }

    fn claim(name: &str, class: &str, count: u32, pod: Option<&str>) -> Value {
        let exactly =
            json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let mut claim = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}},
        });
        if let Some(uid) = pod {
            claim["metadata"]["annotations"] = json!({CLAIM_ANNOTATION: "true"});
            claim["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Pod", "uid": uid, "controller": true}]);
        }
        claim
    }

    fn pod(gpus: u32, claim: Option<&str>) -> Value {
        let requests = json!({"example.com/gpu": gpus.to_string()});
        json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
            "status": {"extendedResourceClaimStatus":
                claim.map(|name| json!({"resourceClaimName": name}))},
        })
    }

    #[track_caller]
    fn check(claims: &[Value], pod: Option<Value>, expected: &[&str]) {
        let extended = Extended::new(classes(), pod, claims);
        let now = "2026-01-01T00:00:01Z".parse().unwrap();
        let told: Vec<String> = extended
            .of(&claims[0], now)
            .iter()
            .map(|(name, amount)| format!("{}={amount}", name.trim_start_matches("requests.")))
            .collect();
        assert_eq!(told, expected);
    }

    const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/gpus=2";

    #[test]
    fn claims_count_as_extended_resources_beyond_what_their_pods_are_charged_for() {
        let both = [IMPLICIT, "example.com/gpu=2"];
        check(&[claim("a", "gpus", 2, None)], None, &both);
        check(&[claim("a", "nics", 1, None)], None, &["deviceclass.resource.kubernetes.io/nics=1"]);
        check(&[claim("a", "unknown", 1, None)], None, &[]);
        let own = || claim("a", "gpus", 2, Some("u"));
        check(&[own()], None, &both);
        check(&[own()], Some(pod(2, Some("a"))), &[IMPLICIT]);
        check(&[own()], Some(pod(1, Some("a"))), &[IMPLICIT, "example.com/gpu=1"]);
        check(&[own()], Some(pod(2, Some("other"))), &both);
        // Nothing is told of it yet: the first is the pod's.
        check(&[own()], Some(pod(2, None)), &[IMPLICIT]);
        check(&[own(), claim("b", "gpus", 2, Some("u"))], Some(pod(2, None)), &[IMPLICIT]);
        check(&[own(), claim("A", "gpus", 2, Some("u"))], Some(pod(2, None)), &both);
    }

    #[test]
    fn names_tell_what_devices_may_count_under() {
        assert!(is_of_devices("requests.example.com/gpu"));
        assert!(is_of_devices("requests.deviceclass.resource.kubernetes.io/gpus"));
        assert!(!is_of_devices("requests.cpu"));
        assert!(!is_of_devices("example.com/gpu"));
    }
}
