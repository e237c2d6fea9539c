//! What a pod group's status says about its scheduling.

use std::sync::Arc;

use k8s_openapi::{
    api::scheduling::v1alpha2::PodGroup,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use orch_core::{ClientError, Key, Resources, client::PatchKind, clock::to_seconds};
use serde_json::json;

use super::{UNSCHEDULABLE, Verdict};
use crate::scheduler::Shared;

const TYPE: &str = "PodGroupScheduled";

/// Writes the condition beside other cycles. A group that was scheduled once stays so: more pods of
/// it may come and find no place.
pub(super) fn write(shared: &Arc<Shared>, group: &Key, verdict: &Verdict) {
    let (status, reason, message) = match verdict {
        Verdict::Scheduled => ("True", "Scheduled", String::new()),
        Verdict::Unschedulable => ("False", "Unschedulable", UNSCHEDULABLE.to_owned()),
        Verdict::Preempting => {
            let words = "pod group is waiting for preemption to complete";
            ("False", "Unschedulable", format!("{UNSCHEDULABLE}, {words}"))
        }
        Verdict::Failed(words) => ("False", "SchedulerError", words.clone()),
    };
    let condition = Condition {
        type_: TYPE.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: Time(to_seconds(shared.environment.clock.now())),
        observed_generation: None,
    };
    let (shared_, group) = (shared.clone(), group.clone());
    shared.tasks.spawn(async move {
        if let Err(error) = patch(&shared_, &group, condition).await {
            // The next cycle of the group writes it again.
            tracing::debug!(%group, %error, "condition not written");
        }
    });
}

async fn patch(shared: &Shared, group: &Key, mut condition: Condition) -> Result<(), ClientError> {
    let groups: Resources<PodGroup> =
        Resources::namespaced(shared.client.clone(), &group.namespace);
    let current = groups.get(&group.name).await?;
    let conditions = current.status.as_ref().and_then(|status| status.conditions.as_deref());
    let before = conditions.unwrap_or_default().iter().find(|have| have.type_ == TYPE);
    condition.observed_generation = current.metadata.generation;
    if let Some(before) = before {
        if before.status == "True" && condition.status != "True" {
            return Ok(());
        }
        if before.status == condition.status {
            condition.last_transition_time = before.last_transition_time.clone();
        }
        if *before == condition {
            return Ok(());
        }
    }
    let patch = json!({
        "metadata": {"uid": current.metadata.uid},
        "status": {"conditions": [condition]},
    });
    groups.patch_status(&group.name, PatchKind::Strategic, patch).await.map(drop)
}
