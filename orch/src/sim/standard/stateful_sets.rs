//! StatefulSets: names, order, and one at a time.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use orch_core::{Key, owner::controller_of};

use super::{
    Recent,
    quotas::is_full,
    replica_sets::{by_workloads, is_over, is_ready},
};
use crate::sim::{Invariant, ObjectChange, Step, View};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// What a set asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    ordinals: Range<i32>,
    parallel: bool,
}

impl Wanted {
    fn of(set: &StatefulSet) -> Option<Self> {
        let spec = set.spec.as_ref()?;
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let ordinals = start..start + spec.replicas.unwrap_or(1);
        let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
        Some(Self { ordinals, parallel })
    }
}

/// What a pod's name stands for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nobody,
    Unready,
    Ready,
}

fn held(change: &ObjectChange, pod: &Pod) -> Held {
    if change.new.is_none() {
        Held::Nobody
    } else if is_ready(pod) && !is_over(pod) && pod.metadata.deletion_timestamp.is_none() {
        Held::Ready
    } else {
        Held::Unready
    }
}

/// The pods of a StatefulSet have its names and no others. They are made in their order, each after
/// those before it are Ready, deleted in the opposite order when they are too many, and replaced
/// only while the others are Ready; with the policy `Parallel`, only the last is so.
#[derive(Debug)]
pub struct StatefulSetOrder {
    staleness: Duration,
    wanted: BTreeMap<String, Recent<Wanted>>,
    pods: BTreeMap<Key, Recent<Held>>,
}

struct Member<'a> {
    pod: &'a Pod,
    set: String,
    ordinal: i32,
    namespace: String,
    wanted: Vec<Wanted>,
}

impl Member<'_> {
    fn key(&self, ordinal: i32) -> Key {
        Key::new(self.namespace.clone(), format!("{}-{ordinal}", self.set))
    }

    fn is_ordered(&self) -> bool {
        self.wanted.iter().all(|wanted| !wanted.parallel)
    }
}

impl StatefulSetOrder {
    /// For a controller whose copy of the cluster may be so old.
    pub fn new(staleness: Duration) -> Self {
        Self { staleness, wanted: BTreeMap::new(), pods: BTreeMap::new() }
    }

    fn note(&mut self, change: &ObjectChange, now: Timestamp) {
        if let Some(set) = change.of::<StatefulSet>()
            && let (Some(uid), Some(wanted)) = (&set.metadata.uid, Wanted::of(&set))
        {
            let recent = || Recent::new(self.staleness);
            self.wanted.entry(uid.clone()).or_insert_with(recent).set(now, wanted);
        }
        if let Some(pod) = change.of::<Pod>()
            && controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "StatefulSet")
        {
            let recent = self.pods.entry(Key::of(&pod.metadata)).or_insert_with(|| {
                let mut recent = Recent::new(self.staleness);
                recent.set(now, Held::Nobody);
                recent
            });
            recent.set(now, held(change, &pod));
        }
    }

    /// The pod as a member of its set, as far as the set is known.
    fn member<'a>(&mut self, pod: &'a Pod, now: Timestamp) -> Result<Option<Member<'a>>, String> {
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "StatefulSet");
        let Some(owner) = owner else { return Ok(None) };
        let Some(wanted) = self.wanted.get_mut(&owner.uid) else { return Ok(None) };
        let wanted = wanted.values(now).cloned().collect();
        let Key { namespace, name } = Key::of(&pod.metadata);
        let ordinal = name.strip_prefix(&format!("{}-", owner.name));
        let ordinal = ordinal.and_then(|ordinal| ordinal.parse::<i32>().ok());
        let ordinal = ordinal.ok_or_else(|| format!("{name} is no name of {}", owner.name))?;
        Ok(Some(Member { pod, set: owner.name.clone(), ordinal, namespace, wanted }))
    }

    /// Whether the name was held like this at some time lately.
    fn was(&mut self, key: &Key, held: Held, now: Timestamp) -> bool {
        match self.pods.get_mut(key) {
            Some(recent) => recent.values(now).any(|value| *value == held),
            None => held == Held::Nobody,
        }
    }

    fn check_created(&mut self, member: &Member<'_>, now: Timestamp) -> Result<(), String> {
        let Key { name, .. } = member.key(member.ordinal);
        let label = member.pod.metadata.labels.as_ref().and_then(|all| all.get(POD_NAME));
        let hostname = member.pod.spec.as_ref().and_then(|spec| spec.hostname.as_ref());
        if label != Some(&name) || hostname != Some(&name) {
            return Err(format!("{name} is labelled {label:?} and is called {hostname:?}"));
        }
        if !member.wanted.iter().any(|wanted| wanted.ordinals.contains(&member.ordinal)) {
            return Err(format!("{name} was created, and {:?} are wanted", member.wanted));
        }
        if !member.is_ordered() {
            return Ok(());
        }
        let first = member.wanted.iter().map(|wanted| wanted.ordinals.start).max().unwrap_or(0);
        for before in first..member.ordinal {
            if !self.was(&member.key(before), Held::Ready, now) {
                return Err(format!("{name} was created, and {before} was not ready"));
            }
        }
        Ok(())
    }

    fn check_going(
        &mut self,
        member: &Member<'_>,
        last: i32,
        now: Timestamp,
    ) -> Result<(), String> {
        if is_over(member.pod) {
            return Ok(());
        }
        let Key { name, .. } = member.key(member.ordinal);
        let in_range = |wanted: &Wanted| wanted.ordinals.contains(&member.ordinal);
        let others: Vec<i32> = if member.wanted.iter().all(in_range) {
            // It is replaced by one of another template.
            let from = |wanted: &Wanted| match wanted.parallel {
                true => member.ordinal + 1,
                false => wanted.ordinals.start,
            };
            let start = member.wanted.iter().map(from).max().unwrap_or(0);
            let end = member.wanted.iter().map(|wanted| wanted.ordinals.end).min().unwrap_or(0);
            (start..end).filter(|ordinal| *ordinal != member.ordinal).collect()
        } else {
            Vec::new()
        };
        for other in others {
            if !self.was(&member.key(other), Held::Ready, now) {
                return Err(format!("{name} was deleted, and {other} was not ready"));
            }
        }
        if member.is_ordered() && !member.wanted.iter().any(in_range) {
            for after in member.ordinal + 1..=last {
                if !self.was(&member.key(after), Held::Nobody, now) {
                    return Err(format!("{name} was deleted before {after}"));
                }
            }
        }
        Ok(())
    }
}

