//! A pod with what scheduling asks of it worked out once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm,
};
use orch_core::{
    Key,
    selector::{Operator, Requirement, Selector},
};

use crate::resources::{NonZero, Resources, pod_requests};

pub(crate) static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// A port on the node that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The address; `0.0.0.0` stands for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

/// One term of pod affinity or anti-affinity, ready to match.
#[derive(Clone, Debug, PartialEq)]
pub struct AffinityTerm {
    /// Which pods by their labels.
    pub selector: Selector,
    /// In these namespaces,
    pub namespaces: BTreeSet<String>,
    /// or in namespaces with such labels.
    pub namespace_selector: Option<Selector>,
    /// What counts as the same place.
    pub topology_key: String,
    /// How much a preferred term weighs; 0 for a required one.
    pub weight: i64,
}

impl AffinityTerm {
    /// Whether the term is about `pod`, whose namespace has these labels.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
        let selected = self.namespace_selector.as_ref();
        (self.namespaces.contains(pod.namespace())
            || selected.is_some_and(|selector| selector.matches(namespace_labels)))
            && self.selector.matches(pod.labels())
    }
}

/// A pod's affinity terms towards other pods.
#[derive(Clone, Debug, Default)]
pub struct AffinityTerms {
    /// Must be met.
    pub required: Vec<AffinityTerm>,
    /// Should be met.
    pub preferred: Vec<AffinityTerm>,
}

/// A pod with what scheduling asks of it worked out once. Immutable and shared.
#[derive(Debug)]
pub struct PodInfo {
    pod: Arc<Pod>,
    key: Key,
    uid: Arc<str>,
    requests: Resources,
    non_zero: NonZero,
    ports: Vec<HostPort>,
    affinity: AffinityTerms,
    anti_affinity: AffinityTerms,
    error: Option<String>,
}

impl PodInfo {
    /// Works a pod out. What cannot be understood (the API refuses it, but it may be stored) is
    /// remembered as [`PodInfo::error`].
    pub fn new(pod: Arc<Pod>) -> Self {
        let key = Key::of(&pod.metadata);
        // A pod without a uid exists in tests only; its name is as good there.
        let uid = pod.metadata.uid.clone().unwrap_or_else(|| key.to_string());
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let mut error = None;
        let (requests, non_zero) = pod_requests(spec).unwrap_or_else(|fault| {
            error = Some(fault.to_string());
            Default::default()
        });
        let mut terms = |of: fn(&Affinity) -> Terms<'_>| {
            let affinity = spec.affinity.as_ref().map(of).unwrap_or_default();
            affinity_terms(&pod, affinity).unwrap_or_else(|fault| {
                error = Some(fault);
                AffinityTerms::default()
            })
        };
        let affinity = terms(|affinity| {
            let pods = affinity.pod_affinity.as_ref();
            (
                pods.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()),
                pods.and_then(|a| {
                    a.preferred_during_scheduling_ignored_during_execution.as_deref()
                }),
            )
        });
        let anti_affinity = terms(|affinity| {
            let pods = affinity.pod_anti_affinity.as_ref();
            (
                pods.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()),
                pods.and_then(|a| {
                    a.preferred_during_scheduling_ignored_during_execution.as_deref()
                }),
            )
        });
        let ports = host_ports(spec);
        Self {
            key,
            uid: uid.into(),
            requests,
            non_zero,
            ports,
            affinity,
            anti_affinity,
            error,
            pod,
        }
    }

    /// The pod.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// Namespace and name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The pod's uid.
    pub fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The pod's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    /// The pod's spec, if it has one.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The node that the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The pod's priority; 0 without one.
    pub fn priority(&self) -> i32 {
        self.spec().and_then(|spec| spec.priority).unwrap_or(0)
    }

    /// The node on which room is being made for the pod.
    pub fn nominated_node(&self) -> Option<&str> {
        let status = self.pod.status.as_ref();
        let node = status.and_then(|status| status.nominated_node_name.as_deref());
        node.filter(|name| !name.is_empty())
    }

    /// The scheduler that the pod asks for.
    pub fn scheduler_name(&self) -> &str {
        let name = self.spec().and_then(|spec| spec.scheduler_name.as_deref());
        name.filter(|name| !name.is_empty()).unwrap_or("default-scheduler")
    }

    /// What the pod tolerates.
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// What the pod requests.
    pub fn requests(&self) -> &Resources {
        &self.requests
    }

    /// CPU and memory for ranking.
    pub fn non_zero(&self) -> NonZero {
        self.non_zero
    }

    /// The ports on the node that the pod asks for.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    /// Where the pod wants to be with which pods.
    pub fn affinity(&self) -> &AffinityTerms {
        &self.affinity
    }

    /// Where the pod does not want to be with which pods.
    pub fn anti_affinity(&self) -> &AffinityTerms {
        &self.anti_affinity
    }

    /// Whether the pod has any affinity or anti-affinity term.
    pub(crate) fn has_affinity(&self) -> bool {
        let has = |terms: &AffinityTerms| !terms.required.is_empty() || !terms.preferred.is_empty();
        has(&self.affinity) || has(&self.anti_affinity)
    }

    /// What could not be understood about the pod.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

