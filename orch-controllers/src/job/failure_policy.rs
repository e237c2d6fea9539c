//! What a job does about failures of a certain kind.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job/pod_failure_policy.go`.

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::{PodFailurePolicy, PodFailurePolicyRule},
    core::v1::{ContainerStatus, Pod},
};

use crate::pods;

/// Whether the failure of this pod does not count.
pub(super) fn ignores(policy: &PodFailurePolicy, pod: &Pod) -> bool {
    matching(policy, pod).is_some_and(|(rule, _)| rule.action == "Ignore")
}

/// Whether the failure of this pod is one of its index for good.
pub(super) fn fails_index(policy: &PodFailurePolicy, pod: &Pod) -> bool {
    matching(policy, pod).is_some_and(|(rule, _)| rule.action == "FailIndex")
}

/// Why a failure makes the whole job fail, if one does.
pub(super) fn fails_job(policy: &PodFailurePolicy, pods: &[Arc<Pod>]) -> Option<String> {
    pods.iter().find_map(|pod| {
        let (rule, message) = matching(policy, pod)?;
        (rule.action == "FailJob").then_some(message)
    })
}

/// The first rule that is about this pod, and what it found.
fn matching<'a>(
    policy: &'a PodFailurePolicy,
    pod: &Pod,
) -> Option<(&'a PodFailurePolicyRule, String)> {
    if pods::phase(pod) != "Failed" {
        return None;
    }
    let mut rules = policy.rules.iter().enumerate();
    rules.find_map(|(at, rule)| Some((rule, found(rule, at, pod)?)))
}

fn found(rule: &PodFailurePolicyRule, at: usize, pod: &Pod) -> Option<String> {
    let meta = &pod.metadata;
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) = exit_codes(pod).find(|(container, code)| {
            let named = wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
            let listed = wanted.values.contains(code);
            named && *code != 0 && (wanted.operator == "In") == listed
        })?;
        return Some(format!(
            "Container {} for pod {namespace}/{name} failed with exit code {code} matching {} \
             rule at index {at}",
            container.name, rule.action
        ));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let matched = patterns.into_iter().find(|pattern| {
        let condition = pods::condition(pod, &pattern.type_);
        let wanted = pattern.status.as_deref().unwrap_or_default();
        condition.is_some_and(|c| c.status == if wanted.is_empty() { "True" } else { wanted })
    })?;
    Some(format!(
        "Pod {namespace}/{name} has condition {} matching {} rule at index {at}",
        matched.type_, rule.action
    ))
}

fn exit_codes(pod: &Pod) -> impl Iterator<Item = (&ContainerStatus, i32)> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let init = status.and_then(|status| status.init_container_statuses.as_deref());
    containers.into_iter().chain(init).flatten().filter_map(|container| {
        let terminated = container.state.as_ref()?.terminated.as_ref()?;
        Some((container, terminated.exit_code))
    })
}
