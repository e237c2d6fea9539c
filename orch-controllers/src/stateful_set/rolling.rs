//! Creating, deleting and replacing pods, in order.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/statefulset/stateful_set_control.go`.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{Look, identity};
use crate::{
    ReconcileError, history,
    pods::{self, PodControl, Voice},
};

impl Look<'_> {
    /// Takes the next step, or all that are possible at once if order does not matter.
    pub(super) async fn advance(&self) -> Result<(), ReconcileError> {
        self.sync_owners_of_claims().await?;
        let (start, end) = (self.start(), self.start().saturating_add(self.replicas()));
        let by_ordinal: BTreeMap<i32, Arc<Pod>> = self
            .pods
            .iter()
            .filter_map(|pod| Some((identity::ordinal(&self.key.name, pod)?, pod.clone())))
            .collect();
        for ordinal in start..end {
            if !self.ensure(ordinal, by_ordinal.get(&ordinal)).await? && !self.is_parallel() {
                return Ok(());
            }
        }
        if self.remove_condemned(&by_ordinal, start..end).await? || self.is_on_delete() {
            return Ok(());
        }
        self.update_pods(&by_ordinal, end).await
    }

    /// Deletes pods out of the range, the last first. Gives whether there are any. In order, one
    /// that is not available waits for itself, unless it is the first of all that are not.
    async fn remove_condemned(
        &self,
        by_ordinal: &BTreeMap<i32, Arc<Pod>>,
        range: Range<i32>,
    ) -> Result<bool, ReconcileError> {
        let condemned = || by_ordinal.iter().filter(|(at, _)| !range.contains(at));
        let first_unavailable =
            condemned().find(|(_, pod)| !self.is_available(pod)).map(|(at, _)| *at);
        for (at, pod) in condemned().rev() {
            let is_going = pods::is_terminating(pod);
            let may_go =
                self.is_parallel() || self.is_available(pod) || first_unavailable == Some(*at);
            if !is_going && may_go {
                self.control().delete(std::slice::from_ref(pod)).await?;
                self.delete_claims_when_scaled(pod).await?;
            }
            if !self.is_parallel() {
                return Ok(true);
            }
        }
        Ok(condemned().next().is_some())
    }

    /// Sees to the pod of an ordinal. Gives whether it is available, so that the next may follow.
    async fn ensure(&self, ordinal: i32, pod: Option<&Arc<Pod>>) -> Result<bool, ReconcileError> {
        let Some(pod) = pod else {
            self.create(ordinal).await?;
            return Ok(false);
        };
        if pods::is_terminating(pod) {
            return Ok(false);
        }
        if pods::is_terminal(pod) {
            // It comes back under the same name once it is gone.
            self.control().delete(std::slice::from_ref(pod)).await?;
            return Ok(false);
        }
        Ok(pods::is_available(pod, self.min_ready_seconds(), self.context.now()))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        !pods::is_terminating(pod)
            && pods::is_available(pod, self.min_ready_seconds(), self.context.now())
    }

    /// Replaces the last pods that have not the new revision, as many as may be unavailable at once
    /// besides those that are.
    ///
    /// Source: `updateStatefulSetAfterInvariantEstablished`.
    async fn update_pods(
        &self,
        by_ordinal: &BTreeMap<i32, Arc<Pod>>,
        end: i32,
    ) -> Result<(), ReconcileError> {
        let is_unavailable =
            |ordinal: &i32| !by_ordinal.get(ordinal).is_some_and(|pod| self.is_available(pod));
        let unavailable = (self.start()..end).filter(is_unavailable).count();
        let may_go = usize::try_from(self.max_unavailable()).unwrap_or(1);
        let lowest = self.start().saturating_add(self.partition());
        let old: Vec<Arc<Pod>> = (lowest..end)
            .rev()
            .filter_map(|ordinal| by_ordinal.get(&ordinal))
            .filter(|pod| identity::revision(pod) != self.update_name())
            .filter(|pod| !pods::is_terminating(pod))
            .take(may_go.saturating_sub(unavailable))
            .cloned()
            .collect();
        if !old.is_empty() {
            self.control().delete(&old).await?;
        }
        Ok(())
    }

    fn control(&self) -> PodControl<'_, k8s_openapi::api::apps::v1::StatefulSet> {
        PodControl {
            context: self.context,
            expectations: self.expectations,
            owner: self.set,
            voice: Voice::StatefulSet,
        }
    }

    async fn create(&self, ordinal: i32) -> Result<(), ReconcileError> {
        let name = format!("{}-{ordinal}", self.key.name);
        self.create_claims(&name).await?;
        // Below the partition the set stays what it was.
        let below = ordinal < self.start().saturating_add(self.partition());
        let revision = if below { &self.revisions.current } else { &self.revisions.update };
        let template = history::template_of(revision).unwrap_or_else(|| self.spec.template.clone());
        let revision = revision.metadata.name.as_deref().unwrap_or_default();
        let pod = |_| identity::pod(self.set, &template, revision, ordinal);
        match self.control().create(1, pod).await {
            // Made before; the local copy does not show it yet.
            Err(error) if error.is_already_exists() => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }
}
