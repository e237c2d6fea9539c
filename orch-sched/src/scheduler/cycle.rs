//! Scheduling cycles, one pod at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::FutureExt;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::Resources;
use tokio::sync::Semaphore;

use super::{BINDING_MAX, Shared, binding, eviction::Eviction, extended, failure, group};
use crate::{
    cycle_state::CycleState,
    devices,
    error::Fault,
    framework::{Failure, Framework, Freed, Room, fault},
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
        if let Some(group) = group::of(shared, &pod) {
            // Members wait for each other, so that none may keep a permit from another.
            drop(permit);
            for placement in group::schedule(shared, pod, &group, &mut snapshot).await {
                spawn_binding(shared, placement, &bindings);
            }
        } else if let Some(placement) = schedule_one(shared, pod, &mut snapshot).await {
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

/// Binds as soon as there are not too many bindings.
fn spawn_binding(shared: &Arc<Shared>, placement: Placement, bindings: &Arc<Semaphore>) {
    let (shared_, bindings) = (shared.clone(), bindings.clone());
    shared.tasks.spawn(async move {
        // Closed never; without a permit the pod is bound all the same.
        let permit = bindings.acquire_owned().await;
        binding::run(&shared_, placement).await;
        drop(permit);
    });
}

async fn schedule_one(
    shared: &Arc<Shared>,
    pod: Arc<QueuedPod>,
    snapshot: &mut Snapshot,
) -> Option<Placement> {
    let framework = wanting(shared, &pod)?;
    let mut state = CycleState::default();
    match choose(shared, &framework, &mut state, &pod, snapshot).await {
        Ok(node) => place(shared, framework, pod, node, state, snapshot),
        Err(mut failure) => {
            let outcome = room(shared, &framework, &pod, &state, snapshot, &mut failure).await;
            failure::report(shared, &pod, &failure, outcome);
            None
        }
    }
}

/// The profile of a pod that still wants a node; the cycle of another one is over.
pub(super) fn wanting(shared: &Shared, pod: &QueuedPod) -> Option<Arc<Framework>> {
    let info = &pod.info;
    let gone = info.pod().metadata.deletion_timestamp.is_some();
    let framework = shared.profiles.of(info).filter(|_| !gone);
    let wanting = framework.filter(|_| !shared.cache.lock().has_pod(info.uid()));
    if wanting.is_none() {
        shared.queue.done(info.uid());
    }
    wanting.cloned()
}

/// A node for the pod, in the cluster as it is now.
pub(super) async fn choose(
    shared: &Shared,
    framework: &Framework,
    state: &mut CycleState,
    pod: &QueuedPod,
    snapshot: &mut Snapshot,
) -> Result<Arc<str>, Failure> {
    let info = &pod.info;
    let random = shared.cache.lock().begin_cycle(info, snapshot, &shared.environment.random);
    let random = &*random;
    if framework.is_extended_for(info) {
        let choice = extended::choose(framework, state, info, snapshot, random);
        return AssertUnwindSafe(choice).catch_unwind().await.unwrap_or_else(|_| {
            Err(Failure::Fault("a plugin panicked in the scheduling cycle".into()))
        });
    }
    guarded("scheduling cycle", || framework.choose(state, info, snapshot, random))
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
    if let Err(failure) = reserve(shared, &framework, &pod, &node, &mut state, snapshot) {
        failure::report(shared, &pod, &failure, (Nomination::Keep, None));
        return None;
    }
    shared.queue.placed(pod.info.uid());
    Some(Placement { framework, pod, node, state })
}

/// Takes their devices from claims that nobody uses.
async fn free(shared: &Shared, freed: Freed) -> Result<(), Failure> {
    for (plugin, claim, deleted) in freed {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Resources<ResourceClaim> =
            Resources::namespaced(shared.client.clone(), namespace);
        let done: Result<(), Fault> = if deleted {
            let removed = devices::remove(&claims, &claim, &shared.environment).await;
            removed.map_err(Into::into)
        } else {
            claims.update_status(&claim).await.map(drop).map_err(Into::into)
        };
        done.map_err(|error| fault("PostFilter", &plugin, &error))?;
    }
    Ok(())
}

/// Takes a place for a pod, in the cache and with the plugins, or leaves everything as it was.
pub(super) fn reserve(
    shared: &Shared,
    framework: &Framework,
    pod: &QueuedPod,
    node: &str,
    state: &mut CycleState,
    snapshot: &Snapshot,
) -> Result<(), Failure> {
    if let Some(info) = snapshot.node(node) {
        state.insert(ChosenNode(info.clone()));
    }
    shared.cache.lock().assume(pod.info.clone(), node);
    let reserved = guarded("Reserve", || framework.reserve(state, &pod.info, node));
    if reserved.is_err() {
        shared.cache.lock().forget(pod.info.uid());
    }
    reserved
}

/// Gives back what [`reserve`] took.
pub(super) fn unreserve(
    shared: &Shared,
    framework: &Framework,
    pod: &QueuedPod,
    node: &str,
    state: &CycleState,
) {
    let _given_back_as_far_as_possible = guarded("Unreserve", || {
        framework.unreserve(state, &pod.info, node);
        Ok(())
    });
    shared.cache.lock().forget(pod.info.uid());
}

/// Who has to go so that a pod fits, and where; nobody if that does not help. What plugins have to
/// say about it is added to the failure.
pub(super) async fn room(
    shared: &Shared,
    framework: &Framework,
    pod: &QueuedPod,
    state: &CycleState,
    snapshot: &Snapshot,
    failure: &mut Failure,
) -> (Nomination, Option<Eviction>) {
    let Failure::Unschedulable(diagnosis) = failure else { return (Nomination::Keep, None) };
    let room = framework.post_filter(state, &pod.info, snapshot, diagnosis);
    match AssertUnwindSafe(room).catch_unwind().await {
        Ok(Ok(Room { plugin, nomination, victims, freed })) => {
            if let Err(fault) = free(shared, freed).await {
                *failure = fault;
                return (Nomination::Keep, None);
            }
            shared.metrics.preempting(victims.len());
            let eviction = match &nomination {
                Nomination::Node(node) if !victims.is_empty() => {
                    Some(Eviction { plugin, node: node.clone(), victims })
                }
                _ => None,
            };
            return (nomination, eviction);
        }
        Ok(Err(fault)) => *failure = fault,
        Err(_) => *failure = Failure::Fault("a plugin panicked in PostFilter".into()),
    }
    (Nomination::Keep, None)
}
