//! Pods that no job counts any more.
//!
//! Source: `syncOrphanPod` of `k8s.io/kubernetes/pkg/controller/job/job_controller.go`.

use std::sync::Arc;

use k8s_openapi::{
    Resource as _,
    api::{batch::v1::Job, core::v1::Pod},
};
use orch_core::{ClientError, Key, client::PatchKind, informer::Informer};
use serde_json::json;

use super::{TRACKING, tracking::is_tracked};
use crate::{context::Context, ownership};

/// The index of pods that wait to be counted, by the job that should do it.
const BY_JOB: &str = "tracked-by-job";

/// The key of the job that should count a pod. Without one it is a key that no job can have.
fn counted_by(pod: &Pod) -> Option<Key> {
    if !is_tracked(pod) {
        return None;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    match ownership::controller_of(&pod.metadata) {
        None => Some(Key::new(namespace, "")),
        Some(owner) if owner.kind == Job::KIND && owner.api_version == Job::API_VERSION => {
            Some(Key::new(namespace, owner.name.clone()))
        }
        Some(_) => None,
    }
}

pub(super) fn index(pods: &Informer<Pod>) {
    pods.add_index(BY_JOB, |pod| counted_by(pod).map(|key| key.to_string()).into_iter().collect());
}

/// The key under which a pod that nobody controls is let go, if it has to be.
pub(super) fn uncontrolled(pod: &Pod) -> Option<Key> {
    counted_by(pod).filter(|key| key.name.is_empty())
}

/// Lets the pods go that waited for the job of this key, unless they wait for the one that is
/// there now.
pub(super) async fn release(
    context: &Context,
    pods: &Informer<Pod>,
    key: &Key,
    job: Option<&Job>,
) -> Result<(), ClientError> {
    let current = job.and_then(|job| job.metadata.uid.as_deref());
    for pod in pods.by_index(BY_JOB, &key.to_string()) {
        let owner = ownership::controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
        if owner.is_none() || owner != current {
            remove_finalizer(context, &pod).await?;
        }
    }
    Ok(())
}

pub(super) async fn remove_finalizer(context: &Context, pod: &Arc<Pod>) -> Result<(), ClientError> {
    let meta = &pod.metadata;
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != TRACKING).collect();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": left,
    }});
    let key = Key::of(meta);
    match context.resources::<Pod>(&key.namespace).patch(&key.name, PatchKind::Merge, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
