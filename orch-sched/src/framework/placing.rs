//! What is asked of plugins once a pod has its node: from Reserve to PostBind.

use std::{sync::Arc, time::Duration};

use super::{Diagnosis, Failure, Framework, Rejection, asked};
use crate::{
    cycle_state::CycleState, extension_point::ExtensionPoint, pod_info::PodInfo, verdict::Verdict,
};

impl Framework {
    /// Reserves with every plugin, or with none.
    pub(crate) fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        for enabled in self.at(ExtensionPoint::Reserve) {
            let Some(reserve) = enabled.plugin.as_reserve() else { continue };
            let reserved = asked("Reserve", &enabled.name, || reserve.reserve(state, pod, node));
            let failure = match reserved {
                Ok(Verdict::Success | Verdict::Skip) => continue,
                Ok(verdict) => self.rejected(&enabled.name, node, verdict),
                Err(failure) => failure,
            };
            self.unreserve(state, pod, node);
            return Err(failure);
        }
        Ok(())
    }

    /// Gives everything back, last reserved first.
    pub(crate) fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for enabled in self.at(ExtensionPoint::Reserve).rev() {
            if let Some(reserve) = enabled.plugin.as_reserve() {
                reserve.unreserve(state, pod, node);
            }
        }
    }

    /// How long each plugin wants to be waited for; none if the pod may go.
    pub(crate) fn permit(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Vec<(Arc<str>, Duration)>, Failure> {
        let mut waits = Vec::new();
        for enabled in self.at(ExtensionPoint::Permit) {
            let Some(permit) = enabled.plugin.as_permit() else { continue };
            match asked("Permit", &enabled.name, || permit.permit(state, pod, node))? {
                Verdict::Success | Verdict::Skip => {}
                Verdict::Wait(timeout) => waits.push((enabled.name.clone(), timeout)),
                verdict => return Err(self.rejected(&enabled.name, node, verdict)),
            }
        }
        Ok(waits)
    }

    pub(crate) async fn pre_bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        for enabled in self.at(ExtensionPoint::PreBind) {
            let Some(pre_bind) = enabled.plugin.as_pre_bind() else { continue };
            let prepared = pre_bind.pre_bind(state, pod, node);
            match self.awaited("PreBind", &enabled.name, prepared).await? {
                Verdict::Success | Verdict::Skip => {}
                verdict => return Err(self.rejected(&enabled.name, node, verdict)),
            }
        }
        Ok(())
    }

    pub(crate) async fn bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), Failure> {
        let mut extenders = self.extenders.iter();
        if let Some(extender) = extenders.find(|one| one.binds() && one.is_interested(pod)) {
            let bound = extender.bind(pod, node).await;
            return bound.map_err(|error| Failure::Fault(error.to_string()));
        }
        for enabled in self.at(ExtensionPoint::Bind) {
            let Some(bind) = enabled.plugin.as_bind() else { continue };
            match self.awaited("Bind", &enabled.name, bind.bind(state, pod, node)).await? {
                Verdict::Skip => {}
                Verdict::Success => return Ok(()),
                verdict => return Err(self.rejected(&enabled.name, node, verdict)),
            }
        }
        Err(Failure::Fault("no Bind plugin took the pod".into()))
    }

    pub(crate) fn post_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for enabled in self.at(ExtensionPoint::PostBind) {
            if let Some(post_bind) = enabled.plugin.as_post_bind() {
                post_bind.post_bind(state, pod, node);
            }
        }
    }

    /// A rejection after a node was chosen.
    pub(crate) fn rejected(&self, plugin: &Arc<str>, node: &str, verdict: Verdict) -> Failure {
        let mut diagnosis = Diagnosis { total_nodes: 1, ..Diagnosis::default() };
        diagnosis.rejected_by.insert(plugin.clone());
        diagnosis.rejections.push(Rejection { node: node.into(), plugin: plugin.clone(), verdict });
        Failure::Unschedulable(Box::new(diagnosis))
    }
}