/// The highest ordinal that any pod of the same set has.
fn last_ordinal(pod: &Pod, view: &View) -> i32 {
    let uid = controller_of(&pod.metadata).map_or("", |owner| owner.uid.as_str());
    let pods = view.controlled_by::<Pod>(uid);
    let ordinal = |pod: &Pod| pod.metadata.name.as_ref()?.rsplit_once('-')?.1.parse().ok();
    pods.iter().filter_map(|pod| ordinal(pod)).max().unwrap_or(0)
}

impl Invariant for StatefulSetOrder {
    fn name(&self) -> &str {
        "StatefulSets keep their names and their order"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        let now = step.view.time();
        for change in step.changes {
            if by_workloads(step) {
                if let Some(pod) = change.created::<Pod>()
                    && let Some(member) = self.member(&pod, now)?
                {
                    self.check_created(&member, now)?;
                }
                if let Some(pod) = change.began_to_go::<Pod>()
                    && let Some(member) = self.member(&pod, now)?
                {
                    self.check_going(&member, last_ordinal(&pod, step.view), now)?;
                }
            }
            self.note(change, now);
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        for set in view.list::<StatefulSet>() {
            let Some(wanted) = Wanted::of(&set) else { continue };
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let key = Key::of(&set.metadata);
            let pods = view.controlled_by::<Pod>(uid);
            let status = set.status.clone().unwrap_or_default();
            let named = |ordinal: i32| {
                let name = format!("{}-{ordinal}", key.name);
                pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name))
            };
            let is_there = |ordinal| named(ordinal).is_some_and(|pod| is_ready(pod));
            let all = wanted.ordinals.clone().all(is_there) && pods.len() == wanted.ordinals.len();
            let seen = status.observed_generation == set.metadata.generation;
            let rolled = status.current_revision == status.update_revision;
            let counted = usize::try_from(status.ready_replicas.unwrap_or(0)) == Ok(pods.len());
            // What a quota leaves no room for is waited for, and what comes after it, even with
            // the removal of what is no longer wanted.
            let waits = seen
                && wanted.ordinals.clone().any(|ordinal| named(ordinal).is_none())
                && is_full(set.metadata.namespace.as_deref(), view);
            if !waits && (!all || !seen || !rolled || !counted) {
                let count = pods.len();
                return Err(format!(
                    "StatefulSet {key} asks for {:?}, has {count} pods and says {status:?}",
                    wanted.ordinals
                ));
            }
        }
        Ok(())
    }
}
