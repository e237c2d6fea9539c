//! The behaviours that upstream's conformance tests of the API check, by upstream's file: their
//! titles, without what the suites are called and without tags.
//!
//! Source: `test/conformance/testdata/conformance.yaml`.

/// The words of a title, as a function is named.
pub(crate) fn name_of(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    name.trim_end_matches('_').to_owned()
}

/// Upstream's files, and the titles of the tests in them.
pub(crate) const BEHAVIOURS: &[(&str, &[&str])] = &[
    (
        "test/e2e/apimachinery/aggregated_discovery.go",
        &[
            "should support aggregated discovery interface",
            "should support aggregated discovery interface for CRDs",
            "should support raw aggregated discovery endpoint Accept headers",
            "should support raw aggregated discovery request for CRDs",
        ],
    ),
    (
        "test/e2e/apimachinery/chunking.go",
        &[
            "should return chunks of results for list calls",
            "should support continue listing from the last key",
        ],
    ),
    (
        "test/e2e/apimachinery/crd_publish_openapi.go",
        &[
            "removes definition from spec when one version gets changed to not be served",
            "updates the published spec when one version gets renamed",
            "works for CRD preserving unknown fields at the schema root",
            "works for CRD preserving unknown fields in an embedded object",
            "works for CRD with validation schema",
            "works for CRD without validation schema",
            "works for multiple CRDs of different groups",
            "works for multiple CRDs of same group and version but different kinds",
            "works for multiple CRDs of same group but different versions",
        ],
    ),
    (
        "test/e2e/apimachinery/crd_selectable_fields.go",
        &["MUST list and watch custom resources matching the field selector"],
    ),
    ("test/e2e/apimachinery/crd_watch.go", &["watch on custom resource definition objects"]),
    (
        "test/e2e/apimachinery/custom_resource_definition.go",
        &[
            "creating/deleting custom resource definition objects works",
            "getting/updating/patching custom resource definition status sub-resource",
            "listing custom resource definition objects works",
            "custom resource defaulting for requests and from storage works",
            "should include custom resource definition resources in discovery documents",
        ],
    ),
    (
        "test/e2e/apimachinery/discovery.go",
        &[
            "should locate the groupVersion and a resource within each APIGroup",
            "should validate PreferredVersion for each APIGroup",
        ],
    ),
    (
        "test/e2e/apimachinery/field_validation.go",
        &[
            "should create/apply a CR with unknown fields",
            "should create/apply a valid CR for CRD with validation schema",
            "should create/apply an invalid CR with extra properties",
            "should detect duplicates in a CR when preserving unknown fields",
            "should detect unknown and duplicate fields of a typed object",
            "should detect unknown metadata fields in both the root and embedded object",
            "should detect unknown metadata fields of a typed object",
        ],
    ),
    (
        "test/e2e/apimachinery/flowcontrol.go",
        &[
            "should support FlowSchema API operations",
            "should support PriorityLevelConfiguration API operations",
        ],
    ),
    (
        "test/e2e/apimachinery/namespace.go",
        &[
            "should apply a finalizer to a Namespace",
            "should apply an update to a Namespace",
            "should apply changes to a namespace status",
            "should patch a Namespace",
        ],
    ),
    (
        "test/e2e/apimachinery/resource_quota.go",
        &[
            "should be able to update and delete ResourceQuota",
            "should manage the lifecycle of a ResourceQuota",
        ],
    ),
    ("test/e2e/apimachinery/server_version.go", &["should find the server version"]),
    (
        "test/e2e/apimachinery/table_conversion.go",
        &["should return a 406 for a backend which does not implement metadata"],
    ),
    (
        "test/e2e/apimachinery/watch.go",
        &[
            "should be able to restart watching from the last resource version observed",
            "should be able to start watching from a specific resource version",
            "should observe add, update, and delete watch notifications on configmaps",
            "should observe an object deletion if it stops meeting the requirements",
            "should receive events on concurrent watches in same order",
        ],
    ),
    ("test/e2e/apps/cronjob.go", &["should support CronJob API operations"]),
    ("test/e2e/auth/certificates.go", &["should support CSR API operations"]),
    (
        "test/e2e/auth/service_accounts.go",
        &[
            "should allow opting out of API token automount",
            "should create a serviceAccountToken and ensure a successful TokenReview",
            "should run through the lifecycle of a ServiceAccount",
            "should update a ServiceAccount",
        ],
    ),
    ("test/e2e/auth/subjectreviews.go", &["should support SubjectReview API operations"]),
    (
        "test/e2e/common/node/configmap.go",
        &[
            "should fail to create ConfigMap with empty key",
            "should run through a ConfigMap lifecycle",
            "should update ConfigMap successfully",
        ],
    ),
    ("test/e2e/common/node/lease.go", &["lease API should be available"]),
    (
        "test/e2e/common/node/podtemplates.go",
        &[
            "should delete a collection of pod templates",
            "should replace a pod template",
            "should run the lifecycle of PodTemplates",
        ],
    ),
    (
        "test/e2e/common/node/runtimeclass.go",
        &[
            "should reject a Pod requesting a deleted RuntimeClass",
            "should reject a Pod requesting a non-existent RuntimeClass",
            "should support RuntimeClasses API operations",
        ],
    ),
    (
        "test/e2e/common/node/secrets.go",
        &["should fail to create secret due to empty secret key", "should patch a secret"],
    ),
    ("test/e2e/common/node/sysctl.go", &["should reject invalid sysctls"]),
    (
        "test/e2e/common/storage/configmap_volume.go",
        &["should be immutable if immutable field is set"],
    ),
    (
        "test/e2e/common/storage/secrets_volume.go",
        &["should be immutable if immutable field is set"],
    ),
    (
        "test/e2e/dra/dra.go",
        &[
            "CRUD Tests resource.k8s.io/v1 DeviceClass",
            "CRUD Tests resource.k8s.io/v1 ResourceClaim",
            "CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate",
            "CRUD Tests resource.k8s.io/v1 ResourceSlice",
        ],
    ),
    (
        "test/e2e/instrumentation/core_events.go",
        &["should delete a collection of events", "should manage the lifecycle of an event"],
    ),
    (
        "test/e2e/instrumentation/events.go",
        &[
            "should delete a collection of events",
            "should ensure that an event can be fetched, patched, deleted, and listed",
        ],
    ),
    (
        "test/e2e/kubectl/kubectl.go",
        &[
            "Kubectl api-versions should check if v1 is in available api versions",
            "should check if Kubernetes control plane services is included",
            "Kubectl diff should check if kubectl diff finds a difference for Deployments",
            "Kubectl run pod should create a pod from an image when restart is Never",
            "Kubectl server-side dry-run should check if kubectl can dry-run update Pods",
            "Kubectl version should check is all data is printed",
            "Proxy server should support --unix-socket=/path",
            "Proxy server should support proxy with --port 0",
        ],
    ),
    (
        "test/e2e/network/apiserver.go",
        &[
            "should have Endpoints and EndpointSlices pointing to API Server",
            "should provide secure master service",
        ],
    ),
    ("test/e2e/network/endpoints.go", &["should test the lifecycle of an Endpoint"]),
    (
        "test/e2e/network/endpointslice.go",
        &["should support creating EndpointSlice API operations"],
    ),
    ("test/e2e/network/ingress.go", &["should support creating Ingress API operations"]),
    ("test/e2e/network/ingressclass.go", &["should support creating IngressClass API operations"]),
    (
        "test/e2e/network/service.go",
        &[
            "should complete a service status lifecycle",
            "should delete a collection of services",
            "should find a service from listing all namespaces",
        ],
    ),
    (
        "test/e2e/network/service_cidrs.go",
        &["should support IPAddress API operations", "should support ServiceCIDR API operations"],
    ),
    ("test/e2e/node/node_lifecycle.go", &["should run through the lifecycle of a node"]),
    (
        "test/e2e/node/pods.go",
        &["should be set on Pods with matching resource requests and limits"],
    ),
    (
        "test/e2e/scheduling/limit_range.go",
        &[
            "should create a LimitRange with defaults",
            "should list, patch and delete a LimitRange by collection",
        ],
    ),
    (
        "test/e2e/scheduling/preemption.go",
        &["verify PriorityClass endpoints can be operated with different HTTP methods"],
    ),
    (
        "test/e2e/storage/csi_inline.go",
        &[
            "should run through the lifecycle of a CSIDriver",
            "should support CSIVolumeSource in Pod API",
        ],
    ),
    ("test/e2e/storage/csi_node.go", &["should run through the lifecycle of a csinode"]),
    (
        "test/e2e/storage/csistoragecapacity.go",
        &["should support CSIStorageCapacities API operations"],
    ),
    ("test/e2e/storage/persistent_volumes.go", &["should apply changes to a pv/pvc status"]),
    ("test/e2e/storage/storageclass.go", &["should run through the lifecycle of a StorageClass"]),
    (
        "test/e2e/storage/volume_attachment.go",
        &[
            "should apply changes to a volumeattachment status",
            "should run through the lifecycle of a VolumeAttachment",
        ],
    ),
];
