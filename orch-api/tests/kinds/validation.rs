//! What is refused, in upstream's words.

use super::complaints;

fn check(group: &str, plural: &str, text: &str, wanted: &[&str]) {
    assert_eq!(complaints(group, plural, text), wanted.join("\n"), "{text}");
}

fn check_pod(spec: &str, wanted: &[&str]) {
    check("", "pods", &format!("spec: {{{spec}}}"), wanted);
}

fn check_container(container: &str, wanted: &[&str]) {
    check_pod(&format!("containers: [{{name: a, image: i, {container}}}]"), wanted);
}

#[test]
fn pods() {
    check_pod("containers: [{name: a, image: i}]", &[]);
    check_pod("", &["spec.containers: Required value"]);
    check_pod(
        "containers: [{}]",
        &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
    );
    check_pod(
        "containers: [{name: a, image: i}, {name: a, image: i}]",
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    check_pod(
        "restartPolicy: Sometimes, containers: [{name: a, image: i}]",
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check_pod(
        "containers: [{name: A_b, image: i}]",
        &[
            "spec.containers[0].name: Invalid value: \"A_b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check_pod(
        "hostNetwork: true, containers: [{name: a, image: i, ports: [{containerPort: 1, hostPort: 2}]}]",
        &[
            "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true",
        ],
    );
    check_pod(
        "tolerations: [{operator: Equal, effect: Never}], containers: [{name: a, image: i}]",
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check_pod(
        "activeDeadlineSeconds: 0, containers: [{name: a, image: i}]",
        &[
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ],
    );
    check_pod(
        "topologySpreadConstraints: [{maxSkew: 0, topologyKey: '', whenUnsatisfiable: X}], containers: [{name: a, image: i}]",
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
}

#[test]
fn containers() {
    check_container(
        "resources: {limits: {cpu: 100m}, requests: {cpu: 200m}}",
        &[
            "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
        ],
    );
    check_container(
        "resources: {requests: {cpu: -1}}",
        &[
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check_container(
        "resources: {requests: {example.com/gpu: 1}}",
        &[
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    check_container(
        "ports: [{containerPort: 70000, name: UPPER}]",
        &[
            "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check_container(
        "ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]",
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\""],
    );
    check_container(
        "imagePullPolicy: Maybe",
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check_container(
        "volumeMounts: [{name: v, mountPath: /a}, {name: v}]",
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[0].volumeMounts[1].name: Not found: \"v\"",
            "spec.containers[0].volumeMounts[1].mountPath: Required value",
        ],
    );
    check_container(
        "env: [{name: 'A=B'}, {value: x}, {name: C, value: x, valueFrom: {fieldRef: {fieldPath: spec.x}}}]",
        &[
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[1].name: Required value",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ],
    );
    check_container(
        "livenessProbe: {successThreshold: 2}, readinessProbe: {tcpSocket: {port: 0}}",
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check_container(
        "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
        &[
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
}

#[test]
fn volumes() {
    let check = |volumes: &str, wanted: &[&str]| {
        check_pod(&format!("containers: [{{name: a, image: i}}], volumes: [{volumes}]"), wanted);
    };
    check("{name: a}, {name: a}", &["spec.volumes[1].name: Duplicate value: \"a\""]);
    check(
        "{name: a, emptyDir: {}, hostPath: {path: /}}",
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check("{name: a, secret: {}}", &["spec.volumes[0].secret.secretName: Required value"]);
    check(
        "{name: a, hostPath: {path: ''}}, {name: b, hostPath: {path: /x, type: Odd}}",
        &[
            "spec.volumes[0].hostPath.path: Required value",
            "spec.volumes[1].hostPath.type: Unsupported value: \"Odd\": supported values: \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check(
        "{name: a, configMap: {name: c, defaultMode: 512, items: [{key: k, path: ../x}]}}",
        &[
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ],
    );
}

#[test]
fn workloads() {
    let template =
        "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    let deployment = |spec: &str, wanted: &[&str]| {
        check("apps", "deployments", &format!("spec: {{{spec}}}"), wanted);
    };
    deployment(&format!("selector: {{matchLabels: {{a: b}}}}, {template}"), &[]);
    deployment(
        &format!("selector: {{matchLabels: {{a: c}}}}, {template}"),
        &[
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    deployment(template, &["spec.selector: Required value"]);
    deployment(
        &format!("selector: {{}}, replicas: -1, {template}"),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ],
    );
    deployment(
        &format!(
            "selector: {{matchLabels: {{a: b}}}}, strategy: {{rollingUpdate: {{maxSurge: 0, maxUnavailable: 0%}}}}, {template}"
        ),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ],
    );
    deployment(
        "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}",
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check(
        "batch",
        "jobs",
        &format!("spec: {{{template}}}"),
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "batch",
        "jobs",
        "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}",
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"uid-1\"}}: `selector` not auto-generated",
        ],
    );
    check(
        "batch",
        "jobs",
        "spec: {manualSelector: true, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}",
        &["spec.selector: Required value"],
    );
}

#[test]
fn services() {
    let check = |spec: &str, wanted: &[&str]| {
        check("", "services", &format!("spec: {{{spec}}}"), wanted);
    };
    check("", &["spec.ports: Required value"]);
    check("clusterIP: None", &[]);
    check(
        "ports: [{port: 80}, {port: 81}]",
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        "ports: [{port: 80, nodePort: 30000}]",
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "type: Odd, ports: [{port: 0}]",
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check("type: ExternalName", &["spec.externalName: Required value"]);
    check(
        "type: NodePort, clusterIP: None, ports: [{port: 80}]",
        &[
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ],
    );
}

#[test]
fn storage() {
    check(
        "",
        "persistentvolumeclaims",
        "spec: {}",
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources.requests[storage]: Required value",
        ],
    );
    check(
        "",
        "persistentvolumeclaims",
        "spec: {accessModes: [Odd], resources: {requests: {storage: 0}}}",
        &[
            "spec.accessModes: Unsupported value: \"Odd\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.resources.requests[storage]: Invalid value: \"0\": must be greater than zero",
        ],
    );
    check(
        "",
        "persistentvolumes",
        "spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, local: {path: /x}}",
        &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
    );
    check(
        "",
        "persistentvolumes",
        "spec: {}",
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec: Required value: must specify a volume type",
        ],
    );
}

#[test]
fn configuration_and_access() {
    check(
        "",
        "configmaps",
        "data: {'a/b': x}",
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        "",
        "secrets",
        "type: kubernetes.io/tls",
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check(
        "rbac.authorization.k8s.io",
        "roles",
        "rules: [{nonResourceURLs: [/x]}, {verbs: [get]}]",
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            "rules[1].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[1].resources: Required value: resource rules must supply at least one resource",
        ],
    );
    check(
        "networking.k8s.io",
        "ingresses",
        "spec: {rules: [{host: 1.2.3.4, http: {paths: [{path: x, pathType: Prefix, backend: {service: {name: s, port: {}}}}]}}]}",
        &[
            "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required",
        ],
    );
    check(
        "policy",
        "poddisruptionbudgets",
        "spec: {minAvailable: 1, maxUnavailable: 101%}",
        &[
            "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ],
    );
    check(
        "batch",
        "cronjobs",
        "spec: {schedule: every day, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}",
        &[
            "spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]",
        ],
    );
}

/// What the pods of a set are to be is looked at when they are made: their volumes are in the
/// claims' templates too.
#[test]
fn a_sets_template_may_use_the_volumes_of_its_claims() {
    let set = |meta: &str, mount: &str| {
        format!(
            "spec: {{selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {meta}, spec: \
             {{containers: [{{name: c, image: i, volumeMounts: [{{name: {mount}, mountPath: \
             /d}}]}}]}}}}, volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{}}}}]}}"
        )
    };
    check("apps", "statefulsets", &set("{labels: {a: b}}", "data"), &[]);
    check("apps", "statefulsets", &set("{labels: {a: b}}", "unknown"), &[]);
    let found = complaints("apps", "statefulsets", &set("{labels: {a: b, c: '-'}}", "data"));
    let expected = "spec.template.labels: Invalid value: \"-\": a valid label must be";
    assert!(found.starts_with(expected), "{found}");
}

/// Whatever shape comes in, nothing panics.
#[test]
fn nonsense_is_survived() {
    use orch_api::kinds::strategy;
    use serde_json::json;
    let kinds = [
        ("", "pods"),
        ("", "services"),
        ("", "nodes"),
        ("", "namespaces"),
        ("", "secrets"),
        ("", "configmaps"),
        ("", "persistentvolumes"),
        ("", "persistentvolumeclaims"),
        ("", "events"),
        ("", "replicationcontrollers"),
        ("", "limitranges"),
        ("", "endpoints"),
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("apps", "daemonsets"),
        ("apps", "replicasets"),
        ("batch", "jobs"),
        ("batch", "cronjobs"),
        ("networking.k8s.io", "ingresses"),
        ("policy", "poddisruptionbudgets"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "csistoragecapacities"),
        ("storage.k8s.io", "volumeattachments"),
        ("resource.k8s.io", "deviceclasses"),
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "resourceslices"),
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        ("networking.k8s.io", "ipaddresses"),
        ("networking.k8s.io", "networkpolicies"),
        ("networking.k8s.io", "servicecidrs"),
        ("node.k8s.io", "runtimeclasses"),
        ("coordination.k8s.io", "leases"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("x.io", "odd"),
    ];
    let odd = [
        json!({"metadata": {}}),
        json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
        json!({"metadata": {"name": "x"}, "spec": [], "status": [1]}),
        json!({"metadata": {"name": "x"}, "spec": "text", "status": "text"}),
        json!({"metadata": {"name": "x"}, "spec": {"containers": {}, "ports": 1, "template": [], "selector": 3,
            "jobTemplate": 1, "volumes": [null, 3], "finalizers": {}, "capacity": [], "strategy": true, "limits": [1]}}),
        json!({"metadata": {"name": "x"}, "spec": {"containers": [null, 1, {"name": 1, "image": {}, "resources": []}],
            "template": {"metadata": 1, "spec": {"containers": 1}}, "volumeClaimTemplates": [1]}}),
    ];
    for (group, plural) in kinds {
        for object in &odd {
            let of = strategy(group, plural);
            let mut new = object.clone();
            of.set_defaults(&mut new);
            of.prepare_for_create(&mut new);
            of.validate(&new);
            for old in &odd {
                let mut next = object.clone();
                of.prepare_for_update(&mut next, old);
                of.validate_update(&next, old);
                of.prepare_for_status_update(&mut next, old);
                of.validate_status_update(&next, old);
                of.prepare_for_subresource_update("resize", &mut next, old);
                of.validate_subresource_update("ephemeralcontainers", &next, old);
                of.warnings(&next, Some(old));
            }
            of.row(&new, jiff::Timestamp::UNIX_EPOCH);
            for field in of.selectable_fields() {
                assert!(of.selectable_field(&new, field).is_some() || *field == "name");
            }
            assert_eq!(of.row(&new, jiff::Timestamp::UNIX_EPOCH).len(), of.columns().len());
        }
    }
}
