//! What the scheduler knows about nodes and placed pods: what the cluster says, and what it has
//! decided itself but the cluster does not show yet.
//!
//! Source: `pkg/scheduler/backend/cache`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use orch_core::random::{Random, SeededRandom};

use crate::{
    devices::{Devices, Following},
    metrics::CacheSizes,
    node_info::NodeInfo,
    nominations::Nominations,
    pod_groups::PodGroups,
    pod_info::PodInfo,
    recording::{Line, Recorder, Whole},
    snapshot::Snapshot,
};

#[derive(Clone, Debug)]
struct Assigned {
    node: Arc<str>,
    /// Where the pod is among those of its node.
    number: u64,
    pod: Arc<PodInfo>,
    /// The cluster does not show the pod on its node yet.
    assumed: bool,
}

/// Nodes with their pods. Nodes are shared with the snapshot and copied when they change.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    nodes: HashMap<Arc<str>, Arc<NodeInfo>>,
    pods: HashMap<Arc<str>, Assigned>,
    /// In order, so that a seed gives the same snapshot every time.
    changed: BTreeSet<Arc<str>>,
    /// Pods that have no place yet, but for which one is being made.
    pub(crate) nominations: Nominations,
    /// Which members of pod groups have nodes.
    groups: PodGroups,
    recorder: Option<Recorder>,
    /// Devices that nodes offer; nodes are looked at again where they are taken or given back.
    devices: Option<Following>,
}

impl Cache {
    /// Looking at nodes again whose devices are taken or given back, if anybody cares for devices.
    pub(crate) fn following(self, devices: Option<Arc<Devices>>) -> Self {
        Self { devices: devices.map(Following::of), ..self }
    }

    /// Tells these groups which of their members have nodes, and a recorder what takes effect.
    pub(crate) fn telling(groups: PodGroups, recorder: Option<Recorder>) -> Self {
        let nominations = Nominations::recorded_by(recorder.clone());
        Self { groups, recorder, nominations, ..Self::default() }
    }

    fn record(&self, line: impl FnOnce() -> Line) {
        if let Some(recorder) = &self.recorder {
            recorder.write(&line());
        }
    }

    /// Brings a snapshot up to date for a pod's cycle, and gives the generator for its choice. One
    /// of a recorded cycle is its own, so that nothing else decides.
    pub(crate) fn begin_cycle(
        &mut self,
        pod: &PodInfo,
        snapshot: &mut Snapshot,
        random: &Arc<dyn Random>,
    ) -> Arc<dyn Random> {
        self.refresh(snapshot);
        if self.recorder.is_none() {
            return random.clone();
        }
        let seed = random.next_u64();
        self.record(|| Line::Cycle { seed, pod: Whole(pod.pod().clone()) });
        Arc::new(SeededRandom::new(seed))
    }

    /// A pod whose place was taken here is bound.
    pub(crate) fn bound(&self, pod: &PodInfo) {
        self.record(|| Line::Bound { uid: pod.uid().to_string() });
    }

    fn edit(&mut self, name: &str) -> &mut NodeInfo {
        let name: Arc<str> = match self.nodes.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        self.changed.insert(name.clone());
        let node = self.nodes.entry(name.clone());
        Arc::make_mut(node.or_insert_with(|| Arc::new(NodeInfo::unknown(name))))
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        self.record(|| Line::Node(Whole(node.clone())));
        let name = node.metadata.name.clone().unwrap_or_default();
        self.edit(&name).set_node(node);
    }

