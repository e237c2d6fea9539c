//! A pod that needs a feature of the kubelet goes where the node declares it.

use k8s_openapi::api::core::v1::{Node, PodSpec};

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, PreFilter, PreFiltered, Reuse},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// A feature that nodes declare, and whether a pod cannot run without it.
struct Feature {
    name: &'static str,
    is_needed: fn(&PodSpec) -> bool,
}

/// Those of 1.36 that decide where pods go.
///
/// Source: `k8s.io/component-helpers/nodedeclaredfeatures/features`.
const FEATURES: &[Feature] = &[
    Feature { name: "RestartAllContainersOnContainerExits", is_needed: restarts_all_containers },
    Feature {
        name: "UserNamespacesHostNetworkSupport",
        is_needed: |spec| spec.host_network == Some(true) && spec.host_users == Some(false),
    },
];

fn restarts_all_containers(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut rules =
        containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == "RestartAllContainers")
}

/// What a pod needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Needed(Vec<&'static str>);

impl Needed {
    fn by(spec: Option<&PodSpec>) -> Self {
        let needed = |feature: &&Feature| spec.is_some_and(feature.is_needed);
        Self(FEATURES.iter().filter(needed).map(|feature| feature.name).collect())
    }
}

/// Rules out nodes that do not declare what a pod needs in `status.declaredFeatures`.
///
/// Source: `pkg/scheduler/framework/plugins/nodedeclaredfeatures`, KEP-5328.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &str {
        "NodeDeclaredFeatures"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreFilter for NodeDeclaredFeatures {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        let needed = Needed::by(pod.spec());
        if needed.0.is_empty() {
            return Ok(Verdict::Skip.into());
        }
        state.insert(needed);
        Ok(Verdict::Success.into())
    }
}

impl Filter for NodeDeclaredFeatures {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let needed = state.get::<Needed>().ok_or("PreFilter was not called")?;
        let declared = node.node().and_then(|node| declared(node)).unwrap_or_default();
        if needed.0.iter().all(|feature| declared.iter().any(|have| have == feature)) {
            return Ok(Verdict::Success);
        }
        Ok(Verdict::unresolvable("node(s) didn't match Pod's required features"))
    }

    fn reuse(&self) -> Reuse {
        Reuse::UntilNodeChanges
    }
}

fn declared(node: &Node) -> Option<&[String]> {
    node.status.as_ref()?.declared_features.as_deref()
}

impl EventsToRegister for NodeDeclaredFeatures {
    fn events(&self) -> Vec<ClusterEvent> {
        let node = Actions::ADD.or(Actions::UPDATE_DECLARED_FEATURES);
        vec![
            ClusterEvent::new(EventResource::Node, node),
            ClusterEvent::new(EventResource::PodItself, Actions::UPDATE),
        ]
    }

    fn hint(&self, _: &PodInfo, change: &ClusterChange) -> Hint {
        let changed = match &change.object {
            ChangedObject::Node { old: Some(old), new: Some(new) } => {
                declared(old) != declared(new)
            }
            ChangedObject::Pod { old, new } => {
                Needed::by(old.spec.as_ref()) != Needed::by(new.spec.as_ref())
            }
            _ => true,
        };
        if changed { Hint::Queue } else { Hint::Skip }
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON is passed as it is written down")]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> PodInfo {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[track_caller]
    fn check(spec: Value, declared: &[&str], fits: bool) {
        let pod = pod(spec);
        let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": declared}});
        let node = NodeInfo::new(Arc::new(serde_json::from_value(node).unwrap()), []);
        let mut state = CycleState::default();
        let plugin = NodeDeclaredFeatures;
        let before = plugin.pre_filter(&mut state, &pod, &Snapshot::default()).unwrap().verdict;
        let verdict = match before {
            Verdict::Skip => Verdict::Success,
            _ => plugin.filter(&state, &pod, &node).unwrap(),
        };
        let expected = match fits {
            true => Verdict::Success,
            false => Verdict::unresolvable("node(s) didn't match Pod's required features"),
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn what_a_pod_needs_must_be_declared() {
        let rule =
            |action: &str| json!([{"name": "c", "restartPolicyRules": [{"action": action}]}]);
        let restart = "RestartAllContainersOnContainerExits";
        let users = "UserNamespacesHostNetworkSupport";
        check(json!({"containers": []}), &[], true);
        check(json!({"containers": rule("Restart")}), &[], true);
        check(json!({"containers": rule("RestartAllContainers")}), &[users], false);
        check(json!({"containers": rule("RestartAllContainers")}), &[users, restart], true);
        let init = json!({"containers": [], "initContainers": rule("RestartAllContainers")});
        check(init, &[], false);
        let host = |users: bool| json!({"containers": [], "hostNetwork": true, "hostUsers": users});
        check(host(true), &[], true);
        check(host(false), &[restart], false);
        check(host(false), &[users], true);
        check(json!({"containers": [], "hostUsers": false}), &[], true);
    }

    #[test]
    fn a_node_helps_when_what_it_declares_has_changed() {
        let node = |features: &[&str]| -> Arc<Node> {
            let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let check = |old: Option<Arc<Node>>, new: Arc<Node>, expected: Hint| {
            let change = ClusterChange {
                resource: EventResource::Node,
                actions: Actions::ALL,
                object: ChangedObject::Node { old, new: Some(new) },
            };
            let hint = NodeDeclaredFeatures.hint(&pod(json!({"containers": []})), &change);
            assert_eq!(hint, expected);
        };
        check(None, node(&[]), Hint::Queue);
        check(Some(node(&["A"])), node(&["A"]), Hint::Skip);
        check(Some(node(&["A"])), node(&["A", "B"]), Hint::Queue);
    }
}
