//! What is filled in.

use orch_api::kinds::strategy;
use serde_json::Value;

use super::{created, yaml};

/// Checks values by their pointers in an object that was created from YAML. Filling in twice must
/// give the same.
fn check(group: &str, plural: &str, text: &str, wanted: &[(&str, &str)]) {
    let of = strategy(group, plural);
    let object = created(of, yaml(text));
    for (pointer, value) in wanted {
        let found = object.pointer(pointer).unwrap_or(&Value::Null).to_string();
        assert_eq!(found, *value, "{pointer} of {object}");
    }
    let mut again = object.clone();
    of.set_defaults(&mut again);
    assert_eq!(again, object, "not idempotent");
}

#[test]
fn pods() {
    let text = "
        spec:
          hostNetwork: true
          containers:
          - name: a
            image: nginx
            ports: [{containerPort: 80}]
            env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
            readinessProbe: {httpGet: {port: 80}}
            resources: {limits: {cpu: '0.5', memory: 1024Mi}}
          - {name: b, image: 'r.io:5000/x:v1'}
          volumes: [{name: e}, {name: s, secret: {secretName: s}}, {name: h, hostPath: {path: /x}}]";
    check(
        "",
        "pods",
        text,
        &[
            ("/spec/restartPolicy", "\"Always\""),
            ("/spec/dnsPolicy", "\"ClusterFirst\""),
            ("/spec/terminationGracePeriodSeconds", "30"),
            ("/spec/schedulerName", "\"default-scheduler\""),
            ("/spec/securityContext", "{}"),
            ("/spec/enableServiceLinks", "true"),
            ("/spec/containers/0/imagePullPolicy", "\"Always\""),
            ("/spec/containers/1/imagePullPolicy", "\"IfNotPresent\""),
            ("/spec/containers/1/resources", "{}"),
            ("/spec/containers/0/terminationMessagePath", "\"/dev/termination-log\""),
            ("/spec/containers/0/terminationMessagePolicy", "\"File\""),
            ("/spec/containers/0/ports/0/protocol", "\"TCP\""),
            ("/spec/containers/0/ports/0/hostPort", "80"),
            ("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion", "\"v1\""),
            ("/spec/containers/0/readinessProbe/periodSeconds", "10"),
            ("/spec/containers/0/readinessProbe/failureThreshold", "3"),
            ("/spec/containers/0/readinessProbe/httpGet/scheme", "\"HTTP\""),
            ("/spec/containers/0/readinessProbe/httpGet/path", "\"/\""),
            ("/spec/containers/0/resources/requests/cpu", "\"500m\""),
            ("/spec/containers/0/resources/requests/memory", "\"1Gi\""),
            ("/spec/volumes/0/emptyDir", "{}"),
            ("/spec/volumes/1/secret/defaultMode", "420"),
            ("/spec/volumes/2/hostPath/type", "\"\""),
            ("/status/phase", "\"Pending\""),
            ("/status/qosClass", "\"Burstable\""),
        ],
    );
}

#[test]
fn services() {
    let text = "spec: {ports: [{port: 80}, {port: 1, targetPort: web}], sessionAffinity: ClientIP}";
    check(
        "",
        "services",
        text,
        &[
            ("/spec/type", "\"ClusterIP\""),
            ("/spec/ports/0/targetPort", "80"),
            ("/spec/ports/1/targetPort", "\"web\""),
            ("/spec/ports/0/protocol", "\"TCP\""),
            ("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", "10800"),
            ("/spec/internalTrafficPolicy", "\"Cluster\""),
            ("/spec/externalTrafficPolicy", "null"),
        ],
    );
    check(
        "",
        "services",
        "spec: {type: LoadBalancer, ports: [{port: 80}]}",
        &[
            ("/spec/externalTrafficPolicy", "\"Cluster\""),
            ("/spec/allocateLoadBalancerNodePorts", "true"),
            ("/spec/sessionAffinity", "\"None\""),
        ],
    );
}

