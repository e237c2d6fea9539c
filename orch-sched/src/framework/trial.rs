//! The filters of a profile, asked about nodes as they are or as they would be.

use std::{collections::BTreeSet, sync::Arc};

use super::{Failure, Framework, Rejection, Search, fault};
use crate::{
    cycle_state::CycleState, error::Fault, extender::VictimsByNode,
    extension_point::ExtensionPoint, node_info::NodeInfo, pod_info::PodInfo, snapshot::Snapshot,
    verdict::Verdict,
};

/// Asks all filters of a pod's profile about nodes that may differ from those of the cluster.
///
/// Fork the [`CycleState`] and the [`NodeInfo`] before pods are added or removed.
#[derive(Debug)]
pub struct Trial<'a> {
    framework: &'a Framework,
    skipped: &'a BTreeSet<Arc<str>>,
    search: Search<'a>,
    snapshot: &'a Snapshot,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        framework: &'a Framework,
        skipped: &'a BTreeSet<Arc<str>>,
        snapshot: &'a Snapshot,
    ) -> Self {
        let search = Search::of(framework.filters(skipped));
        Self { framework, skipped, search, snapshot }
    }

    /// Puts a pod on a node, and tells the plugins.
    ///
    /// # Errors
    /// What a plugin fails with.
    pub fn add_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        added: &Arc<PodInfo>,
        node: &mut NodeInfo,
    ) -> Result<(), Fault> {
        node.add_pod(added.clone());
        for enabled in self.told() {
            if let Some(pre_filter) = enabled.plugin.as_pre_filter() {
                pre_filter.add_pod(state, pod, added, node)?;
            }
        }
        Ok(())
    }

    /// Takes a pod off a node, and tells the plugins.
    ///
    /// # Errors
    /// What a plugin fails with.
    pub fn remove_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        removed: &PodInfo,
        node: &mut NodeInfo,
    ) -> Result<(), Fault> {
        node.remove_pod(removed.uid());
        for enabled in self.told() {
            if let Some(pre_filter) = enabled.plugin.as_pre_filter() {
                pre_filter.remove_pod(state, pod, removed, node)?;
            }
        }
        Ok(())
    }

    fn told(&self) -> impl Iterator<Item = &'a super::Enabled> {
        let skipped = self.skipped;
        let told = self.framework.at(ExtensionPoint::PreFilter);
        told.filter(move |enabled| !skipped.contains(&enabled.name))
    }

    /// What services outside make of the ways to make room.
    pub(crate) async fn ask_extenders(
        &self,
        pod: &PodInfo,
        mut candidates: VictimsByNode,
    ) -> Result<VictimsByNode, Fault> {
        let extenders = self.framework.extenders().iter();
        for extender in extenders.filter(|one| one.preempts() && one.is_interested(pod)) {
            match extender.preempt(pod, &candidates).await {
                Ok(found) => candidates = found,
                Err(error) if extender.is_ignorable() => {
                    tracing::info!(%error, "skipped an extender that failed and may be ignored");
                }
                Err(error) => return Err(error),
            }
            candidates.retain(|_, (victims, _)| !victims.is_empty());
            if candidates.is_empty() {
                break;
            }
        }
        Ok(candidates)
    }

    /// Whether services outside have a say in how room is made for a pod.
    pub(crate) fn is_extended_for(&self, pod: &PodInfo) -> bool {
        let mut extenders = self.framework.extenders().iter();
        extenders.any(|one| one.preempts() && one.is_interested(pod))
    }

    /// Whether the pod fits the node, both with the pods for which room is being made there (of its
    /// own priority or a higher one) and without them: they may never come.
    ///
    /// # Errors
    /// What a plugin fails with.
    pub fn verdict(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Verdict, Fault> {
        match self.rejection(state, pod, node) {
            Ok(None) => Ok(Verdict::Success),
            Ok(Some(rejection)) => Ok(rejection.verdict),
            Err(Failure::Fault(text)) => Err(text.into()),
            Err(Failure::Unschedulable(diagnosis)) => Err(diagnosis.to_string().into()),
        }
    }

    /// As [`Trial::verdict`], with the plugin.
    pub(super) fn rejection(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<Rejection>, Failure> {
        match self.contested(state, pod, node)? {
            Some(rejection) => Ok(Some(rejection)),
            None => self.search.rejection(state, pod, node),
        }
    }

    /// What rules a node out once those who are ahead of the pod have come to it, if there are any.
    pub(super) fn contested(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<Rejection>, Failure> {
        let mut ahead = self.snapshot.ahead_of(pod, node.name()).peekable();
        if ahead.peek().is_none() {
            return Ok(None);
        }
        let (mut state, mut node) = (state.clone(), node.clone());
        for other in ahead {
            let added = self.add_pod(&mut state, pod, other, &mut node);
            added.map_err(|error| fault("AddPod", "of PreFilter", &error))?;
        }
        self.search.rejection(&state, pod, &node)
    }
}
