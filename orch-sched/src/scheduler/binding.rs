//! Binding cycles, many at a time.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use orch_core::event::EventType;

use super::{
    Shared,
    cycle::{Placement, guarded, unreserve},
    failure,
};
use crate::{
    event::{Actions, ClusterChange, EventResource},
    framework::Failure,
    metrics::AttemptResult,
    plugin::Nomination,
    verdict::Verdict,
};

/// Brings a pod to its node, or back to the queue. Dropped half-way, the reservation is given back.
pub(super) async fn run(shared: &Arc<Shared>, placement: Placement) {
    let bound = AssertUnwindSafe(bind(shared, &placement)).catch_unwind().await;
    let bound = bound
        .unwrap_or_else(|_| Err(Failure::Fault("a plugin panicked in the binding cycle".into())));
    let Placement { framework, pod, node, state } = &placement;
    match bound {
        Ok(()) => {
            shared.cache.lock().bound(&pod.info);
            shared.queue.done(pod.info.uid());
            let (metrics, attempts) = (&shared.metrics, pod.attempts);
            let profile = &framework.scheduler_name;
            metrics.attempted(profile, AttemptResult::Scheduled, pod.began.elapsed());
            metrics.bound(attempts, pod.arrived.elapsed());
            let message = format!("Successfully assigned {} to {node}", pod.info.key());
            shared.record(&pod.info, EventType::Normal, "Scheduled", "Binding", &message);
            let _told_on_a_best_effort_basis = guarded("PostBind", || {
                framework.post_bind(state, &pod.info, node);
                Ok(())
            });
        }
        Err(failure) => {
            unreserve(shared, framework, pod, node, state);
            failure::report(shared, pod, &failure, (Nomination::Keep, None));
            // The place that was taken is free again for whoever waits for one.
            let freed = ClusterChange::of(EventResource::AssignedPod, Actions::DELETE);
            shared.queue.changed(&freed);
            let freed = ClusterChange::of(EventResource::ResourceClaim, Actions::UPDATE);
            shared.queue.changed(&freed);
        }
    }
}

async fn bind(shared: &Arc<Shared>, placement: &Placement) -> Result<(), Failure> {
    let Placement { framework, pod, node, state } = placement;
    tokio::select! {
        ready = make_ready(shared, placement) => ready?,
        () = shared.stopping.cancelled() => {
            return Err(Failure::Fault("the scheduler is stopping".into()));
        }
    }
    framework.bind(state, &pod.info, node).await
}

/// What may take long before a pod is bound.
async fn make_ready(shared: &Arc<Shared>, placement: &Placement) -> Result<(), Failure> {
    let Placement { framework, pod, node, state } = placement;
    let info = &pod.info;
    let waits = guarded("Permit", || framework.permit(state, info, node))?;
    if !waits.is_empty() {
        let held = shared.waiting.hold(info.uid(), waits).allowed().await;
        held.map_err(|(plugin, message)| {
            framework.rejected(&plugin, node, Verdict::unschedulable(message))
        })?;
    }
    framework.pre_bind(state, info, node).await
}