    /// Something about a node changed that is not the node's own: it is looked at again.
    pub(crate) fn touch(&mut self, name: &str) {
        if let Some((name, _)) = self.nodes.get_key_value(name) {
            self.changed.insert(name.clone());
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.record(|| Line::NodeGone(name.to_owned()));
        self.edit(name).clear_node();
        self.drop_if_empty(name);
    }

    /// A node that is gone stays only as long as pods are on it.
    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|n| n.node().is_none() && n.pods().is_empty()) {
            self.nodes.remove(name);
        }
    }

    /// A pod that the cluster shows on a node. Confirms what was assumed.
    pub(crate) fn set_pod(&mut self, pod: Arc<PodInfo>) {
        let Some(node) = pod.node_name().map(str::to_owned) else { return };
        self.record(|| Line::Pod(Whole(pod.pod().clone())));
        if let Some(have) = self.pods.get_mut(pod.uid())
            && *have.node == *node
            && is_same_for_scheduling(&have.pod, &pod)
        {
            have.assumed = false;
            self.groups.placed(&pod, false);
            return;
        }
        self.place(pod, &node, false);
    }

    /// Takes the pod's place on a node before the cluster shows it.
    pub(crate) fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.record(|| Line::Took { uid: pod.uid().to_string(), node: node.to_owned() });
        self.place(pod, node, true);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.take_out(pod.uid());
        self.nominations.remove(pod.uid());
        self.groups.placed(&pod, assumed);
        let info = self.edit(node);
        let number = info.add_pod(pod.clone());
        let node = info.name().clone();
        self.pods.insert(pod.uid().clone(), Assigned { node, number, pod, assumed });
    }

    /// Gives back what was assumed for a pod, unless the cluster shows it there.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.record(|| Line::Gave { uid: uid.to_owned() });
        if self.pods.get(uid).is_some_and(|pod| pod.assumed) {
            self.take_out(uid);
        }
    }

    /// A pod that is gone, or has come to its end.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.record(|| Line::PodGone(uid.to_owned()));
        self.take_out(uid)
    }

    fn take_out(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let gone = self.pods.remove(uid)?;
        self.groups.displaced(&gone.pod);
        self.edit(&gone.node).remove_numbered(gone.number);
        self.drop_if_empty(&gone.node);
        Some(gone.pod)
    }

    /// The same state, for a snapshot of its own.
    pub(crate) fn fork(&self) -> Self {
        let copy = |(uid, assigned): (&Arc<str>, &Assigned)| (uid.clone(), assigned.clone());
        Self {
            nodes: self.nodes.clone(),
            pods: self.pods.iter().map(copy).collect(),
            changed: self.nodes.keys().cloned().collect(),
            nominations: self.nominations.fork(),
            groups: PodGroups::default(),
            recorder: None,
            devices: self.devices.clone(),
        }
    }

    /// How much is known.
    pub(crate) fn sizes(&self) -> CacheSizes {
        let assumed = self.pods.values().filter(|pod| pod.assumed).count();
        CacheSizes { nodes: self.nodes.len(), pods: self.pods.len(), assumed }
    }

    /// The pods that are on a node.
    pub(crate) fn pods_on(&self, node: &str) -> Vec<Arc<PodInfo>> {
        self.nodes.get(node).iter().flat_map(|node| node.pods()).cloned().collect()
    }

    /// Whether a pod has its place.
    pub(crate) fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Brings a snapshot up to date with what changed since this was last called.
    pub(crate) fn refresh(&mut self, snapshot: &mut Snapshot) {
        if let Some(devices) = &mut self.devices {
            let (frozen, nodes) = devices.freeze();
            snapshot.set_devices(frozen);
            match nodes {
                Some(nodes) => nodes.iter().for_each(|node| self.touch(node)),
                None => self.changed.extend(self.nodes.keys().cloned()),
            }
        }
        for name in std::mem::take(&mut self.changed) {
            match self.nodes.get(&name).filter(|node| node.node().is_some()) {
                Some(node) => snapshot.set(node),
                None => snapshot.remove(&name),
            }
        }
        self.nominations.refresh(snapshot.nominated_mut());
    }
}

