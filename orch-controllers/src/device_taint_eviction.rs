//! Pods leave devices with taints that their claims do not tolerate, or not for long.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/devicetainteviction`.
//! Differs: taints are those of slices alone; rules that taint devices are not served.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{DeviceRequestAllocationResult, DeviceTaint, ResourceClaim, ResourceSlice},
};
use orch_core::{
    Key,
    device_claim::{claim_name, is_for_pod, is_reserved_for, tolerates},
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    pods,
    reconciler::Reconciled,
};

/// Slices by their pool, and claims by the pools of their devices.
const BY_POOL: &str = "device-pool";
/// The effect that drives pods away.
const NO_EXECUTE: &str = "NoExecute";
const EVICTION: &str = "DeviceTaintManagerEviction";

/// The controller that deletes pods whose claims hold devices with `NoExecute` taints that these
/// claims do not tolerate.
pub fn device_taint_eviction(informers: &Informers) -> Controller {
    let context = Context::new(informers, "device-taint-eviction-controller");
    let pods = context.informer::<Pod>();
    let (claims, slices) =
        (context.informer::<ResourceClaim>(), context.informer::<ResourceSlice>());
    slices.add_index(BY_POOL, |slice| vec![pool_of(slice)]);
    claims.add_index(BY_POOL, |claim| {
        devices(claim).iter().map(|device| pool(&device.driver, &device.pool)).collect()
    });
    let users = claims.clone();
    context
        .builder()
        .watches::<ResourceSlice>(move |change| {
            if let Change::Updated { old, new } = change
                && (taints(old), old.spec.pool.generation)
                    == (taints(new), new.spec.pool.generation)
            {
                return Vec::new();
            }
            let claims = users.by_index(BY_POOL, &pool_of(change.object()));
            claims.iter().flat_map(|claim| users_of(claim)).collect()
        })
        .watches::<ResourceClaim>(|change| {
            let mut keys = users_of(change.object());
            if let Change::Updated { old, .. } = change {
                keys.extend(users_of(old));
            }
            keys
        })
        .watches::<Pod>(|change| match change {
            Change::Updated { old, new } if uses(old) == uses(new) => Vec::new(),
            _ => vec![Key::of(&change.object().metadata)],
        })
        .build(EvictionReconciler { context, pods, claims, slices, marked: Mutex::default() })
}

fn pool(driver: &str, name: &str) -> String {
    format!("{driver}/{name}")
}

fn pool_of(slice: &ResourceSlice) -> String {
    pool(&slice.spec.driver, &slice.spec.pool.name)
}

/// The taints of a slice that drive pods away, by device.
fn taints(slice: &ResourceSlice) -> Vec<(&str, &DeviceTaint)> {
    let devices = slice.spec.devices.iter().flatten();
    let of = devices.flat_map(|device| {
        device.taints.iter().flatten().map(|taint| (device.name.as_str(), taint))
    });
    of.filter(|(_, taint)| taint.effect == NO_EXECUTE).collect()
}

/// The devices that a claim has.
fn devices(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

/// The pods that a claim is kept for.
fn users_of(claim: &ResourceClaim) -> Vec<Key> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    let pods = users.filter(|user| {
        user.resource == "pods" && user.api_group.as_deref().unwrap_or_default().is_empty()
    });
    pods.map(|user| Key::new(namespace, user.name.as_str())).collect()
}

/// What decides about a pod besides its claims.
fn uses(pod: &Pod) -> impl PartialEq + '_ {
    let claims = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    (&pod.metadata.uid, node_of(pod), claims)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

struct EvictionReconciler {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    /// Pods that have to go in time, and their uid.
    marked: Mutex<HashMap<Key, String>>,
}

impl EvictionReconciler {
    /// When a device's taints drive away who does not tolerate them. Of a pool only what its driver
    /// told last counts.
    fn device_due(&self, device: &DeviceRequestAllocationResult) -> Option<Timestamp> {
        let slices = self.slices.by_index(BY_POOL, &pool(&device.driver, &device.pool));
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max()?;
        let current = slices.iter().filter(|slice| slice.spec.pool.generation == newest);
        let taints = current.flat_map(|slice| taints(slice));
        let own = taints.filter(|(name, _)| *name == device.device);
        own.filter_map(|(_, taint)| due(device, taint, self.context.now())).min()
    }

