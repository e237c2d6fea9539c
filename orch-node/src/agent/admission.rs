//! Whether a pod that was bound to this node can run here after all.
//!
//! Source: `pkg/kubelet/lifecycle/predicate.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use orch_core::{
    extended_resource::may_be_devices,
    selector::{Operator, Requirement},
};

use super::{
    resources::{self, Amounts},
    spec,
};

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A port of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    protocol: String,
    port: i32,
    address: String,
}

/// The address that stands for all of the host's.
const ALL_ADDRESSES: &str = "0.0.0.0";

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let all = self.address == ALL_ADDRESSES || other.address == ALL_ADDRESSES;
        (self.port, &self.protocol) == (other.port, &other.protocol)
            && (all || self.address == other.address)
    }
}

/// What an admitted pod has taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    requests: Amounts,
    host_ports: Vec<HostPort>,
}

impl Taken {
    pub(crate) fn by(pod: &Pod) -> Self {
        let ports = spec::all_containers(pod).flat_map(|(_, c)| c.ports.iter().flatten());
        let host_port = |p: &k8s_openapi::api::core::v1::ContainerPort| {
            let given = p.host_ip.clone().filter(|address| !address.is_empty());
            Some(HostPort {
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: p.host_port.filter(|&port| port > 0)?,
                address: given.unwrap_or_else(|| ALL_ADDRESSES.into()),
            })
        };
        Self {
            requests: resources::pod_requests(pod),
            host_ports: ports.filter_map(host_port).collect(),
        }
    }
}

impl Taken {
    fn conflicts(&self, other: &Self) -> bool {
        self.host_ports.iter().any(|own| other.host_ports.iter().any(|port| own.conflicts(port)))
    }
}

/// Pods that have been admitted, by uid.
#[derive(Debug, Default)]
pub(crate) struct Admitted(BTreeMap<String, Taken>);

