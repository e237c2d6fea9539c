//! Scheduling cycles, one pod at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::FutureExt;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::Resources;
use tokio::sync::Semaphore;

use super::{BINDING_MAX, Shared, binding, eviction::Eviction, extended, failure};
use crate::{
    cycle_state::CycleState,
    framework::{Failure, Framework, Room, fault},
    plugin::Nomination,
    plugins::ChosenNode,
    queue::QueuedPod,
    snapshot::Snapshot,
};

/// A pod on its way to its node.
pub(super) struct Placement {
    pub(super) framework: Arc<Framework>,
    pub(super) pod: Arc<QueuedPod>,
    pub(super) node: Arc<str>,
    pub(super) state: CycleState,
}

pub(super) async fn run(shared: &Arc<Shared>) {
    let mut snapshot = Snapshot::default();
    let bindings = Arc::new(Semaphore::new(BINDING_MAX));
    loop {
        // A cycle that has nowhere to hand its result to would only let the queue grow stale.
        let Ok(permit) = bindings.clone().acquire_owned().await else { return };
        let pod = shared.queue.pop().await;
        if let Some(placement) = schedule_one(shared, pod, &mut snapshot).await {
            let shared_ = shared.clone();
            shared.tasks.spawn(async move {
                binding::run(&shared_, placement).await;
                drop(permit);
            });
        }
        // The queue may never be empty: let others of this thread have their turn.
        tokio::task::yield_now().await;
    }
}

async fn schedule_one(
    shared: &Arc<Shared>,
    pod: Arc<QueuedPod>,
    snapshot: &mut Snapshot,
) -> Option<Placement> {
    let info = pod.info.clone();
    let framework = shared.profiles.of(&info).cloned();
    let gone = info.pod().metadata.deletion_timestamp.is_some();
    let Some(framework) = framework.filter(|_| !gone) else {
        shared.queue.done(info.uid());
        return None;
    };
    {
        let mut cache = shared.cache.lock();
        if cache.has_pod(info.uid()) {
            shared.queue.done(info.uid());
            return None;
        }
        cache.refresh(snapshot);
    }
    let mut state = CycleState::default();
    let random = &*shared.environment.random;
    let chosen = if framework.is_extended_for(&info) {
        let choice = extended::choose(&framework, &mut state, &info, snapshot, random);
        AssertUnwindSafe(choice).catch_unwind().await.unwrap_or_else(|_| {
            Err(Failure::Fault("a plugin panicked in the scheduling cycle".into()))
        })
    } else {
        guarded("scheduling cycle", || framework.choose(&mut state, &info, snapshot, random))
    };
    match chosen {
        Ok(node) => place(shared, framework, pod, node, state, snapshot),
        Err(failure) => {
            failed(shared, &framework, &pod, state, snapshot, failure).await;
            None
        }
    }
}

/// A plugin that panics fails its pod's cycle only.
pub(super) fn guarded<T>(
    what: &str,
    run: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::Fault(format!("a plugin panicked in the {what}: {text}")))
    })
}

/// Takes the pod's place, so that the next cycle sees it taken.
fn place(
    shared: &Arc<Shared>,
    framework: Arc<Framework>,
    pod: Arc<QueuedPod>,
    node: Arc<str>,
    mut state: CycleState,
    snapshot: &Snapshot,
) -> Option<Placement> {
    if let Some(info) = snapshot.node(&node) {
        state.insert(ChosenNode(info.clone()));
    }
    shared.cache.lock().assume(pod.info.clone(), &node);
    let reserved = guarded("Reserve", || framework.reserve(&mut state, &pod.info, &node));
    if let Err(failure) = reserved {
        shared.cache.lock().forget(pod.info.uid());
        failure::report(shared, &pod, &failure, (Nomination::Keep, None));
        return None;
    }
    shared.queue.placed(pod.info.uid());
    Some(Placement { framework, pod, node, state })
}

/// Takes their devices from claims that nobody uses.
async fn free(shared: &Shared, freed: Vec<(Arc<str>, Arc<ResourceClaim>)>) -> Result<(), Failure> {
    for (plugin, claim) in freed {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Resources<ResourceClaim> =
            Resources::namespaced(shared.client.clone(), namespace);
        let written = claims.update_status(&claim).await;
        written.map_err(|error| fault("PostFilter", &plugin, &error.into()))?;
    }
    Ok(())
}

async fn failed(
    shared: &Arc<Shared>,
    framework: &Framework,
    pod: &Arc<QueuedPod>,
    state: CycleState,
    snapshot: &Snapshot,
    mut failure: Failure,
) {
    let mut outcome = (Nomination::Keep, None);
    if let Failure::Unschedulable(diagnosis) = &mut failure {
        let room = framework.post_filter(&state, &pod.info, snapshot, diagnosis);
        match AssertUnwindSafe(room).catch_unwind().await {
            Ok(Ok(Room { plugin, nomination, victims, freed })) => {
                if let Err(fault) = free(shared, freed).await {
                    return failure::report(shared, pod, &fault, outcome);
                }
                shared.metrics.preempting(victims.len());
                let eviction = match &nomination {
                    Nomination::Node(node) if !victims.is_empty() => {
                        Some(Eviction { plugin, node: node.clone(), victims })
                    }
                    _ => None,
                };
                outcome = (nomination, eviction);
            }
            Ok(Err(fault)) => failure = fault,
            Err(_) => failure = Failure::Fault("a plugin panicked in PostFilter".into()),
        }
    }
    failure::report(shared, pod, &failure, outcome);
}
