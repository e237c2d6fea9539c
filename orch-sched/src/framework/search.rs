//! Filters that are asked about nodes one by one.

use std::sync::Arc;

use super::{Failure, Rejection, Trial, asked, illegal};
use crate::{
    cycle_state::CycleState, node_info::NodeInfo, plugin::Filter, pod_info::PodInfo,
    verdict::Verdict,
};

/// Nodes that were looked at, by whether a pod fits them.
#[derive(Default)]
pub(super) struct Found {
    pub(super) feasible: Vec<Arc<NodeInfo>>,
    pub(super) rejections: Vec<Rejection>,
}

impl Found {
    /// Looks at these nodes until enough fit. Gives how many it looked at.
    pub(super) fn run<'n>(
        &mut self,
        trial: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        nodes: impl Iterator<Item = &'n Arc<NodeInfo>>,
        enough: usize,
    ) -> Result<usize, Failure> {
        for node in nodes {
            if self.feasible.len() == enough {
                break;
            }
            match trial.rejection(state, pod, node)? {
                None => self.feasible.push(node.clone()),
                Some(rejection) => self.rejections.push(rejection),
            }
        }
        Ok(self.feasible.len() + self.rejections.len())
    }
}

/// Filters that are asked one after the other.
pub(super) struct Search<'a> {
    filters: Vec<(&'a Arc<str>, &'a dyn Filter)>,
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.filters.iter().map(|(name, _)| name)).finish()
    }
}

impl<'a> Search<'a> {
    pub(super) fn of(filters: Vec<(&'a Arc<str>, &'a dyn Filter)>) -> Self {
        Self { filters }
    }

    /// What rules a node out, if anything.
    pub(super) fn rejection(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<Rejection>, Failure> {
        for (name, filter) in &self.filters {
            match asked("Filter", name, || filter.filter(state, pod, node))? {
                Verdict::Success => {}
                verdict if verdict.is_rejection() => {
                    let (node, plugin) = (node.name().clone(), (*name).clone());
                    return Ok(Some(Rejection { node, plugin, verdict }));
                }
                verdict => return Err(illegal("Filter", name, &verdict)),
            }
        }
        Ok(None)
    }
}