/// Whether an update of a placed pod changes nothing that is counted.
fn is_same_for_scheduling(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels() == new.labels()
        && old.requests() == new.requests()
        && old.ports() == new.ports()
        && old.non_zero() == new.non_zero()
        && old.pod().metadata.deletion_timestamp == new.pod().metadata.deletion_timestamp
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(uid: usize, milli_cpu: u32, node: Option<usize>) -> Arc<PodInfo> {
        let pod = json!({
            "metadata": {"name": format!("p{uid}"), "namespace": "d", "uid": format!("u{uid}"),
                         "labels": {"n": (uid % 3).to_string()}},
            "spec": {"nodeName": node.map(|n| format!("n{n}")), "containers": [{"name": "c",
                "ports": [{"containerPort": 1, "hostPort": 1000 + uid}],
                "resources": {"requests": {"cpu": format!("{milli_cpu}m"), "example.com/x": "1"}}}]},
        });
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn node(n: usize) -> Arc<Node> {
        let node = json!({"metadata": {"name": format!("n{n}")},
                          "status": {"allocatable": {"cpu": "4", "pods": "10"}}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Step {
        SetNode(usize),
        RemoveNode(usize),
        Assume(usize, u32, usize),
        Confirm(usize, u32, usize),
        Forget(usize),
        Remove(usize),
        Refresh,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (pods, nodes) = (0..8usize, 0..4usize);
        prop_oneof![
            nodes.clone().prop_map(Step::SetNode),
            nodes.clone().prop_map(Step::RemoveNode),
            (pods.clone(), 1..9u32, nodes.clone()).prop_map(|(p, c, n)| Step::Assume(p, c, n)),
            (pods.clone(), 1..9u32, nodes).prop_map(|(p, c, n)| Step::Confirm(p, c, n)),
            pods.clone().prop_map(Step::Forget),
            pods.prop_map(Step::Remove),
            Just(Step::Refresh),
        ]
    }

    proptest! {
        /// What was added up event by event equals what a fresh start adds up.
        #[test]
        fn aggregates_neither_leak_nor_double_count(steps in prop::collection::vec(step(), 1..60)) {
            let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
            for step in steps {
                match step {
                    Step::SetNode(n) => cache.set_node(node(n)),
                    Step::RemoveNode(n) => cache.remove_node(&format!("n{n}")),
                    Step::Assume(p, c, n) => cache.assume(pod(p, c, None), &format!("n{n}")),
                    Step::Confirm(p, c, n) => cache.set_pod(pod(p, c, Some(n))),
                    Step::Forget(p) => cache.forget(&format!("u{p}")),
                    Step::Remove(p) => drop(cache.remove_pod(&format!("u{p}"))),
                    Step::Refresh => cache.refresh(&mut snapshot),
                }
            }
            cache.refresh(&mut snapshot);
            let mut known = 0;
            for info in cache.nodes.values() {
                let Some(node) = info.node() else {
                    prop_assert!(snapshot.node(info.name()).is_none());
                    continue;
                };
                known += 1;
                let fresh = NodeInfo::new(node.clone(), info.pods().iter().cloned());
                prop_assert_eq!(info.requested(), fresh.requested());
                prop_assert_eq!(info.non_zero(), fresh.non_zero());
                prop_assert!(Arc::ptr_eq(snapshot.node(info.name()).unwrap(), info));
            }
            prop_assert_eq!(snapshot.nodes().len(), known);
            let namespaces = ["d".to_owned()].into();
            for n in 0..3 {
                let selector = format!("n={n}").parse().unwrap();
                let mut found: Vec<_> = snapshot
                    .matching(&namespaces, &selector)
                    .map(|placed| (placed.pod.uid().to_string(), placed.node.to_string()))
                    .collect();
                let mut expected: Vec<_> = snapshot
                    .nodes()
                    .iter()
                    .flat_map(|node| node.pods().iter().map(move |pod| (pod, node)))
                    .filter(|(pod, _)| selector.matches(pod.labels()))
                    .map(|(pod, node)| (pod.uid().to_string(), node.name().to_string()))
                    .collect();
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
