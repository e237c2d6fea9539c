//! The cycle of a whole pod group: all members that have no node are tried together.
//!
//! Source: `pkg/scheduler/schedule_one_podgroup.go`, KEP-4671.
//! Differs: victims of preemption go only once the group as a whole would fit, and a group that
//! does not fit waits for a change that may help one of its members, where upstream tries it again
//! after a pause.

use std::{collections::BTreeSet, sync::Arc};

use orch_core::Key;

use super::{
    Shared,
    cycle::{Placement, choose, guarded, reserve, room, unreserve, wanting},
    eviction::Eviction,
    failure,
};
use crate::{
    cycle_state::CycleState,
    framework::{Diagnosis, Failure, Framework},
    plugin::Nomination,
    plugins::{GangScheduling, GroupCycle},
    pod_groups::group_of,
    queue::QueuedPod,
    snapshot::Snapshot,
};

mod condition;

const UNSCHEDULABLE: &str = "pod group is unschedulable";

/// The group that a pod is tried with; `None` if it is tried by itself.
pub(super) fn of(shared: &Shared, pod: &QueuedPod) -> Option<Key> {
    let framework = shared.profiles.of(&pod.info)?;
    framework.enabled(GangScheduling::NAME)?;
    group_of(&pod.info)
}

/// What a member came to.
enum Tried {
    /// It has its place, and Permit has said that so many are enough or not.
    Placed { node: Arc<str>, state: CycleState, enough: bool },
    /// It has the place of others who would have to go, `failure` is what is said until then.
    Preempting { failure: Failure, state: CycleState, eviction: Box<Eviction>, enough: bool },
    /// It fits nowhere.
    Failed(Failure, Nomination),
}

struct Member {
    pod: Arc<QueuedPod>,
    tried: Tried,
}

/// What the whole group came to.
enum Verdict {
    Scheduled,
    Unschedulable,
    /// It fits once others have gone.
    Preempting,
    Failed(String),
}

/// Tries all members that have no node. Those that may go to their nodes are given; the others are
/// back in the queue.
pub(super) async fn schedule(
    shared: &Arc<Shared>,
    first: Arc<QueuedPod>,
    group: &Key,
    snapshot: &mut Snapshot,
) -> Vec<Placement> {
    let pods = gather(shared, first, group);
    let wanting = pods.into_iter().filter_map(|pod| Some((wanting(shared, &pod)?, pod)));
    let (frameworks, pods): (Vec<_>, Vec<_>) = wanting.unzip();
    let Some(framework) = frameworks.into_iter().next() else { return Vec::new() };
    if let Some(words) = contradiction(&pods) {
        for pod in &pods {
            let failure = Failure::Fault(words.clone());
            failure::report(shared, pod, &failure, (Nomination::Clear, None));
        }
        return Vec::new();
    }
    let mut members = Vec::new();
    let mut rest = pods.into_iter();
    for pod in rest.by_ref() {
        let tried = attempt(shared, &framework, &pod, snapshot).await;
        let fault = matches!(tried, Tried::Failed(Failure::Fault(_), _));
        members.push(Member { pod, tried });
        if fault {
            break;
        }
    }
    let verdict = verdict(&members);
    condition::write(shared, group, &verdict);
    for pod in rest {
        let Verdict::Failed(words) = &verdict else { continue };
        failure::report(shared, &pod, &Failure::Fault(words.clone()), (Nomination::Clear, None));
    }
    submit(shared, &framework, members, &verdict)
}

/// The members that wait, the most important first, then those that came first.
fn gather(shared: &Shared, first: Arc<QueuedPod>, group: &Key) -> Vec<Arc<QueuedPod>> {
    let others = shared.groups.unscheduled(group);
    let mut pods: Vec<_> =
        others.iter().filter_map(|uid| shared.queue.take_along(uid)).chain([first]).collect();
    pods.sort_by(|a, b| {
        let priority = b.info.priority().cmp(&a.info.priority());
        priority.then(a.arrived.cmp(&b.arrived)).then_with(|| a.info.key().cmp(b.info.key()))
    });
    pods
}

/// Why the members cannot be tried together.
fn contradiction(pods: &[Arc<QueuedPod>]) -> Option<String> {
    let mut names = pods.iter().map(|pod| pod.info.scheduler_name());
    let first = names.next()?;
    let other = names.find(|name| *name != first)?;
    Some(format!(
        "all pods in a single pod group should have the same .spec.schedulerName set, \
         got: {first:?} and {other:?}"
    ))
}

