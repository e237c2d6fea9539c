//! What happens to a pod that was not placed.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{Resources, client::PatchKind, clock::to_seconds, event::EventType};
use serde_json::{Value, json};

use super::Shared;
use crate::{framework::Failure, pod_info::PodInfo, queue::QueuedPod};

/// Puts the pod back into the queue and tells the user why.
pub(super) fn report(
    shared: &Arc<Shared>,
    pod: &Arc<QueuedPod>,
    failure: &Failure,
    nominated: Option<String>,
) {
    let (reason, message, rejected_by) = match failure {
        Failure::Unschedulable(diagnosis) => {
            ("Unschedulable", diagnosis.to_string(), diagnosis.rejected_by.clone())
        }
        Failure::Fault(message) => ("SchedulerError", message.clone(), BTreeSet::new()),
    };
    tracing::debug!(pod = %pod.info.key(), reason, message, "not scheduled");
    if shared.stopping.is_cancelled() {
        // Nothing is known against the pod; the next scheduler finds it as it is.
        return;
    }
    shared.record(&pod.info, EventType::Warning, "FailedScheduling", "Scheduling", &message);
    let patch = status_patch(shared, &pod.info, reason, &message, nominated);
    // Back in the queue first: what happens to the cluster from now on is not missed.
    shared.queue.retry(pod, rejected_by);
    if let Some(patch) = patch {
        let pods: Resources<Pod> =
            Resources::namespaced(shared.client.clone(), pod.info.namespace());
        let name = pod.info.key().name.clone();
        shared.tasks.spawn(async move {
            let patched = pods.patch_status(&name, PatchKind::Strategic, patch).await;
            if let Err(error) = patched {
                // The next failure writes it again.
                tracing::debug!(pod = name, %error, "condition not written");
            }
        });
    }
}

/// The change of the pod's status; `None` if it says so already.
fn status_patch(
    shared: &Shared,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nominated: Option<String>,
) -> Option<Value> {
    let status = pod.pod().status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let before = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let same = before.is_some_and(|before| {
        before.status == "False"
            && before.reason.as_deref() == Some(reason)
            && before.message.as_deref() == Some(message)
    });
    if same && (nominated.is_none() || nominated == status.nominated_node_name) {
        return None;
    }
    let kept = before.filter(|before| before.status == "False");
    let kept = kept.and_then(|before| before.last_transition_time.clone());
    let now = Time(to_seconds(shared.environment.clock.now()));
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(kept.unwrap_or(now)),
        observed_generation: pod.pod().metadata.generation,
        ..PodCondition::default()
    };
    let mut patch = json!({
        // The uid guards against a pod that has the same name and is another.
        "metadata": {"uid": pod.pod().metadata.uid},
        "status": {"conditions": [condition]},
    });
    if let Some(node) = nominated {
        patch["status"]["nominatedNodeName"] = node.into();
    }
    Some(patch)
}