impl Admitted {
    pub(crate) fn release(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Notes a pod that runs already: an adopted one is not judged again.
    pub(crate) fn keep(&mut self, pod: &Pod) {
        self.0.insert(spec::uid(pod).to_owned(), Taken::by(pod));
    }

    /// Admits a pod, or says why not.
    pub(crate) fn admit(&mut self, pod: &Pod, node: &Node) -> Result<(), Rejection> {
        let uid = spec::uid(pod);
        if self.0.contains_key(uid) {
            return Ok(());
        }
        let os = spec::spec(pod).os.as_ref().map_or("linux", |os| os.name.as_str());
        if os != "linux" {
            return Err(Rejection {
                reason: "PodOSNotSupported".into(),
                message:
                    "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS"
                        .into(),
            });
        }
        let taken = Taken::by(pod);
        self.fits(&taken, node)?;
        if self.0.values().any(|other| other.conflicts(&taken)) {
            let what = "node(s) didn't have free ports for the requested pod ports";
            return Err(predicate("NodePorts", what));
        }
        if !selects(pod, node) {
            let what = "node(s) didn't match Pod's node affinity/selector";
            return Err(predicate("NodeAffinity", what));
        }
        let tolerations = spec::spec(pod).tolerations.as_deref().unwrap_or_default();
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let evicts = |t: &&Taint| t.effect == "NoExecute" && !tolerates(tolerations, t);
        if taints.iter().any(|t| evicts(&t)) {
            let what = "node(s) had taints that the pod didn't tolerate";
            return Err(predicate("TaintToleration", what));
        }
        self.0.insert(uid.to_owned(), taken);
        Ok(())
    }

    fn fits(&self, taken: &Taken, node: &Node) -> Result<(), Rejection> {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let allocatable = resources::amounts(allocatable);
        let pods = allocatable.get("pods").map_or(i64::MAX, |a| a.value());
        let used = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        if used >= pods {
            return Err(out_of("pods", 1, used, pods));
        }
        for (name, wanted) in &taken.requests {
            // Resources of the cluster, and those that devices stand behind, are no matter of the
            // node that has none.
            let has_none = allocatable.get(name).is_none_or(|has| has.is_zero());
            let is_foreign = may_be_devices(name) && has_none;
            if wanted.is_zero() || is_foreign {
                continue;
            }
            let unit = |a: orch_core::quantity::Amount| {
                if name == "cpu" { a.milli_value() } else { a.value() }
            };
            let capacity = allocatable.get(name).map_or(0, |a| unit(*a));
            let used = self.0.values().filter_map(|t| t.requests.get(name)).copied().map(unit);
            let used = used.fold(0i64, i64::saturating_add);
            if unit(*wanted) > capacity.saturating_sub(used) {
                return Err(out_of(name, unit(*wanted), used, capacity));
            }
        }
        Ok(())
    }
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    Rejection {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: \
             {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

fn predicate(reason: &str, what: &str) -> Rejection {
    let message = format!("Pod was rejected: Predicate {reason} failed: {what}");
    Rejection { reason: reason.into(), message }
}

fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        let value = t.value.as_deref().unwrap_or_default();
        let exists = t.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

/// Whether the pod's node selector and its required node affinity take the node.
fn selects(pod: &Pod, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let spec = spec::spec(pod);
    let by_label = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    by_label
        && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| matches(t, labels, name)))
}

fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let fields: BTreeMap<String, String> = [("metadata.name".to_owned(), name.to_owned())].into();
    let all = |requirements: Option<&Vec<NodeSelectorRequirement>>, of: &BTreeMap<_, _>| {
        requirements.into_iter().flatten().all(|r| requirement(r).is_some_and(|r| r.matches(of)))
    };
    let (expressions, by_field) = (term.match_expressions.as_ref(), term.match_fields.as_ref());
    let is_empty = |r: Option<&Vec<_>>| r.is_none_or(Vec::is_empty);
    // A term without requirements selects nothing.
    !(is_empty(expressions) && is_empty(by_field))
        && all(expressions, labels)
        && all(by_field, &fields)
}

fn requirement(r: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = Operator::from_api(&r.operator)?;
    Requirement::new(&r.key, operator, r.values.clone().unwrap_or_default()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n", "labels": { "disk": "ssd" } },
            "spec": { "taints": [{ "key": "k", "effect": "NoExecute" }] },
            "status": { "allocatable": { "cpu": "1", "memory": "1Gi", "pods": "3" } }
        }))
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better so")]
    fn pod(uid: &str, spec: Value) -> Pod {
        let mut pod: Pod =
            serde_json::from_value(json!({ "metadata": { "uid": uid }, "spec": spec })).unwrap();
        let spec = pod.spec.as_mut().unwrap();
        spec.tolerations.get_or_insert_default().push(Toleration {
            operator: Some("Exists".into()),
            key: Some("k".into()),
            ..Toleration::default()
        });
        pod
    }

    fn reason(admitted: &mut Admitted, pod: &Pod) -> String {
        admitted.admit(pod, &node()).err().map_or_else(String::new, |r| r.reason)
    }

    #[test]
    fn resources_are_counted() {
        let mut admitted = Admitted::default();
        let spec = json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "600m" } } }] });
        assert_eq!(reason(&mut admitted, &pod("1", spec.clone())), "");
        assert_eq!(reason(&mut admitted, &pod("1", spec.clone())), "");
        let refused = admitted.admit(&pod("2", spec.clone()), &node()).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        let expected = "requested: 600, used: 600, capacity: 1000";
        assert!(refused.message.ends_with(expected), "{}", refused.message);
        admitted.release("1");
        assert_eq!(reason(&mut admitted, &pod("2", spec)), "");
        let foreign = json!({ "containers": [
            { "name": "a", "resources": { "requests": {
                "example.com/gpu": "1", "deviceclass.resource.kubernetes.io/gpu": "1",
            } } },
        ] });
        assert_eq!(reason(&mut admitted, &pod("3", foreign)), "");
    }

    #[test]
    fn selectors_ports_and_taints_are_heeded() {
        let mut admitted = Admitted::default();
        let containers =
            json!([{ "name": "a", "ports": [{ "containerPort": 1, "hostPort": 80 }] }]);
        let spec = |more: Value| {
            let mut spec = json!({ "containers": containers });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let wrong = pod("1", spec(json!({ "nodeSelector": { "disk": "hdd" } })));
        assert_eq!(reason(&mut admitted, &wrong), "NodeAffinity");
        let mut strict = pod("1", spec(json!({})));
        strict.spec.as_mut().unwrap().tolerations = None;
        assert_eq!(reason(&mut admitted, &strict), "TaintToleration");
        let fits = pod("1", spec(json!({ "nodeSelector": { "disk": "ssd" } })));
        assert_eq!(reason(&mut admitted, &fits), "");
        assert_eq!(reason(&mut admitted, &pod("2", spec(json!({})))), "NodePorts");
        let mut admitted = Admitted::default();
        let on = |address: &str| {
            let port = json!({ "containerPort": 1, "hostPort": 81, "hostIP": address });
            json!({ "containers": [{ "name": "a", "ports": [port] }] })
        };
        assert_eq!(reason(&mut admitted, &pod("3", on("10.0.0.1"))), "");
        assert_eq!(reason(&mut admitted, &pod("4", on("127.0.0.1"))), "");
        assert_eq!(reason(&mut admitted, &pod("5", on("127.0.0.1"))), "NodePorts");
        assert_eq!(reason(&mut admitted, &pod("6", on(""))), "NodePorts");
        let windows = spec(json!({ "os": { "name": "windows" } }));
        assert_eq!(reason(&mut admitted, &pod("7", windows)), "PodOSNotSupported");
    }
}
