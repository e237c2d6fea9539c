//! On which nodes a set's pods run.
//!
//! Source: `NodeShouldRunDaemonPod` of the daemon set controller, and
//! `k8s.io/kubernetes/pkg/controller/daemon/util/daemonset_util.go`.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, PodTemplateSpec, Taint, Toleration,
};
use orch_core::selector::{Operator, Requirement};

use crate::taint_eviction::tolerates;

/// Taints that a daemon tolerates by its nature: it is part of the node.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is to be a pod.
    Runs,
    /// One that is there may stay, but none is created.
    Stays,
    /// There is to be none.
    Unsuitable,
}

/// Whether a change of a node changes nothing here.
pub(super) fn same(old: &Node, new: &Node) -> bool {
    fn taints(node: &Node) -> Option<&[Taint]> {
        node.spec.as_ref()?.taints.as_deref()
    }
    old.metadata.labels == new.metadata.labels && taints(old) == taints(new)
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let network = (spec.host_network == Some(true)).then_some(&network);
    for (key, effect) in TOLERATED.iter().chain(network) {
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// Judges nodes by one template.
pub(super) struct Judge<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Judge<'a> {
    pub(super) fn of(template: &'a PodTemplateSpec) -> Self {
        let spec = template.spec.as_ref();
        Self { spec, tolerations: spec.map(tolerations).unwrap_or_default() }
    }

    pub(super) fn verdict(&self, node: &Node) -> Verdict {
        let Some(spec) = self.spec else { return Verdict::Unsuitable };
        let wanted = spec.node_name.as_ref().filter(|name| !name.is_empty());
        if wanted.is_some_and(|wanted| node.metadata.name.as_ref() != Some(wanted))
            || !suits(node, spec)
        {
            return Verdict::Unsuitable;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let refused = |effect: &str| {
            taints.iter().filter(|taint| taint.effect == effect).any(|taint| {
                !self.tolerations.iter().any(|toleration| tolerates(toleration, taint))
            })
        };
        if refused("NoExecute") {
            Verdict::Unsuitable
        } else if refused("NoSchedule") {
            Verdict::Stays
        } else {
            Verdict::Runs
        }
    }
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

fn suits(node: &Node, spec: &PodSpec) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| label(k) == Some(v.as_str()));
    let field = |key: &str| match key {
        "metadata.name" => node.metadata.name.as_deref(),
        _ => None,
    };
    selected
        && required(spec).is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| {
                let (expressions, fields) =
                    (term.match_expressions.as_deref(), term.match_fields.as_deref());
                let empty = |list: Option<&[NodeSelectorRequirement]>| {
                    list.is_none_or(<[NodeSelectorRequirement]>::is_empty)
                };
                !(empty(expressions) && empty(fields))
                    && expressions.into_iter().flatten().all(|r| satisfies(r, label(&r.key)))
                    && fields.into_iter().flatten().all(|r| satisfies(r, field(&r.key)))
            })
        })
}

fn satisfies(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.clone().unwrap_or_default();
    let parsed = Operator::from_api(&requirement.operator)
        .and_then(|operator| Requirement::new(&*requirement.key, operator, values).ok());
    parsed.is_some_and(|requirement| requirement.matches_value(value))
}

/// Lets the scheduler put the pod on this node and no other.
pub(super) fn bind(pod: &mut Pod, node: &str) {
    let Some(spec) = &mut pod.spec else { return };
    spec.tolerations = Some(tolerations(spec));
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
}

/// The node that a pod is on, or is meant for.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let fields = required(spec)?.node_selector_terms.iter().flat_map(|t| t.match_fields.iter());
    let name = fields.flatten().find(|field| field.key == "metadata.name")?;
    name.values.as_ref()?.first().map(String::as_str)
}
