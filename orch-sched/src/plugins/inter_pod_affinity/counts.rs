//! What the pods on each node mean for one kind of pods, kept up to date by the nodes that changed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::FilterState;
use crate::{
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::{Cursor, Snapshot},
    standing::are_alike,
};

/// For how many kinds of pods counts are kept; the one longest out of use goes first.
const KINDS_MAX: usize = 64;

/// The counts of every kind of pods that was asked for, last used first.
#[derive(Default)]
struct Kept(Vec<Kind>);

struct Kind {
    sample: Arc<Pod>,
    cursor: Cursor,
    /// The nodes as they were counted, by position; none without pods that matter.
    rows: Vec<Option<Arc<NodeInfo>>>,
    state: FilterState,
}

impl Kind {
    /// Whether the same terms about the same namespaces were counted for such pods.
    fn is_of(&self, pod: &PodInfo, asked: &FilterState) -> bool {
        let (have, want) = (&self.state, asked);
        let namespaces = |state: &FilterState| {
            let terms = state.affinity.iter().chain(&state.anti_affinity);
            terms.map(|term| term.namespaces.clone()).collect::<Vec<_>>()
        };
        are_alike(&self.sample, pod.pod())
            && have.namespace_labels == want.namespace_labels
            && namespaces(have) == namespaces(want)
    }

    fn update(&mut self, pod: &PodInfo, snapshot: &Snapshot) {
        let nodes = snapshot.nodes();
        let rows = nodes.len().max(self.rows.len());
        let changed = snapshot.changed_since(&mut self.cursor);
        let changed = changed.unwrap_or_else(|| (0..rows).collect());
        self.rows.resize(rows, None);
        for position in changed.into_iter().filter(|position| *position < rows) {
            if let Some(before) = self.rows[position].take() {
                before.pods().iter().for_each(|other| self.state.count(pod, other, &before, -1));
            }
            let Some(node) = nodes.get(position).filter(|node| !node.pods().is_empty()) else {
                continue;
            };
            node.pods().iter().for_each(|other| self.state.count(pod, other, node, 1));
            self.rows[position] = Some(node.clone());
        }
        self.rows.truncate(nodes.len());
    }
}

/// Counts into `asked`, which has the pod's terms and its namespace's labels.
pub(super) fn counted(pod: &PodInfo, asked: FilterState, snapshot: &Snapshot) -> FilterState {
    snapshot.keep(|kept: &mut Kept| {
        let found = kept.0.iter().position(|kind| kind.is_of(pod, &asked));
        let mut kind = match found {
            Some(at) => kept.0.remove(at),
            None => Kind {
                sample: pod.pod().clone(),
                cursor: Cursor::default(),
                rows: Vec::new(),
                state: asked,
            },
        };
        kind.update(pod, snapshot);
        let state = kind.state.clone();
        kept.0.insert(0, kind);
        kept.0.truncate(KINDS_MAX);
        state
    })
}
