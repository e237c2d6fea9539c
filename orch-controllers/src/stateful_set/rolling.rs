//! Creating, deleting and replacing pods, in order.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/statefulset/stateful_set_control.go`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use orch_core::ClientError;

use super::{Look, identity};
use crate::{
    history,
    pods::{self, PodControl},
};

impl Look<'_> {
    /// Takes the next step, or all that are possible at once if order does not matter.
    pub(super) async fn advance(&self) -> Result<(), ClientError> {
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
        let condemned = by_ordinal.iter().rev().filter(|(at, _)| **at < start || **at >= end);
        let mut waits = false;
        for (_, pod) in condemned {
            waits = true;
            if !pods::is_terminating(pod) {
                self.control().delete(std::slice::from_ref(pod)).await?;
                self.delete_claims_when_scaled(pod).await?;
            }
            if !self.is_parallel() {
                return Ok(());
            }
        }
        if waits || self.is_on_delete() {
            return Ok(());
        }
        self.update_one(&by_ordinal, end).await
    }

    /// Sees to the pod of an ordinal. Gives whether it is available, so that the next may follow.
    async fn ensure(&self, ordinal: i32, pod: Option<&Arc<Pod>>) -> Result<bool, ClientError> {
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

    /// Replaces the last pod that has not the new revision, if all after it are available.
    async fn update_one(
        &self,
        by_ordinal: &BTreeMap<i32, Arc<Pod>>,
        end: i32,
    ) -> Result<(), ClientError> {
        let lowest = self.start().saturating_add(self.partition());
        for ordinal in (lowest..end).rev() {
            let Some(pod) = by_ordinal.get(&ordinal) else { return Ok(()) };
            if pods::is_terminating(pod) {
                return Ok(());
            }
            if identity::revision(pod) != self.update_name() {
                return self.control().delete(std::slice::from_ref(pod)).await;
            }
            if !pods::is_available(pod, self.min_ready_seconds(), self.context.now()) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn control(&self) -> PodControl<'_, k8s_openapi::api::apps::v1::StatefulSet> {
        PodControl { context: self.context, expectations: self.expectations, owner: self.set }
    }

    async fn create(&self, ordinal: i32) -> Result<(), ClientError> {
        let name = format!("{}-{ordinal}", self.key.name);
        self.create_claims(&name).await?;
        // Below the partition the set stays what it was.
        let below = ordinal < self.start().saturating_add(self.partition());
        let revision = if below { &self.current } else { &self.update };
        let template = history::template_of(revision).unwrap_or_else(|| self.spec.template.clone());
        let revision = revision.metadata.name.as_deref().unwrap_or_default();
        let pod = |_| identity::pod(self.set, &template, revision, ordinal);
        match self.control().create(1, pod).await {
            // Made before; the local copy does not show it yet.
            Err(error) if error.is_already_exists() => Ok(()),
            result => result.map(drop),
        }
    }
}
