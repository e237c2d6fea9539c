//! Quotas hold.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use orch_core::{Key, quantity::Amount, quota::Usage};

use super::Recent;
use crate::sim::{Invariant, Step, View};

/// A pod is never created beyond what the quotas of its namespace allow, and in the end they tell
/// what is used. Quotas with scopes are not looked at.
#[derive(Debug)]
pub struct QuotasHold {
    staleness: Duration,
    hard: BTreeMap<Key, Recent<i64>>,
}

impl QuotasHold {
    /// For an API server whose copy of quotas may be so old.
    pub fn new(staleness: Duration) -> Self {
        Self { staleness, hard: BTreeMap::new() }
    }
}

fn pods_of(
    quantities: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Option<i64> {
    let quantity = quantities?.get("pods")?;
    Amount::try_from(quantity).ok().map(|amount| amount.value())
}

/// Pods that should be gone by then are not held against anybody: their node may be lost.
fn used_in(namespace: &str, view: &View, time: Timestamp) -> i64 {
    let pods = view.list::<Pod>();
    let here = pods.iter().filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace));
    let counts = |pod: &&Arc<Pod>| {
        let pod = serde_json::to_value(&***pod).unwrap_or_default();
        Usage::of("", "pods", &pod).amounts(time).any(|(name, _)| name == "pods")
    };
    i64::try_from(here.filter(counts).count()).unwrap_or(i64::MAX)
}

fn is_scoped(quota: &ResourceQuota) -> bool {
    let spec = quota.spec.as_ref();
    spec.is_some_and(|spec| spec.scopes.is_some() || spec.scope_selector.is_some())
}

/// Whether a quota keeps pods of a namespace from being created.
pub(super) fn is_full(namespace: Option<&str>, view: &View) -> bool {
    let namespace = namespace.unwrap_or_default();
    view.list::<ResourceQuota>().iter().any(|quota| {
        let hard = pods_of(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
        quota.metadata.namespace.as_deref() == Some(namespace)
            && !is_scoped(quota)
            && hard.is_some_and(|hard| used_in(namespace, view, view.time()) >= hard)
    })
}

impl Invariant for QuotasHold {
    fn name(&self) -> &str {
        "quotas are never exceeded"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        let now = step.view.time();
        for change in step.changes {
            if let Some(quota) = change.of::<ResourceQuota>().filter(|quota| !is_scoped(quota)) {
                let hard = pods_of(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
                let (key, recent) = (Key::of(&quota.metadata), || Recent::new(self.staleness));
                let hard = if change.new.is_none() { None } else { hard };
                self.hard.entry(key).or_insert_with(recent).set(now, hard.unwrap_or(i64::MAX));
            }
            let Some(pod) = change.created::<Pod>() else { continue };
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            for (key, hard) in self.hard.iter_mut().filter(|(key, _)| key.namespace == namespace) {
                let hard = hard.values(now).max().copied().unwrap_or(i64::MAX);
                // Whose clock is ahead gives back what a pod uses that is about to be gone.
                let used =
                    used_in(&namespace, step.view, now.checked_add(self.staleness).unwrap_or(now));
                if used > hard {
                    return Err(format!("quota {key} allows {hard} pods, there are {used}"));
                }
            }
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        for quota in view.list::<ResourceQuota>() {
            let key = Key::of(&quota.metadata);
            let told = pods_of(quota.status.as_ref().and_then(|status| status.used.as_ref()));
            let Some(told) = told.filter(|_| !is_scoped(&quota)) else { continue };
            let used = used_in(&key.namespace, view, view.time());
            if told != used {
                return Err(format!("quota {key} says that {told} pods are there, not {used}"));
            }
        }
        Ok(())
    }
}