#[test]
fn workloads() {
    let template =
        "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    check(
        "apps",
        "deployments",
        &format!("spec: {{selector: {{matchLabels: {{a: b}}}}, {template}}}"),
        &[
            ("/spec/replicas", "1"),
            ("/spec/strategy/type", "\"RollingUpdate\""),
            ("/spec/strategy/rollingUpdate/maxSurge", "\"25%\""),
            ("/spec/strategy/rollingUpdate/maxUnavailable", "\"25%\""),
            ("/spec/revisionHistoryLimit", "10"),
            ("/spec/progressDeadlineSeconds", "600"),
            ("/spec/template/spec/restartPolicy", "\"Always\""),
            ("/spec/template/spec/enableServiceLinks", "null"),
        ],
    );
    check(
        "",
        "replicationcontrollers",
        &format!("spec: {{{template}}}"),
        &[("/spec/selector/a", "\"b\""), ("/metadata/labels/a", "\"b\""), ("/spec/replicas", "1")],
    );
    check(
        "apps",
        "daemonsets",
        &format!("spec: {{{template}}}"),
        &[
            ("/spec/updateStrategy/rollingUpdate/maxUnavailable", "1"),
            ("/spec/updateStrategy/rollingUpdate/maxSurge", "0"),
        ],
    );
    check(
        "apps",
        "statefulsets",
        &format!("spec: {{{template}, volumeClaimTemplates: [{{metadata: {{name: d}}}}]}}"),
        &[
            ("/spec/podManagementPolicy", "\"OrderedReady\""),
            ("/spec/updateStrategy/rollingUpdate/partition", "0"),
            ("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "\"Retain\""),
            ("/spec/volumeClaimTemplates/0/spec/volumeMode", "\"Filesystem\""),
            ("/spec/volumeClaimTemplates/0/kind", "\"PersistentVolumeClaim\""),
        ],
    );
    check(
        "batch",
        "jobs",
        "{metadata: {name: pi}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}",
        &[
            ("/spec/completions", "1"),
            ("/spec/parallelism", "1"),
            ("/spec/backoffLimit", "6"),
            ("/spec/completionMode", "\"NonIndexed\""),
            ("/spec/suspend", "false"),
            ("/spec/podReplacementPolicy", "\"TerminatingOrFailed\""),
            ("/spec/selector/matchLabels/batch.kubernetes.io~1controller-uid", "\"uid-1\""),
            ("/spec/template/metadata/labels/job-name", "\"pi\""),
            ("/spec/template/metadata/labels/batch.kubernetes.io~1job-name", "\"pi\""),
            ("/spec/template/metadata/labels/controller-uid", "\"uid-1\""),
        ],
    );
}

#[test]
fn small_kinds() {
    check(
        "",
        "namespaces",
        "metadata: {name: prod}",
        &[
            ("/status/phase", "\"Active\""),
            ("/spec/finalizers", "[\"kubernetes\"]"),
            ("/metadata/labels/kubernetes.io~1metadata.name", "\"prod\""),
        ],
    );
    check(
        "",
        "secrets",
        "{stringData: {a: x}, data: {b: eQ==}}",
        &[
            ("/type", "\"Opaque\""),
            ("/data/a", "\"eA==\""),
            ("/data/b", "\"eQ==\""),
            ("/stringData", "null"),
        ],
    );
    check(
        "",
        "limitranges",
        "spec: {limits: [{type: Container, max: {cpu: '2'}, min: {cpu: 100m}}]}",
        &[("/spec/limits/0/default/cpu", "\"2\""), ("/spec/limits/0/defaultRequest/cpu", "\"2\"")],
    );
    check(
        "storage.k8s.io",
        "storageclasses",
        "provisioner: x.io/y",
        &[("/reclaimPolicy", "\"Delete\""), ("/volumeBindingMode", "\"Immediate\"")],
    );
    check(
        "networking.k8s.io",
        "networkpolicies",
        "spec: {egress: [{ports: [{port: 53}]}]}",
        &[
            ("/spec/policyTypes", "[\"Ingress\",\"Egress\"]"),
            ("/spec/egress/0/ports/0/protocol", "\"TCP\""),
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        "{roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}]}",
        &[
            ("/roleRef/apiGroup", "\"rbac.authorization.k8s.io\""),
            ("/subjects/0/apiGroup", "\"rbac.authorization.k8s.io\""),
        ],
    );
    check(
        "",
        "persistentvolumeclaims",
        "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1024Mi}}}",
        &[
            ("/spec/volumeMode", "\"Filesystem\""),
            ("/spec/resources/requests/storage", "\"1Gi\""),
            ("/status/phase", "\"Pending\""),
        ],
    );
    check(
        "autoscaling",
        "horizontalpodautoscalers",
        "spec: {maxReplicas: 3}",
        &[("/spec/minReplicas", "1"), ("/spec/metrics/0/resource/target/averageUtilization", "80")],
    );
}