    /// When the pod has to go: `None` if it may stay.
    fn due(&self, key: &Key, pod: &Pod) -> Option<Timestamp> {
        if pods::is_terminating(pod) || node_of(pod).is_none() {
            return None;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let named = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let claims = named.filter_map(|one| {
            let name = claim_name(pod, one).ok().flatten()?;
            let claim = self.claims.get(&Key::new(key.namespace.as_str(), name.name))?;
            let of_another = name.generated && is_for_pod(pod, &claim).is_err();
            (!of_another && is_reserved_for(uid, &claim)).then_some(claim)
        });
        let dues = claims.filter_map(|claim| {
            devices(&claim).iter().filter_map(|device| self.device_due(device)).min()
        });
        dues.min()
    }

    /// Tells of a pod that may stay after all.
    fn spare(&self, key: &Key, pod: Option<&Pod>) {
        let marked = self.marked.lock().remove(key);
        if let Some(pod) = pod
            && marked.is_some()
            && marked == pod.metadata.uid
            && !pods::is_terminating(pod)
        {
            self.context.event(pod, EventType::Normal, EVICTION, "Cancelling deletion".to_owned());
        }
    }

    async fn evict(&self, pod: &Pod) -> Reconciled {
        self.context.event(pod, EventType::Normal, EVICTION, "Marking for deletion".to_owned());
        let why = (
            "DeletionByDeviceTaintManager",
            "Device Taint manager: deleting due to NoExecute taint",
        );
        pods::disrupt(&self.context, pod, why).await?;
        Ok(Action::Done)
    }
}

#[async_trait]
impl Reconciler for EvictionReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let pod: Option<Arc<Pod>> = self.pods.get(&key);
        let due = pod.as_deref().and_then(|pod| Some((pod, self.due(&key, pod)?)));
        let Some((pod, at)) = due else {
            self.spare(&key, pod.as_deref());
            return Ok(Action::Done);
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.marked.lock().insert(key.clone(), uid);
        let left = Duration::try_from(at.duration_since(self.context.now())).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Action::RequeueAfter(left));
        }
        self.evict(pod).await
    }
}

/// When who has a device must leave it because of a taint: `None` if it is tolerated for ever. Of
/// several tolerations the shortest counts.
fn due(
    device: &DeviceRequestAllocationResult,
    taint: &DeviceTaint,
    now: Timestamp,
) -> Option<Timestamp> {
    let added = taint.time_added.as_ref().map_or(now, |time| time.0);
    let tolerations = device.tolerations.iter().flatten();
    let mut shortest: Option<i64> = None;
    for toleration in tolerations {
        if toleration.effect.as_deref() == Some(NO_EXECUTE) && tolerates(toleration, taint) {
            let seconds = toleration.toleration_seconds?.max(0);
            shortest = Some(shortest.map_or(seconds, |least| least.min(seconds)));
        }
    }
    added.checked_add(SignedDuration::from_secs(shortest.unwrap_or(0))).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shortest_toleration_counts() {
        let check = |tolerations: serde_json::Value, expected_s: Option<i64>| {
            let device = json!({"driver": "d", "pool": "p", "device": "gpu", "request": "r",
                "tolerations": tolerations});
            let device = serde_json::from_value(device).unwrap();
            let taint = json!({"key": "broken", "value": "fan", "effect": "NoExecute",
                "timeAdded": "2026-01-01T00:00:00Z"});
            let taint: DeviceTaint = serde_json::from_value(taint).unwrap();
            let added = taint.time_added.as_ref().unwrap().0;
            let at = due(&device, &taint, added);
            assert_eq!(at.map(|at| at.duration_since(added).as_secs()), expected_s);
        };
        let for_ever = json!({"key": "broken", "operator": "Exists", "effect": "NoExecute"});
        let timed = |seconds: i64| {
            json!({"key": "broken", "value": "fan", "effect": "NoExecute",
                "tolerationSeconds": seconds})
        };
        check(json!([]), Some(0));
        check(json!([timed(30), timed(10)]), Some(10));
        check(json!([timed(-5)]), Some(0));
        check(json!([timed(30), for_ever]), None);
        // Who does not name the effect may be placed there, but not stay.
        check(json!([{"key": "broken", "operator": "Exists"}]), Some(0));
        check(json!([{"key": "other", "operator": "Exists", "effect": "NoExecute"}]), Some(0));
    }
}
