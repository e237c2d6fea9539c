//! Makes room for a pod: pods of lower priority are evicted, beside other cycles.
//!
//! Source: `pkg/scheduler/framework/preemption/executor.go`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{
    ClientError, Resources,
    client::{DeleteOptions, PatchKind},
    clock::to_seconds,
    event::{EventType, reference_to},
};
use serde_json::json;

use super::Shared;
use crate::pod_info::PodInfo;

/// How many victims of one pod are evicted at the same time.
const AT_ONCE: usize = 16;

/// Who goes, from where, for whom.
pub(super) struct Eviction {
    /// The plugin that decided.
    pub(super) plugin: Arc<str>,
    pub(super) node: Arc<str>,
    pub(super) victims: Vec<Arc<PodInfo>>,
}

impl Eviction {
    /// Evicts everybody, and withdraws what was promised to less important pods on the node.
    ///
    /// # Errors
    /// The first that the API answers; some victims may be gone then.
    pub(super) async fn run(
        &self,
        shared: &Arc<Shared>,
        preemptor: &PodInfo,
    ) -> Result<(), ClientError> {
        self.withdraw_nominations(shared, preemptor).await;
        let mut evictions = Vec::new();
        for victim in &self.victims {
            if victim.pod().metadata.deletion_timestamp.is_none() {
                evictions.push(self.evict(shared, preemptor, victim));
            }
        }
        futures::stream::iter(evictions).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Pods that wait for the same room and are less important look for another place at once.
    async fn withdraw_nominations(&self, shared: &Arc<Shared>, preemptor: &PodInfo) {
        let lower: Vec<Arc<PodInfo>> = {
            let mut cache = shared.cache.lock();
            let nominated = cache.nominations.on(&self.node).iter();
            let lower = nominated.filter(|pod| pod.priority() < preemptor.priority());
            let lower: Vec<_> = lower.cloned().collect();
            lower.iter().for_each(|pod| cache.nominations.remove(pod.uid()));
            lower
        };
        for pod in lower {
            shared.queue.activate(pod.uid());
            let patch = json!({
                "metadata": {"uid": pod.pod().metadata.uid},
                "status": {"nominatedNodeName": null},
            });
            let name = &pod.key().name;
            let patched = pods(shared, &pod).patch_status(name, PatchKind::Strategic, patch).await;
            if let Err(error) = patched {
                tracing::debug!(pod = %pod.key(), %error, "nomination not withdrawn");
            }
        }
    }

    async fn evict(
        &self,
        shared: &Arc<Shared>,
        preemptor: &PodInfo,
        victim: &PodInfo,
    ) -> Result<(), ClientError> {
        if !shared.waiting.reject(victim.uid(), &self.plugin, "preempted")
            && !delete(shared, preemptor, victim).await?
        {
            return Ok(());
        }
        let message = format!("Preempted by pod {} on node {}", preemptor.uid(), self.node);
        let Some(recorder) = shared.recorders.get(preemptor.scheduler_name()) else {
            return Ok(());
        };
        let about = reference_to(&**victim.pod());
        recorder.record(&about, EventType::Normal, "Preempted", "Preempting", message);
        Ok(())
    }
}

fn pods(shared: &Shared, pod: &PodInfo) -> Resources<Pod> {
    Resources::namespaced(shared.client.clone(), pod.namespace())
}

/// Marks a victim and deletes it, gracefully. `false` if it was gone already.
async fn delete(
    shared: &Shared,
    preemptor: &PodInfo,
    victim: &PodInfo,
) -> Result<bool, ClientError> {
    let (pods, name) = (pods(shared, victim), &victim.key().name);
    let now = Time(to_seconds(shared.environment.clock.now()));
    let scheduler = preemptor.scheduler_name();
    let condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("PreemptionByScheduler".into()),
        message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
        last_transition_time: Some(now),
        observed_generation: victim.pod().metadata.generation,
        ..PodCondition::default()
    };
    let uid = victim.pod().metadata.uid.clone();
    let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
    // A conflict means that the uid is another's: the victim is gone, and its name was taken.
    let gone = |error: &ClientError| error.is_not_found() || error.is_conflict();
    match pods.patch_status(name, PatchKind::Strategic, patch).await {
        Ok(_) => {}
        Err(error) if gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    let options = DeleteOptions { uid, ..DeleteOptions::default() };
    match pods.delete(name, options).await {
        Ok(_) => Ok(true),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