/// Looks for a place and takes it, so that the next member sees it taken.
async fn attempt(
    shared: &Shared,
    framework: &Framework,
    pod: &QueuedPod,
    snapshot: &mut Snapshot,
) -> Tried {
    let mut state = CycleState::default();
    let (node, preempting) = match choose(shared, framework, &mut state, pod, snapshot).await {
        Ok(node) => (node, None),
        Err(mut failure) => {
            let room = room(shared, framework, pod, &state, snapshot, &mut failure).await;
            let (nomination, Some(eviction)) = room else { return Tried::Failed(failure, room.0) };
            let Nomination::Node(node) = nomination else {
                return Tried::Failed(failure, nomination);
            };
            (node, Some((failure, Box::new(eviction))))
        }
    };
    if let Err(failure) = reserve(shared, framework, pod, &node, &mut state, snapshot) {
        return Tried::Failed(failure, Nomination::Clear);
    }
    state.insert(GroupCycle);
    let enough = match guarded("Permit", || framework.permit(&state, &pod.info, &node)) {
        Ok(waits) => waits.is_empty(),
        Err(failure) => {
            unreserve(shared, framework, pod, &node, &state);
            return Tried::Failed(failure, Nomination::Clear);
        }
    };
    match preempting {
        None => Tried::Placed { node, state, enough },
        Some((failure, eviction)) => Tried::Preempting { failure, state, eviction, enough },
    }
}

fn verdict(members: &[Member]) -> Verdict {
    let (mut enough, mut preempting) = (false, false);
    for member in members {
        match &member.tried {
            Tried::Placed { enough: own, .. } => enough |= own,
            Tried::Preempting { enough: own, .. } => {
                enough |= own;
                preempting = true;
            }
            Tried::Failed(Failure::Fault(words), _) => {
                let words = format!("failed to schedule other pod from a pod group: {words}");
                return Verdict::Failed(words);
            }
            Tried::Failed(Failure::Unschedulable(_), _) => {}
        }
    }
    match (enough, preempting) {
        (false, _) => Verdict::Unschedulable,
        (true, false) => Verdict::Scheduled,
        (true, true) => Verdict::Preempting,
    }
}

/// The plugins that stand in the way of the group.
fn rejected_by(members: &[Member]) -> BTreeSet<Arc<str>> {
    let mut all = BTreeSet::from([GangScheduling::NAME.into()]);
    for member in members {
        let (Tried::Failed(failure, _) | Tried::Preempting { failure, .. }) = &member.tried else {
            continue;
        };
        if let Failure::Unschedulable(diagnosis) = failure {
            all.extend(diagnosis.rejected_by.iter().cloned());
        }
    }
    all
}

/// Gives the places back, or lets the members go to them.
fn submit(
    shared: &Arc<Shared>,
    framework: &Arc<Framework>,
    members: Vec<Member>,
    verdict: &Verdict,
) -> Vec<Placement> {
    let rejected_by = rejected_by(&members);
    let mut placements = Vec::new();
    for Member { pod, tried } in members {
        let permitted = || {
            let name = &pod.info.key().name;
            format!("one or more plugins asked to wait and no plugin rejected pod \"{name}\"")
        };
        let outcome = match tried {
            Tried::Placed { node, mut state, .. } => {
                if matches!(verdict, Verdict::Scheduled) {
                    state.remove::<GroupCycle>();
                    shared.queue.placed(pod.info.uid());
                    placements.push(Placement { framework: framework.clone(), pod, node, state });
                    continue;
                }
                unreserve(shared, framework, &pod, &node, &state);
                let (words, nomination) = match verdict {
                    Verdict::Preempting => {
                        let words = "pod group is waiting for preemption to complete".to_owned();
                        (words, Nomination::Node(node))
                    }
                    _ => (permitted(), Nomination::Clear),
                };
                (of_group(verdict, &words, &rejected_by), nomination, None)
            }
            Tried::Preempting { failure, state, eviction, .. } => {
                let node = eviction.node.clone();
                unreserve(shared, framework, &pod, &node, &state);
                match verdict {
                    Verdict::Preempting => (failure, Nomination::Node(node), Some(*eviction)),
                    _ => (of_group(verdict, &permitted(), &rejected_by), Nomination::Clear, None),
                }
            }
            Tried::Failed(failure, nomination) => (failure, nomination, None),
        };
        let (failure, nomination, eviction) = outcome;
        failure::report(shared, &pod, &with(failure, &rejected_by), (nomination, eviction));
    }
    placements
}

/// What is said about a member that fits while the group does not.
fn of_group(verdict: &Verdict, words: &str, rejected_by: &BTreeSet<Arc<str>>) -> Failure {
    match verdict {
        Verdict::Failed(words) => Failure::Fault(words.clone()),
        _ => {
            let words = format!("{UNSCHEDULABLE}, {words}");
            Failure::Unschedulable(Box::new(Diagnosis::of_group(words, rejected_by.clone())))
        }
    }
}

/// What helps one member may help the group.
fn with(mut failure: Failure, rejected_by: &BTreeSet<Arc<str>>) -> Failure {
    if let Failure::Unschedulable(diagnosis) = &mut failure {
        diagnosis.rejected_by.extend(rejected_by.iter().cloned());
    }
    failure
}
