//! Replacing pods of older templates: one after another, or new ones beside them first.
//!
//! Source: `rollingUpdate` of `k8s.io/kubernetes/pkg/controller/daemon/update.go`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{apps::v1::RollingUpdateDaemonSet, core::v1::Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Look, eligibility::Verdict, name};
use crate::{deployment::scaled, pods};

/// What is to be done, beyond that every node has its pod.
#[derive(Default)]
pub(super) struct Changes<'a> {
    /// Nodes to get a pod.
    pub(super) create: Vec<&'a str>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// How long a failed pod stays before it is replaced, if one does.
    pub(super) wait: Option<Duration>,
}

/// The pods of a node: of the newest template, and of an older one.
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

impl Look<'_> {
    fn rolling(&self) -> Option<&RollingUpdateDaemonSet> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    /// The nodes that should have a pod.
    fn wanted(&self) -> impl Iterator<Item = &str> {
        let wanted = self.nodes.iter().filter(|(_, verdict)| *verdict == Verdict::Runs);
        wanted.map(|(node, _)| name(node))
    }

    /// How many nodes may have a second pod while they are updated.
    pub(super) fn surge(&self) -> usize {
        if self.is_on_delete() {
            return 0;
        }
        self.share(|rolling| rolling.max_surge.as_ref()).unwrap_or(0)
    }

    fn share(&self, of: impl Fn(&RollingUpdateDaemonSet) -> Option<&IntOrString>) -> Option<usize> {
        let total = i32::try_from(self.wanted).unwrap_or(i32::MAX);
        let share = scaled(of(self.rolling()?)?, total, true);
        Some(usize::try_from(share).unwrap_or(0))
    }

    /// The pods of a node that are not on their way out; `None` if there are more of a kind.
    fn pair(&self, node: &str) -> Option<Pair<'_>> {
        let mut pair = Pair { new: None, old: None };
        for pod in self.on(node).iter().filter(|pod| !pods::is_terminating(pod)) {
            let place = if self.is_updated(pod) { &mut pair.new } else { &mut pair.old };
            if place.replace(pod).is_some() {
                return None;
            }
        }
        Some(pair)
    }

    pub(super) fn roll(&self) -> Changes<'_> {
        if self.is_on_delete() {
            return Changes::default();
        }
        match self.surge() {
            0 => self.replace(),
            surge => self.surge_on_to(surge),
        }
    }

    /// Deletes as many old pods as may be missing; those that are not available go at once.
    fn replace(&self) -> Changes<'_> {
        let most = self.share(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(1).max(1);
        let mut missing = 0;
        let (mut broken, mut candidates) = (Vec::new(), Vec::new());
        for node in self.wanted() {
            match self.pair(node) {
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => {
                    candidates.push(old.clone());
                }
                Some(Pair { new: None, old: Some(old) }) => {
                    missing += 1;
                    broken.push(old.clone());
                }
                Some(Pair { new: Some(new), old: None }) if self.is_available(new) => {}
                _ => missing += 1,
            }
        }
        broken.extend(candidates.into_iter().take(most.saturating_sub(missing)));
        Changes { delete: broken, ..Changes::default() }
    }

    /// Starts new pods beside old ones on so many nodes at a time, and deletes the old ones whose
    /// successor is available. An old pod that is not available has nothing to lose.
    fn surge_on_to(&self, most: usize) -> Changes<'_> {
        let (mut surging, mut candidates) = (0, Vec::new());
        let mut changes = Changes::default();
        for node in self.wanted() {
            match self.pair(node) {
                None => surging += 1,
                Some(Pair { old: None, .. }) => {}
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => {
                    candidates.push(node);
                }
                Some(Pair { new: None, .. }) => changes.create.push(node),
                Some(Pair { new: Some(new), old: Some(old) }) => {
                    if self.is_available(new) {
                        changes.delete.push(old.clone());
                    } else {
                        surging += 1;
                    }
                }
            }
        }
        changes.create.extend(candidates.into_iter().take(most.saturating_sub(surging)));
        changes
    }

    /// Of several pods on a node, those that are too many: all but the oldest, and where new ones
    /// start beside old ones, all but the oldest of either.
    pub(super) fn too_many(&self, mut alive: Vec<&Arc<Pod>>) -> Vec<Arc<Pod>> {
        if alive.len() < 2 {
            return Vec::new();
        }
        alive.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!pods::is_ready(pod), created)
        });
        if self.surge() == 0 {
            return alive.into_iter().skip(1).cloned().collect();
        }
        let (new, old): (Vec<_>, Vec<_>) = alive.into_iter().partition(|pod| self.is_updated(pod));
        let mut excess: Vec<Arc<Pod>> =
            new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| Arc::clone(pod)).collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || self.is_available(new))
        {
            excess.push(Arc::clone(old));
        }
        excess
    }
}