type Terms<'a> = (Option<&'a [PodAffinityTerm]>, Option<&'a [WeightedPodAffinityTerm]>);

fn affinity_terms(pod: &Pod, (required, preferred): Terms<'_>) -> Result<AffinityTerms, String> {
    let required = required.unwrap_or_default().iter().map(|t| affinity_term(pod, t, 0));
    let preferred = preferred.unwrap_or_default().iter();
    let preferred = preferred.map(|t| affinity_term(pod, &t.pod_affinity_term, t.weight.into()));
    Ok(AffinityTerms {
        required: required.collect::<Result<_, _>>()?,
        preferred: preferred.collect::<Result<_, _>>()?,
    })
}

fn affinity_term(pod: &Pod, term: &PodAffinityTerm, weight: i64) -> Result<AffinityTerm, String> {
    let selector = Selector::from_label_selector(term.label_selector.as_ref());
    let selector = selector.map_err(|error| error.to_string())?;
    let same = (term.match_label_keys.as_deref(), Operator::In);
    let other = (term.mismatch_label_keys.as_deref(), Operator::NotIn);
    let selector = with_pod_labels(selector, pod, &[same, other])?;
    let namespace_selector = match &term.namespace_selector {
        None => None,
        some => Some(Selector::from_label_selector(some.as_ref()).map_err(|e| e.to_string())?),
    };
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && namespace_selector.is_none() {
        namespaces.insert(pod.metadata.namespace.clone().unwrap_or_default());
    }
    let topology_key = term.topology_key.clone();
    Ok(AffinityTerm { selector, namespaces, namespace_selector, topology_key, weight })
}

/// Narrows a selector to pods that have the same (or other) values of some labels as this pod. The
/// API merges such keys into the selector when a pod is created; doing it again changes nothing.
pub(crate) fn with_pod_labels(
    selector: Selector,
    pod: &Pod,
    keys: &[(Option<&[String]>, Operator)],
) -> Result<Selector, String> {
    if selector.is_nothing() {
        return Ok(selector);
    }
    let labels = pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
    let mut requirements = selector.requirements().to_vec();
    for (keys, operator) in keys {
        for key in keys.unwrap_or_default() {
            if let Some(value) = labels.get(key) {
                let one = Requirement::new(key, *operator, [value.clone()]);
                requirements.push(one.map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(Selector::new(requirements))
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let own = |text: &Option<String>, default: &str| {
            text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Some(HostPort {
            ip: own(&port.host_ip, "0.0.0.0"),
            protocol: own(&port.protocol, "TCP"),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    });
    wanted.collect()
}

/// Whether a node of these labels and this name satisfies a node selector term. An empty term
/// satisfies nothing.
///
/// Source: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.
pub(crate) fn term_matches(
    term: &NodeSelectorTerm,
    labels: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |requirement: &k8s_openapi::api::core::v1::NodeSelectorRequirement,
                 value: Option<&str>| {
        let values = requirement.values.clone().unwrap_or_default();
        Operator::from_api(&requirement.operator)
            .and_then(|operator| Requirement::new(&requirement.key, operator, values).ok())
            .is_some_and(|requirement| requirement.matches_value(value))
    };
    expressions.iter().all(|one| holds(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| one.key == "metadata.name" && holds(one, Some(name)))
}
