//! Rollouts keep within what their Deployment allows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};
use orch_core::owner::controller_of;

use super::{
    Recent,
    replica_sets::{by_workloads, is_failing, size},
};
use crate::sim::{Invariant, ObjectChange, Step, View};

const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

/// What a Deployment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    wanted: i32,
    most: i32,
    least_available: i32,
    recreates: bool,
}

fn share(of: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = |percent: i32| {
        let scaled = i64::from(percent) * i64::from(total);
        let scaled = if up { (scaled + 99) / 100 } else { scaled / 100 };
        i32::try_from(scaled).unwrap_or(i32::MAX)
    };
    match of {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => percent(text.trim_end_matches('%').parse().unwrap_or(0)),
        None => percent(25),
    }
}

impl Limits {
    fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = spec.replicas.unwrap_or(1);
        let surge = share(rolling.and_then(|r| r.max_surge.as_ref()), wanted, true);
        let mut missing = share(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted, false);
        if surge == 0 && missing == 0 {
            missing = 1;
        }
        let recreates = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let (surge, missing) = if recreates { (0, wanted) } else { (surge, missing) };
        let least_available = (wanted - missing).max(0);
        Some(Self { wanted, most: wanted + surge, least_available, recreates })
    }
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The sizes of a Deployment's replica sets never add up to more than its surge allows, and none
/// is made smaller below what must be available, unless what goes is not available anyway. In the
/// end all pods are of the newest template and available.
#[derive(Debug)]
pub struct Rollouts {
    staleness: Duration,
    limits: BTreeMap<String, Recent<Limits>>,
    available: BTreeMap<String, Recent<i32>>,
    /// Replica sets that are gone since then: whose they were, and what was available of them.
    gone: VecDeque<(Timestamp, String, i32)>,
}

impl Rollouts {
    /// For a controller whose copy of the cluster may be so old.
    pub fn new(staleness: Duration) -> Self {
        let (limits, available) = (BTreeMap::new(), BTreeMap::new());
        Self { staleness, limits, available, gone: VecDeque::new() }
    }

    fn note(&mut self, change: &ObjectChange, view: &View) {
        let recent = || Recent::new(self.staleness);
        if let Some(deployment) = change.of::<Deployment>()
            && let (Some(uid), Some(limits)) = (&deployment.metadata.uid, Limits::of(&deployment))
        {
            let all = self.limits.entry(uid.clone()).or_insert_with(recent);
            all.set(view.time(), limits);
        }
        if let Some(set) = change.of::<ReplicaSet>()
            && let Some(uid) = &set.metadata.uid
        {
            let recent = || Recent::new(self.staleness);
            let all = self.available.entry(uid.clone()).or_insert_with(recent);
            all.set(view.time(), available(&set));
            if let (None, Some(owner)) = (&change.new, controller_of(&set.metadata)) {
                let most = all.values(view.time()).max().copied().unwrap_or(0);
                self.gone.push_back((view.time(), owner.uid.clone(), size(&set).min(most)));
            }
        }
        let is_old =
            |since: Timestamp| view.time().duration_since(since).unsigned_abs() > self.staleness;
        while self.gone.front().is_some_and(|(since, ..)| is_old(*since)) {
            self.gone.pop_front();
        }
    }

    fn check(&mut self, change: &ObjectChange, step: &Step<'_>) -> Result<(), String> {
        let Some(new) = change.of::<ReplicaSet>().filter(|_| change.new.is_some()) else {
            return Ok(());
        };
        let before = change.updated::<ReplicaSet>().map(|(old, _)| old);
        let size_before = before.as_ref().map_or(0, |old| size(old));
        let Some(owner) = controller_of(&new.metadata) else { return Ok(()) };
        let now = step.view.time();
        let Some(limits) = self.limits.get_mut(&owner.uid) else { return Ok(()) };
        let limits: Vec<Limits> = limits.values(now).copied().collect();
        let sets = step.view.controlled_by::<ReplicaSet>(&owner.uid);
        let total: i32 = sets.iter().map(|set| size(set)).sum();
        if size(&new) > size_before {
            return check_surge(&owner.name, &new, total, &limits, &sets);
        }
        let desired = |set: &ReplicaSet| {
            set.metadata.annotations.as_ref().and_then(|all| all.get(DESIRED)).cloned()
        };
        // A change of the Deployment's size is shared out among all sets whatever they have.
        let resized = before.is_some_and(|old| desired(&old) != desired(&new));
        if size(&new) == size_before || resized {
            return Ok(());
        }
        let mut lately = |set: &ReplicaSet, pick: fn(&[i32]) -> i32| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let values = self.available.get_mut(uid).map(|recent| recent.values(now).copied());
            pick(&values.into_iter().flatten().collect::<Vec<_>>())
        };
        let least = |values: &[i32]| values.iter().min().copied().unwrap_or(0);
        let most = |values: &[i32]| values.iter().max().copied().unwrap_or(0);
        if size(&new) >= lately(&new, least) {
            return Ok(());
        }
        let left: i32 = sets.iter().map(|set| size(set).min(lately(set, most))).sum();
        // What somebody else deleted just before may not be known to be gone.
        let gone = self.gone.iter().filter(|(_, of, _)| *of == owner.uid);
        let left = left + gone.map(|(.., available)| available).sum::<i32>();
        let needed = limits.iter().map(|limits| limits.least_available).min().unwrap_or(0);
        if left >= needed {
            return Ok(());
        }
        let (name, from, to) = (name(&new), size_before, size(&new));
        Err(format!("{name} went from {from} to {to}: {left} of {needed} are available then"))
    }
}

fn check_surge(
    deployment: &str,
    new: &ReplicaSet,
    total: i32,
    limits: &[Limits],
    sets: &[std::sync::Arc<ReplicaSet>],
) -> Result<(), String> {
    let most = limits.iter().map(|limits| limits.most).max().unwrap_or(0);
    if total > most {
        let sizes: Vec<String> =
            sets.iter().map(|set| format!("{}={}", name(set), size(set))).collect();
        let sizes = sizes.join(", ");
        return Err(format!("{deployment} may have {most} pods, its sets ask for {sizes}"));
    }
    let recreates = limits.iter().all(|limits| limits.recreates);
    let others = sets.iter().filter(|set| set.metadata.uid != new.metadata.uid);
    if recreates && others.map(|set| size(set)).any(|size| size > 0) {
        return Err(format!("{deployment} recreates, and an old set has not shrunk"));
    }
    Ok(())
}

impl Invariant for Rollouts {
    fn name(&self) -> &str {
        "rollouts keep to their surge and availability"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        for change in step.changes {
            self.note(change, step.view);
            if by_workloads(step) {
                self.check(change, step)?;
            }
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        for deployment in view.list::<Deployment>() {
            let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
            let Some(limits) = Limits::of(&deployment) else { continue };
            let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
            let sets = view.controlled_by::<ReplicaSet>(uid);
            if paused || sets.iter().any(|set| is_failing(set)) {
                continue;
            }
            let status = deployment.status.clone().unwrap_or_default();
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.ready_replicas,
                status.available_replicas,
            ];
            let full = counts.iter().all(|count| count.unwrap_or(0) == limits.wanted);
            let seen = status.observed_generation == deployment.metadata.generation;
            let total: i32 = sets.iter().map(|set| size(set)).sum();
            if !full || !seen || total != limits.wanted {
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                let wanted = limits.wanted;
                return Err(format!("Deployment {name} asks for {wanted} and says {status:?}"));
            }
        }
        Ok(())
    }
}
