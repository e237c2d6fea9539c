//! The default cluster roles and bindings, as data.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, `policy.go` and
//! `namespace_policy.go`.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// One rule; every field is a list separated by spaces. `core` is the group without a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleData {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

pub(super) const fn on(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
) -> RuleData {
    RuleData { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> RuleData {
    RuleData { verbs, groups, resources, names, urls: "" }
}

const fn urls(verbs: &'static str, urls: &'static str) -> RuleData {
    RuleData { verbs, groups: "", resources: "", names: "", urls }
}

impl RuleData {
    pub(super) fn rule(self) -> PolicyRule {
        let list = |text: &str| -> Option<Vec<String>> {
            let entry = |word: &str| if word == "core" { String::new() } else { word.to_owned() };
            (!text.is_empty()).then(|| text.split(' ').map(entry).collect())
        };
        PolicyRule {
            verbs: list(self.verbs).unwrap_or_default(),
            api_groups: list(self.groups),
            resources: list(self.resources),
            resource_names: list(self.names),
            non_resource_urls: list(self.urls),
        }
    }
}

pub(super) const READ: &str = "get list watch";
pub(super) const LIST: &str = "list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
pub(super) const EVENTS: RuleData = on("create patch update", "core events.k8s.io", "events");

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const DRA: &str = "resource.k8s.io";

/// A role and the aggregated role that it is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoleData {
    pub(super) name: &'static str,
    /// `admin`, `edit`, `view`, or empty.
    pub(super) part_of: &'static str,
    /// The role's rules are the union of its parts.
    pub(super) aggregates: bool,
    pub(super) rules: &'static [RuleData],
}

pub(super) const fn role(name: &'static str, rules: &'static [RuleData]) -> RoleData {
    RoleData { name, part_of: "", aggregates: false, rules }
}

const fn part(name: &'static str, part_of: &'static str, rules: &'static [RuleData]) -> RoleData {
    RoleData { name, part_of, aggregates: false, rules }
}

const fn aggregate(name: &'static str, part_of: &'static str) -> RoleData {
    RoleData { name, part_of, aggregates: true, rules: &[] }
}

pub(super) const CLUSTER_ROLES: &[RoleData] = &[
    role("cluster-admin", &[on("*", "*", "*"), urls("*", "*")]),
    role(
        "system:monitoring",
        &[urls(
            "get",
            "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
        )],
    ),
    role(
        "system:discovery",
        &[urls(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    role("system:public-info-viewer", &[urls("get", "/healthz /livez /readyz /version /version/")]),
    role(
        "system:basic-user",
        &[
            on("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
            on("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    ),
    aggregate("admin", ""),
    aggregate("edit", "admin"),
    aggregate("view", "edit"),
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            on("create", AUTHORIZATION, "localsubjectaccessreviews"),
            on(READ_WRITE, RBAC, "roles rolebindings"),
        ],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        &[
            on(
                READ,
                "core",
                "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            ),
            on("impersonate", "core", "serviceaccounts"),
            on(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            on("create", "core", "pods/eviction"),
            on(
                WRITE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            ),
            on("create", "core", "serviceaccounts/token"),
            on(
                WRITE,
                APPS,
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            ),
            on(WRITE, "autoscaling", "horizontalpodautoscalers"),
            on(WRITE, "batch", "cronjobs jobs"),
            on(
                WRITE,
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale",
            ),
            on(WRITE, "policy", "poddisruptionbudgets"),
            on(WRITE, NETWORKING, "ingresses networkpolicies"),
            on(READ_WRITE, COORDINATION, "leases"),
            on(WRITE, DRA, "resourceclaims resourceclaimtemplates"),
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        &[
            on(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            on(
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            on(READ, "core", "namespaces"),
            on(READ, DISCOVERY, "endpointslices"),
            on(
                READ,
                APPS,
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            on(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            on(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            on(
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
            ),
            on(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            on(READ, NETWORKING, "ingresses ingresses/status networkpolicies"),
            on(READ, DRA, "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ],
    ),
    role(
        "system:heapster",
        &[on(READ, "core", "events namespaces nodes pods"), on(READ, "extensions", "deployments")],
    ),
    role("system:node", NODE_RULES),
    role(
        "system:node-problem-detector",
        &[on("get", "core", "nodes"), on("patch", "core", "nodes/status"), EVENTS],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            on(READ, "core", "nodes"),
            on("proxy", "core", "nodes"),
            on("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[on("create get list watch", CERTIFICATES, "certificatesigningrequests")],
    ),
    role(
        "system:auth-delegator",
        &[
            on("create", AUTHENTICATION, "tokenreviews"),
            on("create", AUTHORIZATION, "subjectaccessreviews"),
        ],
    ),
    role("system:kube-aggregator", &[on(READ, "core", "endpoints services")]),
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            on("create", COORDINATION, "leases"),
            named("get update", COORDINATION, "leases", "kube-controller-manager"),
            on("create", "core", "secrets serviceaccounts"),
            on("delete", "core", "secrets"),
            on("get", "core", "configmaps namespaces secrets serviceaccounts"),
            on("update", "core", "secrets serviceaccounts"),
            on("create", AUTHENTICATION, "tokenreviews"),
            on("create", AUTHORIZATION, "subjectaccessreviews"),
            on(LIST, "*", "*"),
            on("create", "core", "serviceaccounts/token"),
        ],
    ),
    role("system:kube-dns", &[on(LIST, "core", "endpoints services")]),
    role(
        "system:persistent-volume-provisioner",
        &[
            on("create delete get list watch", "core", "persistentvolumes"),
            on("get list update watch", "core", "persistentvolumeclaims"),
            on(READ, STORAGE, "storageclasses"),
            on("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/legacy-unknown")],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role(
        "system:volume-scheduler",
        &[
            on("get list patch update watch", "core", "persistentvolumes"),
            on(READ, STORAGE, "storageclasses"),
            on("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            on("create", COORDINATION, "leases"),
            named("get list update watch", COORDINATION, "leases", "kube-scheduler"),
            on("create", COORDINATION, "leasecandidates"),
            on(
                "delete deletecollection get list patch update watch",
                COORDINATION,
                "leasecandidates",
            ),
            on(READ, "core", "nodes"),
            on("delete get list watch", "core", "pods"),
            on("create", "core", "bindings pods/binding"),
            on("patch update", "core", "pods/status"),
            on(READ, "core", "replicationcontrollers services"),
            on(READ, "apps extensions", "replicasets"),
            on(READ, APPS, "statefulsets"),
            on(READ, "policy", "poddisruptionbudgets"),
            on(READ, "core", "persistentvolumeclaims persistentvolumes"),
            on("create", AUTHENTICATION, "tokenreviews"),
            on("create", AUTHORIZATION, "subjectaccessreviews"),
            on(READ, STORAGE, "csidrivers csinodes csistoragecapacities volumeattachments"),
            on(READ, "core", "namespaces"),
            on(READ, DRA, "deviceclasses devicetaintrules resourceclaims resourceslices"),
            on("get list patch update watch", DRA, "resourceclaims resourceclaims/status"),
            on("create delete", DRA, "resourceclaims"),
        ],
    ),
    role(
        "system:node-proxier",
        &[
            on(LIST, "core", "endpoints services"),
            on(READ, "core", "nodes"),
            on(LIST, DISCOVERY, "endpointslices"),
            on(LIST, NETWORKING, "servicecidrs"),
            EVENTS,
        ],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role("system:cluster-trust-bundle-discovery", &[on(READ, CERTIFICATES, "clustertrustbundles")]),
];

/// What a node may do at all; the node authorizer narrows it down to what concerns the node.
pub(in crate::auth) const NODE_RULES: &[RuleData] = &[
    on("create", AUTHENTICATION, "tokenreviews"),
    on("create", AUTHORIZATION, "localsubjectaccessreviews subjectaccessreviews"),
    on(READ, "core", "services"),
    on("create get list watch", "core", "nodes"),
    on("patch update", "core", "nodes/status"),
    on("patch update", "core", "nodes"),
    EVENTS,
    on(READ, "core", "pods"),
    on("create delete", "core", "pods"),
    on("patch update", "core", "pods/status"),
    on("create", "core", "pods/eviction"),
    on(READ, "core", "configmaps secrets"),
    on("get", "core", "persistentvolumeclaims persistentvolumes"),
    on("get", "core", "endpoints"),
    on("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    on("create delete get patch update", COORDINATION, "leases"),
    on("get", STORAGE, "volumeattachments"),
    on("create", "core", "serviceaccounts/token"),
    on("get patch update", "core", "persistentvolumeclaims/status"),
    on(READ, STORAGE, "csidrivers"),
    on("create delete get patch update", STORAGE, "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", DRA, "resourceclaims"),
    on("create delete deletecollection get list patch update watch", DRA, "resourceslices"),
    on(READ, CERTIFICATES, "clustertrustbundles"),
    on("get", "core", "serviceaccounts"),
];

/// Cluster roles and the subjects that they are bound to: `group:`, `user:` or `NAMESPACE/ACCOUNT`.
pub(super) const CLUSTER_BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["group:system:masters"]),
    ("system:monitoring", &["group:system:monitoring"]),
    ("system:discovery", &["group:system:authenticated"]),
    ("system:basic-user", &["group:system:authenticated"]),
    ("system:public-info-viewer", &["group:system:authenticated", "group:system:unauthenticated"]),
    ("system:node-proxier", &["user:system:kube-proxy"]),
    ("system:kube-controller-manager", &["user:system:kube-controller-manager"]),
    ("system:kube-dns", &["kube-system/kube-dns"]),
    ("system:kube-scheduler", &["user:system:kube-scheduler"]),
    ("system:volume-scheduler", &["user:system:kube-scheduler"]),
    // The node authorizer gives nodes their rights.
    ("system:node", &[]),
    ("system:service-account-issuer-discovery", &["group:system:serviceaccounts"]),
    ("system:cluster-trust-bundle-discovery", &["group:system:serviceaccounts"]),
];

/// Roles in namespaces.
pub(super) const ROLES: &[(&str, &str, &[RuleData])] = &[
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        &[named(READ, "core", "configmaps", "extension-apiserver-authentication")],
    ),
    ("kube-system", "system:controller:bootstrap-signer", &[on(READ, "core", "secrets")]),
    (
        "kube-system",
        "system:controller:cloud-provider",
        &[on("create get list watch", "core", "configmaps")],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        &[on("delete get list watch", "core", "secrets"), EVENTS],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[
            on("watch", "core", "configmaps"),
            named("get update", "core", "configmaps", "kube-controller-manager"),
            on("create get list update watch", COORDINATION, "leases"),
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &[
            on("watch", "core", "configmaps"),
            named("get update", "core", "configmaps", "kube-scheduler"),
        ],
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        &[
            on(READ, "core", "configmaps"),
            named("update", "core", "configmaps", "cluster-info"),
            EVENTS,
        ],
    ),
];

/// Bindings in namespaces: namespace, name, role, subjects.
pub(super) const BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &["user:system:kube-controller-manager", "user:system:kube-scheduler"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            "user:system:kube-controller-manager",
            "kube-system/kube-controller-manager",
            "kube-system/leader-election-controller",
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &["user:system:kube-scheduler", "kube-system/kube-scheduler"],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["kube-system/bootstrap-signer"],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &["kube-system/cloud-provider"],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &["kube-system/token-cleaner"],
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["kube-system/bootstrap-signer"],
    ),
];
