//! What tests wait for most.
//!
//! Each takes what an [`Expectation`](super::Expectation) hands to its check: the object, if there
//! is one.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, PersistentVolumeClaim, Pod},
};

/// The pod says of itself that it is Ready.
pub fn is_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The pod has ended, and well.
pub fn has_succeeded(pod: Option<&Pod>) -> bool {
    phase(pod) == Some("Succeeded")
}

/// The pod has ended, and badly.
pub fn has_failed(pod: Option<&Pod>) -> bool {
    phase(pod) == Some("Failed")
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

/// The node says of itself that it is Ready.
pub fn is_node_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The Deployment's controller has seen its newest generation, and all replicas are of it and
/// available.
pub fn is_available(deployment: Option<&Deployment>) -> bool {
    let status = deployment.and_then(|deployment| deployment.status.as_ref());
    let (Some(deployment), Some(status)) = (deployment, status) else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    status.observed_generation >= deployment.metadata.generation
        && counts.iter().all(|count| count.unwrap_or(0) == wanted)
}

/// The ReplicaSet's controller has seen its newest generation, and all replicas are available.
pub fn is_replica_set_available(set: Option<&ReplicaSet>) -> bool {
    let status = set.and_then(|set| set.status.as_ref());
    let (Some(set), Some(status)) = (set, status) else { return false };
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.observed_generation >= set.metadata.generation
        && status.replicas == wanted
        && status.available_replicas.unwrap_or(0) == wanted
}

/// The StatefulSet's controller has seen its newest generation, and all replicas are of its newest
/// revision and available.
pub fn is_stateful_set_available(set: Option<&StatefulSet>) -> bool {
    let status = set.and_then(|set| set.status.as_ref());
    let (Some(set), Some(status)) = (set, status) else { return false };
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.observed_generation >= set.metadata.generation
        && status.update_revision == status.current_revision
        && status.replicas == wanted
        && status.available_replicas.unwrap_or(0) == wanted
}

/// The DaemonSet's controller has seen its newest generation, and its pod is available on every
/// node that it is meant for.
pub fn is_daemon_set_available(set: Option<&DaemonSet>) -> bool {
    let status = set.and_then(|set| set.status.as_ref());
    let (Some(set), Some(status)) = (set, status) else { return false };
    status.observed_generation >= set.metadata.generation
        && status.updated_number_scheduled.unwrap_or(0) == status.desired_number_scheduled
        && status.number_available.unwrap_or(0) == status.desired_number_scheduled
}

/// The Job has ended, and well.
pub fn is_complete(job: Option<&Job>) -> bool {
    job_is(job, "Complete")
}

/// The Job has ended, and badly.
pub fn is_job_failed(job: Option<&Job>) -> bool {
    job_is(job, "Failed")
}

fn job_is(job: Option<&Job>, condition: &str) -> bool {
    let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == condition && c.status == "True")
}

/// The claim is bound to a volume.
pub fn is_bound(claim: Option<&PersistentVolumeClaim>) -> bool {
    let phase = claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref());
    phase == Some("Bound")
}
