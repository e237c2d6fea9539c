//! What happens to a pod that was not placed.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{Resources, client::PatchKind, clock::to_seconds, event::EventType};
use serde_json::{Value, json};

use super::{Shared, eviction::Eviction};
use crate::{
    framework::Failure, metrics::AttemptResult, plugin::Nomination, pod_info::PodInfo,
    queue::QueuedPod,
};

/// Puts the pod back into the queue and tells the user why. While room is made for it, it is kept
/// out of the queue: what happens meanwhile is remembered for it, and it is tried once.
pub(super) fn report(
    shared: &Arc<Shared>,
    pod: &Arc<QueuedPod>,
    failure: &Failure,
    (nomination, eviction): (Nomination, Option<Eviction>),
) {
    let (reason, message, rejected_by, result) = match failure {
        Failure::Unschedulable(diagnosis) => {
            let (message, rejected_by) = (diagnosis.to_string(), diagnosis.rejected_by.clone());
            ("Unschedulable", message, rejected_by, AttemptResult::Unschedulable)
        }
        Failure::Fault(message) => {
            ("SchedulerError", message.clone(), BTreeSet::new(), AttemptResult::Error)
        }
    };
    let profile = pod.info.scheduler_name();
    shared.metrics.attempted(profile, result, pod.began.elapsed());
    tracing::debug!(pod = %pod.info.key(), reason, message, "not scheduled");
    if shared.stopping.is_cancelled() {
        // Nothing is known against the pod; the next scheduler finds it as it is.
        return;
    }
    shared.record(&pod.info, EventType::Warning, "FailedScheduling", "Scheduling", &message);
    {
        let nominations = &mut shared.cache.lock().nominations;
        match &nomination {
            Nomination::Keep => nominations.keep(&pod.info),
            Nomination::Clear => nominations.remove(pod.info.uid()),
            Nomination::Node(node) => nominations.set(&pod.info, node),
        }
        // A pod that went meanwhile is marked before its nomination is removed.
        if !shared.queue.is_wanted(pod.info.uid()) {
            nominations.remove(pod.info.uid());
        }
    }
    let patch = status_patch(shared, &pod.info, reason, &message, &nomination);
    match eviction {
        Some(eviction) => make_room(shared, pod.clone(), eviction, rejected_by),
        // Back in the queue first: what happens to the cluster from now on is not missed.
        None => shared.queue.retry(pod, rejected_by),
    }
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

fn make_room(
    shared: &Arc<Shared>,
    pod: Arc<QueuedPod>,
    eviction: Eviction,
    rejected_by: BTreeSet<Arc<str>>,
) {
    let shared_ = shared.clone();
    shared.tasks.spawn(async move {
        let shared = shared_;
        let evicted = tokio::select! {
            evicted = eviction.run(&shared, &pod.info) => evicted,
            () = shared.stopping.cancelled() => return,
        };
        match evicted {
            Ok(()) => shared.queue.retry(&pod, rejected_by),
            Err(error) => {
                tracing::debug!(pod = %pod.info.key(), %error, "victims not evicted");
                // Nothing that happens to the cluster may wake the pod: it is tried again anyway.
                shared.queue.retry(&pod, BTreeSet::new());
            }
        }
    });
}

/// The change of the pod's status; `None` if it says so already.
fn status_patch(
    shared: &Shared,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nomination: &Nomination,
) -> Option<Value> {
    let status = pod.pod().status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let before = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let same = before.is_some_and(|before| {
        before.status == "False"
            && before.reason.as_deref() == Some(reason)
            && before.message.as_deref() == Some(message)
    });
    let said = match nomination {
        Nomination::Keep => true,
        Nomination::Clear => pod.nominated_node().is_none(),
        Nomination::Node(node) => pod.nominated_node() == Some(&**node),
    };
    if same && said {
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
    match nomination {
        Nomination::Node(node) => patch["status"]["nominatedNodeName"] = (**node).into(),
        Nomination::Clear if !said => patch["status"]["nominatedNodeName"] = Value::Null,
        _ => {}
    }
    Some(patch)
}
