//! Nodes are told for how long they may keep what pods refer to, by the size of the cluster.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/ttl`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use orch_core::{
    Key,
    client::PatchKind,
    informer::{Change, Informers},
};
use parking_lot::Mutex;
use serde_json::json;

use crate::{Action, Controller, context::Context};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// One step: from how many nodes on it is left downwards, up to how many it holds, and the seconds.
/// They overlap, so that a cluster at a boundary does not go to and fro.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The controller that keeps the annotation `node.alpha.kubernetes.io/ttl` of nodes.
pub fn node_ttl(informers: &Informers) -> Controller {
    let context = Context::new(informers, "ttl-controller");
    let nodes = context.informer::<Node>();
    let size = Arc::new(Mutex::new(Size::default()));
    let counted = size.clone();
    context
        .builder()
        .watches::<Node>(move |change| {
            counted.lock().count(change);
            match change {
                Change::Deleted(_) => Vec::new(),
                _ => vec![Key::of(&change.object().metadata)],
            }
        })
        .build(move |key: Key| {
            let (context, node) = (context.clone(), nodes.get(&key));
            let wanted = size.lock().seconds().to_string();
            async move {
                let Some(node) = node else { return Ok(Action::Done) };
                let annotations = node.metadata.annotations.as_ref();
                if annotations.and_then(|all| all.get(ANNOTATION)) == Some(&wanted) {
                    return Ok(Action::Done);
                }
                let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted}}});
                match context.resources::<Node>("").patch(&key.name, PatchKind::Merge, patch).await
                {
                    Err(error) if !error.is_not_found() => Err(error.into()),
                    _ => Ok(Action::Done),
                }
            }
        })
}

/// How many nodes there are, and on which step that is.
#[derive(Debug, Default)]
struct Size {
    nodes: usize,
    step: usize,
}

impl Size {
    fn count(&mut self, change: &Change<Node>) {
        match change {
            Change::Added(_) => self.nodes += 1,
            Change::Deleted(_) => self.nodes = self.nodes.saturating_sub(1),
            Change::Updated { .. } => {}
        }
        let (min, max, _) = STEPS[self.step];
        if self.nodes > max {
            self.step += 1;
        } else if self.nodes < min {
            self.step -= 1;
        }
    }

    fn seconds(&self) -> u32 {
        STEPS[self.step].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_left_later_than_they_are_reached() {
        let mut size = Size::default();
        let node = || Arc::new(Node::default());
        let mut to = |nodes: usize, expected: u32| {
            while size.nodes < nodes {
                size.count(&Change::Added(node()));
            }
            while size.nodes > nodes {
                size.count(&Change::Deleted(node()));
            }
            assert_eq!(size.seconds(), expected, "{nodes} nodes");
        };
        to(100, 0);
        to(101, 15);
        to(90, 15);
        to(89, 0);
        to(501, 30);
        to(2001, 300);
        to(1800, 300);
        to(1799, 60);
    }
}
