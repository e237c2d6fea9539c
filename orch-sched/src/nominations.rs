//! Pods for which room is being made, by the node where that happens.
//!
//! Source: `pkg/scheduler/backend/queue/nominator.go`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    pod_info::PodInfo,
    recording::{Line, Recorder, Whole},
};

/// The pods that are nominated to each node, in the order in which they were.
pub(crate) type ByNode = BTreeMap<Arc<str>, Arc<Vec<Arc<PodInfo>>>>;

/// Pods that wait for room on a node, kept event by event.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    by_node: ByNode,
    node_of: HashMap<Arc<str>, Arc<str>>,
    /// In order, so that a seed gives the same history every time.
    changed: BTreeSet<Arc<str>>,
    recorder: Option<Recorder>,
}

impl Nominations {
    pub(crate) fn recorded_by(recorder: Option<Recorder>) -> Self {
        Self { recorder, ..Self::default() }
    }

    fn record(&self, node: Option<&str>, pod: &PodInfo) {
        if let Some(recorder) = &self.recorder {
            let node = node.map(str::to_owned);
            recorder.write(&Line::Nominated { node, pod: Whole(pod.pod().clone()) });
        }
    }

    /// The pod waits for room on this node, and on no other any more.
    pub(crate) fn set(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.remove(pod.uid());
        self.record(Some(node), pod);
        let node: Arc<str> = node.into();
        Arc::make_mut(self.by_node.entry(node.clone()).or_default()).push(pod.clone());
        self.node_of.insert(pod.uid().clone(), node.clone());
        self.changed.insert(node);
    }

    /// The pod waits for no room.
    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(node) = self.node_of.remove(uid) else { return };
        if let Some(pod) = self.on(&node).iter().find(|pod| **pod.uid() == *uid) {
            self.record(None, pod);
        }
        if let Some(pods) = self.by_node.get_mut(&node) {
            Arc::make_mut(pods).retain(|pod| **pod.uid() != *uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        self.changed.insert(node);
    }

    /// A pod without a node, new or changed: what its status says counts, except that a nomination
    /// that was made here is kept while no status has said anything about it.
    pub(crate) fn follow(&mut self, old: Option<&str>, pod: &Arc<PodInfo>) {
        let unsaid = old.is_none() && pod.nominated_node().is_none();
        let node = match pod.nominated_node() {
            None if unsaid => self.node_of.get(pod.uid()).map(|node| node.to_string()),
            said => said.map(str::to_owned),
        };
        match node {
            Some(node) => self.set(pod, &node),
            None => self.remove(pod.uid()),
        }
    }

    /// The pod was not placed and nothing new is known about where room is made for it.
    pub(crate) fn keep(&mut self, pod: &Arc<PodInfo>) {
        if !self.node_of.contains_key(pod.uid())
            && let Some(node) = pod.nominated_node()
        {
            self.set(pod, node);
        }
    }

    /// The same state, for a copy of its own.
    pub(crate) fn fork(&self) -> Self {
        Self {
            by_node: self.by_node.clone(),
            node_of: self.node_of.clone(),
            changed: self.by_node.keys().cloned().collect(),
            recorder: None,
        }
    }

    /// The pods that wait for room on a node.
    pub(crate) fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map_or(&[], |pods| pods)
    }

    /// Brings a copy up to date with what changed since this was last called.
    pub(crate) fn refresh(&mut self, copy: &mut ByNode) {
        for node in std::mem::take(&mut self.changed) {
            match self.by_node.get(&node) {
                Some(pods) => drop(copy.insert(node, pods.clone())),
                None => drop(copy.remove(&node)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, nominated: Option<&str>) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": uid, "namespace": "d", "uid": uid},
                         "spec": {"containers": []},
                         "status": {"nominatedNodeName": nominated}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    #[test]
    fn a_pod_waits_on_one_node_and_a_copy_follows() {
        let (mut nominations, mut copy) = (Nominations::default(), ByNode::new());
        let mut check = |nominations: &mut Nominations, expected: &[(&str, &[&str])]| {
            nominations.refresh(&mut copy);
            let found: Vec<(&str, Vec<&str>)> = copy
                .iter()
                .map(|(node, pods)| (&**node, pods.iter().map(|pod| &**pod.uid()).collect()))
                .collect();
            let expected: Vec<(&str, Vec<&str>)> =
                expected.iter().map(|(node, pods)| (*node, pods.to_vec())).collect();
            assert_eq!(found, expected);
        };
        nominations.set(&pod("a", None), "n1");
        nominations.set(&pod("b", None), "n1");
        check(&mut nominations, &[("n1", &["a", "b"])]);
        nominations.set(&pod("a", None), "n2");
        check(&mut nominations, &[("n1", &["b"]), ("n2", &["a"])]);
        // The pod changes before its status tells of the nomination.
        nominations.follow(None, &pod("a", None));
        check(&mut nominations, &[("n1", &["b"]), ("n2", &["a"])]);
        nominations.follow(None, &pod("a", Some("n2")));
        nominations.follow(Some("n2"), &pod("a", None));
        check(&mut nominations, &[("n1", &["b"])]);
        nominations.keep(&pod("a", Some("n3")));
        nominations.keep(&pod("b", Some("n3")));
        check(&mut nominations, &[("n1", &["b"]), ("n3", &["a"])]);
        nominations.remove("a");
        nominations.remove("b");
        check(&mut nominations, &[]);
        assert!(nominations.on("n1").is_empty());
    }
}
