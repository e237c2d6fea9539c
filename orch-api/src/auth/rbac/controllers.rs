//! The default roles of controllers, as data. Each is bound to the service account of its name in
//! `kube-system`.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy`,
//! `controller_policy.go`.

use super::policy::{EVENTS, LIST, READ, RuleData, named, on};

/// What comes before a controller's name in its role's.
pub(super) const PREFIX: &str = "system:controller:";

const APPS: &str = "apps extensions";
const CERTIFICATES: &str = "certificates.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Controllers and their rules.
pub(super) const CONTROLLERS: &[(&str, &[RuleData])] = &[
    (
        "attachdetach-controller",
        &[
            on(LIST, "core", "persistentvolumeclaims persistentvolumes"),
            on(READ, "core", "nodes"),
            on("patch update", "core", "nodes/status"),
            on(LIST, "core", "pods"),
            EVENTS,
            on("create delete get list watch", STORAGE, "volumeattachments"),
            on(READ, STORAGE, "csidrivers"),
            on(READ, STORAGE, "csinodes"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[on("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    (
        "cronjob-controller",
        &[
            on("get list update watch", "batch", "cronjobs"),
            on("create delete get list patch update watch", "batch", "jobs"),
            on("update", "batch", "cronjobs/status"),
            on("update", "batch", "cronjobs/finalizers"),
            on("delete list watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            on(READ, APPS, "daemonsets"),
            on("update", APPS, "daemonsets/status"),
            on("update", APPS, "daemonsets/finalizers"),
            on(LIST, "core", "nodes"),
            on("create delete list patch watch", "core", "pods"),
            on("create", "core", "pods/binding"),
            on("create delete get list patch update watch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            on("get list update watch", APPS, "deployments"),
            on("update", APPS, "deployments/status"),
            on("update", APPS, "deployments/finalizers"),
            on("create delete get list patch update watch", APPS, "replicasets"),
            on("get list update watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            on(READ, APPS, "deployments"),
            on(READ, APPS, "replicasets"),
            on(READ, "core", "replicationcontrollers"),
            on(READ, "policy", "poddisruptionbudgets"),
            on(READ, "apps", "statefulsets"),
            on("update", "policy", "poddisruptionbudgets/status"),
            on("patch update", "core", "pods/status"),
            on("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            on(READ, "core", "pods services"),
            on("create delete get list update watch", "core", "endpoints"),
            on("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            on(READ, "core", "nodes pods services"),
            on("update", "core", "services/finalizers"),
            on("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            on(READ, "core", "endpoints services"),
            on("update", "core", "services/finalizers"),
            on("update", "core", "endpoints/finalizers"),
            on("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            on("get list patch update watch", "core", "persistentvolumes"),
            on("patch update", "core", "persistentvolumeclaims/status"),
            on(READ, "core", "persistentvolumeclaims"),
            EVENTS,
            on("get", "core", "services"),
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            on(READ, "core", "pods"),
            on("update", "core", "pods/finalizers"),
            on("create get list watch", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            on(READ, "core", "pods"),
            on("update", "core", "pods/finalizers"),
            on("create delete get list watch", "resource.k8s.io", "resourceclaims"),
            on("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
            on("patch update", "core", "pods/status"),
            EVENTS,
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            on("delete get list watch", "core", "pods"),
            on("patch update", "core", "pods/status"),
            on(
                READ,
                "resource.k8s.io",
                "deviceclasses devicetaintrules resourceclaims resourceslices",
            ),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[on("delete get list patch update watch", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            on(READ, "autoscaling", "horizontalpodautoscalers"),
            on("update", "autoscaling", "horizontalpodautoscalers/status"),
            on("get update", "*", "*/scale"),
            on(LIST, "core", "pods"),
            on("list watch", "metrics.k8s.io", "pods"),
            on(READ, "custom.metrics.k8s.io", "*"),
            on(READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            on("get list patch update watch", "batch", "jobs"),
            on("update", "batch", "jobs/status"),
            on("update", "batch", "jobs/finalizers"),
            on("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            on("delete get list watch", "core", "namespaces"),
            on("update", "core", "namespaces/finalize namespaces/status"),
            on("delete deletecollection get list watch", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            on("delete get list patch update watch", "core", "nodes"),
            on("patch update", "core", "nodes/status"),
            on("patch update", "core", "pods/status"),
            on("delete get list watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            on("create delete get list update watch", "core", "persistentvolumes"),
            on("update", "core", "persistentvolumes/status"),
            on("get list update watch", "core", "persistentvolumeclaims"),
            on("update", "core", "persistentvolumeclaims/status"),
            on("create delete get list watch", "core", "pods"),
            on(READ, STORAGE, "storageclasses"),
            on(LIST, "core", "nodes"),
            EVENTS,
            on("watch", "core", "events"),
            on("get", "core", "services"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            on("delete list watch", "core", "pods"),
            on(READ, "core", "nodes"),
            on("patch", "core", "pods/status"),
        ],
    ),
    (
        "replicaset-controller",
        &[
            on("get list update watch", APPS, "replicasets"),
            on("update", APPS, "replicasets/status"),
            on("update", APPS, "replicasets/finalizers"),
            on("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            on("get list update watch", "core", "replicationcontrollers"),
            on("update", "core", "replicationcontrollers/status"),
            on("update", "core", "replicationcontrollers/finalizers"),
            on("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "resourcequota-controller",
        &[on(LIST, "*", "*"), on("update", "core", "resourcequotas/status"), EVENTS],
    ),
    ("route-controller", &[on(LIST, "core", "nodes"), on("patch", "core", "nodes/status"), EVENTS]),
    ("service-account-controller", &[on("create", "core", "serviceaccounts"), EVENTS]),
    (
        "service-controller",
        &[
            on(READ, "core", "services"),
            on("patch update", "core", "services/status"),
            on(LIST, "core", "nodes"),
            EVENTS,
        ],
    ),
    (
        "service-cidrs-controller",
        &[
            on("get list patch update watch", "networking.k8s.io", "servicecidrs"),
            on("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
            on("patch update", "networking.k8s.io", "servicecidrs/status"),
            on(READ, "networking.k8s.io", "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            on(LIST, "core", "pods"),
            on(READ, "apps", "statefulsets"),
            on("update", "apps", "statefulsets/status"),
            on("update", "apps", "statefulsets/finalizers"),
            on("create delete get patch update", "core", "pods"),
            on("create delete get list patch update watch", "apps", "controllerrevisions"),
            on("create delete get list update watch", "core", "persistentvolumeclaims"),
            on("update", "core", "pods/finalizers"),
            EVENTS,
        ],
    ),
    ("ttl-controller", &[on("list patch update watch", "core", "nodes"), EVENTS]),
    (
        "certificate-controller",
        &[
            on("delete get list watch", CERTIFICATES, "certificatesigningrequests"),
            on(
                "update",
                CERTIFICATES,
                "certificatesigningrequests/approval certificatesigningrequests/status",
            ),
            named(
                "approve",
                CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            named(
                "sign",
                CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            on("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            on("get list update watch", "core", "persistentvolumeclaims"),
            on(READ, "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "pv-protection-controller",
        &[on("get list update watch", "core", "persistentvolumes"), EVENTS],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            on(READ, "core", "persistentvolumeclaims persistentvolumes"),
            on("get list update watch", STORAGE, "volumeattributesclasses"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[on("delete get list watch", "batch", "jobs"), EVENTS]),
    ("root-ca-cert-publisher", &[on("create update", "core", "configmaps"), EVENTS]),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            on(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            on(
                "get patch update",
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies/status",
            ),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            named(
                "get",
                "core",
                "configmaps",
                "kube-apiserver-legacy-service-account-token-tracking",
            ),
            on("delete patch", "core", "secrets"),
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            on(READ, "core", "persistentvolumeclaims persistentvolumes pods"),
            on(READ, STORAGE, "csidrivers"),
        ],
    ),
];
