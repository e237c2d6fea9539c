//! Which pods belong to which pod group, and how far each of them is.
//!
//! Source: `pkg/scheduler/backend/podgroupmanager`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use orch_core::Key;
use parking_lot::Mutex;

use crate::pod_info::PodInfo;

/// How far a member of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has no node.
    Unscheduled,
    /// The scheduler has chosen its node, and the cluster does not show it yet.
    Assumed,
    /// The cluster shows it on its node.
    Assigned,
}

/// The members of one group by their uids, in order: a seed gives the same history every time.
type Members = BTreeMap<Arc<str>, Stage>;

/// The members of all pod groups, kept event by event. Pods without a group cost nothing. Cheap to
/// clone: clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodGroups {
    groups: Arc<Mutex<HashMap<Key, Members>>>,
}

/// How many members a group has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberCounts {
    /// All that exist and have not come to their end.
    pub(crate) all: usize,
    /// Those that have a node, chosen or shown.
    pub(crate) scheduled: usize,
}

/// The group that a pod names, with its namespace.
pub(crate) fn group_of(pod: &PodInfo) -> Option<Key> {
    let name = pod.spec()?.scheduling_group.as_ref()?.pod_group_name.as_deref()?;
    Some(Key { namespace: pod.key().namespace.clone(), name: name.into() })
}

impl PodGroups {
    /// A pod without a node exists. What is known of it already stays.
    pub(crate) fn exists(&self, pod: &PodInfo) {
        if let Some(group) = group_of(pod) {
            let mut groups = self.groups.lock();
            let members = groups.entry(group).or_default();
            members.entry(pod.uid().clone()).or_insert(Stage::Unscheduled);
        }
    }

    /// A pod has a node.
    pub(crate) fn placed(&self, pod: &PodInfo, assumed: bool) {
        let stage = if assumed { Stage::Assumed } else { Stage::Assigned };
        self.set(pod, stage);
    }

    /// A pod lost the node that was chosen for it.
    pub(crate) fn displaced(&self, pod: &PodInfo) {
        self.set(pod, Stage::Unscheduled);
    }

    fn set(&self, pod: &PodInfo, stage: Stage) {
        if let Some(group) = group_of(pod) {
            let mut groups = self.groups.lock();
            groups.entry(group).or_default().insert(pod.uid().clone(), stage);
        }
    }

    /// A pod is gone, or has come to its end.
    pub(crate) fn gone(&self, pod: &PodInfo) {
        let Some(group) = group_of(pod) else { return };
        let mut groups = self.groups.lock();
        if let Some(members) = groups.get_mut(&group) {
            members.remove(pod.uid());
            if members.is_empty() {
                groups.remove(&group);
            }
        }
    }

    pub(crate) fn counts(&self, group: &Key) -> MemberCounts {
        let groups = self.groups.lock();
        let Some(members) = groups.get(group) else { return MemberCounts::default() };
        let scheduled = members.values().filter(|stage| **stage != Stage::Unscheduled).count();
        MemberCounts { all: members.len(), scheduled }
    }

    /// The uids of the members that have no node.
    pub(crate) fn unscheduled(&self, group: &Key) -> Vec<Arc<str>> {
        self.at(group, Stage::Unscheduled)
    }

    /// The uids of the members that are on their way to their nodes.
    pub(crate) fn assumed(&self, group: &Key) -> Vec<Arc<str>> {
        self.at(group, Stage::Assumed)
    }

    fn at(&self, group: &Key, wanted: Stage) -> Vec<Arc<str>> {
        let groups = self.groups.lock();
        let members = groups.get(group).into_iter().flatten();
        members.filter(|(_, stage)| **stage == wanted).map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, group: Option<&str>) -> PodInfo {
        let group = group.map(|group| json!({"podGroupName": group}));
        let pod = json!({"metadata": {"name": uid, "namespace": "d", "uid": uid},
                         "spec": {"containers": [], "schedulingGroup": group}});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn members_are_counted_from_when_they_come_until_they_go() {
        let groups = PodGroups::default();
        let key = Key { namespace: "d".into(), name: "g".into() };
        let (a, b) = (pod("a", Some("g")), pod("b", Some("g")));
        let check = |all, scheduled, unscheduled: &[&str], assumed: &[&str]| {
            assert_eq!(groups.counts(&key), MemberCounts { all, scheduled });
            let text = |uids: Vec<Arc<str>>| uids.iter().map(|uid| uid.to_string()).collect();
            let found: [Vec<String>; 2] =
                [text(groups.unscheduled(&key)), text(groups.assumed(&key))];
            assert_eq!(found, [unscheduled.to_vec(), assumed.to_vec()]);
        };
        groups.exists(&pod("alone", None));
        check(0, 0, &[], &[]);
        groups.exists(&a);
        groups.exists(&b);
        check(2, 0, &["a", "b"], &[]);
        groups.placed(&a, true);
        groups.exists(&a);
        check(2, 1, &["b"], &["a"]);
        groups.placed(&a, false);
        groups.placed(&b, true);
        check(2, 2, &[], &["b"]);
        groups.displaced(&b);
        check(2, 1, &["b"], &[]);
        groups.gone(&a);
        groups.gone(&b);
        check(0, 0, &[], &[]);
        assert!(groups.groups.lock().is_empty(), "nothing is left behind");
    }
}
