//! The objects that every cluster has: two of each kind that it must have, and those that upstream
//! suggests.
//!
//! Source: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.

use k8s_openapi::{
    Metadata,
    api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

/// Says whether a suggested object is kept as it is suggested.
pub(super) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

type Queuing = Option<(i32, i32)>;

/// Name, shares, lendable percent, and queues and hand size.
const LIMITED: [(&str, i32, i32, Queuing); 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];

/// Name, level, precedence, what tells flows apart, who, and what they do.
const SCHEMAS: [(&str, &str, i32, &str, &str, What); 11] = [
    ("exempt", "exempt", 1, "", "g:system:masters", What::Everything),
    ("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, What::Everything),
    ("system-nodes", "system", 500, "ByUser", "g:system:nodes", What::Everything),
    ("system-node-high", "node-high", 400, "ByUser", "g:system:nodes", What::NodeHigh),
    ("probes", "exempt", 2, "", EVERYBODY, What::Probes),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        "u:system:kube-controller-manager u:system:kube-scheduler s:kube-system",
        What::Leases,
    ),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        "u:system:kube-controller-manager",
        What::Everything,
    ),
    (
        "kube-scheduler",
        "workload-high",
        800,
        "ByNamespace",
        "u:system:kube-scheduler",
        What::Everything,
    ),
    (
        "kube-system-service-accounts",
        "workload-high",
        900,
        "ByNamespace",
        "s:kube-system",
        What::Everything,
    ),
    (
        "service-accounts",
        "workload-low",
        9000,
        "ByUser",
        "g:system:serviceaccounts",
        What::Everything,
    ),
    ("global-default", "global-default", 9900, "ByUser", EVERYBODY, What::Everything),
];

const EVERYBODY: &str = "g:system:unauthenticated g:system:authenticated";

#[derive(Clone, Copy)]
enum What {
    Everything,
    Probes,
    Leases,
    NodeHigh,
}

impl What {
    fn rules(self) -> (Value, Value) {
        let resources = |verbs: Value, group: &str, resources: Value, cluster: bool| {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources,
                "namespaces": ["*"]});
            if cluster {
                rule["clusterScope"] = true.into();
            }
            rule
        };
        let leases = |verbs| resources(verbs, "coordination.k8s.io", json!(["leases"]), false);
        match self {
            Self::Everything => (
                json!([resources(json!(["*"]), "*", json!(["*"]), true)]),
                json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
            ),
            Self::Probes => (
                Value::Null,
                json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]),
            ),
            Self::Leases => (json!([leases(json!(["get", "create", "update"]))]), Value::Null),
            Self::NodeHigh => {
                let nodes = resources(json!(["*"]), "", json!(["nodes", "nodes/status"]), true);
                (json!([nodes, leases(json!(["*"]))]), Value::Null)
            }
        }
    }
}

fn subject(text: &str) -> Value {
    match text.split_at(2) {
        ("g:", name) => json!({"kind": "Group", "group": {"name": name}}),
        ("u:", name) => json!({"kind": "User", "user": {"name": name}}),
        (_, namespace) => json!({"kind": "ServiceAccount",
            "serviceAccount": {"namespace": namespace, "name": "*"}}),
    }
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTO_UPDATE: "true"}})
}

/// Whether a cluster cannot be without the object.
pub(super) fn is_mandatory<K: Metadata<Ty = ObjectMeta>>(object: &K) -> bool {
    matches!(object.metadata().name.as_deref(), Some("exempt" | "catch-all"))
}

/// The priority levels, the mandatory ones first.
pub(super) fn levels() -> impl Iterator<Item = PriorityLevelConfiguration> {
    let exempt = json!({"metadata": metadata("exempt"), "spec": {"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}});
    let limited = LIMITED.into_iter().map(|(name, shares, lendable, queuing)| {
        let response = match queuing {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({"type": "Queue", "queuing":
                {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
        };
        json!({"metadata": metadata(name), "spec": {"type": "Limited", "limited":
            {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
                "limitResponse": response}}})
    });
    std::iter::once(exempt).chain(limited).filter_map(|value| serde_json::from_value(value).ok())
}

/// The flow schemas, the mandatory ones first.
pub(super) fn schemas() -> impl Iterator<Item = FlowSchema> {
    SCHEMAS.into_iter().filter_map(|(name, level, precedence, method, subjects, what)| {
        let (resource_rules, paths) = what.rules();
        let subjects: Vec<Value> = subjects.split(' ').map(subject).collect();
        let mut rules = json!({"subjects": subjects});
        for (field, value) in [("resourceRules", resource_rules), ("nonResourceRules", paths)] {
            if !value.is_null() {
                rules[field] = value;
            }
        }
        let mut spec = json!({"priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence, "rules": [rules]});
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        serde_json::from_value(json!({"metadata": metadata(name), "spec": spec})).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_reads_as_its_kind_and_leads_somewhere() {
        assert_eq!((levels().count(), schemas().count()), (1 + LIMITED.len(), SCHEMAS.len()));
        let names: Vec<_> = levels().filter_map(|level| level.metadata.name).collect();
        for schema in schemas() {
            let level = schema.spec.unwrap().priority_level_configuration.name;
            assert!(names.contains(&level), "{level}");
        }
        assert_eq!(schemas().filter(is_mandatory).count(), 2);
    }
}
