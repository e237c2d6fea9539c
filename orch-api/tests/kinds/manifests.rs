//! The verdicts on manifests such as upstream's documentation shows them, restated: what 1.36
//! accepts, and how it refuses the rest.

use super::complaints;

const KUBE_SYSTEM: &str = "spec:
  hostNetwork: true
  containers:
  - name: server
    image: registry.k8s.io/kube-scheduler:34d0b8
    command: [/bin/sh, -c, run]
    livenessProbe: {httpGet: {path: /healthz, port: 10251}, initialDelaySeconds: 15, timeoutSeconds: 1}
    ports: [{containerPort: 2380, hostPort: 2380, name: serverport}]
    volumeMounts: [{mountPath: /var/log/server.log, name: logfile}, {mountPath: /etc/ssl, name: MOUNTED, readOnly: true}]
  volumes:
  - {hostPath: {path: /var/log/server.log, type: FileOrCreate}, name: logfile}
  - {hostPath: {path: /etc/ssl}, name: ssl}";

/// Kind by group and plural, the manifest without its head, and upstream's complaints.
#[test]
fn verdicts_are_upstreams() {
    let check = |group: &str, plural: &str, text: &str, wanted: &str| {
        assert_eq!(complaints(group, plural, text), wanted, "{text}");
    };
    let labels = "metadata: {labels: {name: nginx}}";
    let nginx = "spec: {containers: [{name: nginx, image: nginx, ports: [{containerPort: 80}]}]}";
    check("", "pods", &KUBE_SYSTEM.replace("MOUNTED", "ssl"), "");
    // The scheduler's manifest mounts a token volume that it does not have.
    check(
        "",
        "pods",
        &KUBE_SYSTEM.replace("MOUNTED", "default-token-s8ejd"),
        "spec.containers[0].volumeMounts[1].name: Not found: \"default-token-s8ejd\"",
    );
    check("", "pods", &format!("{{{labels}, {nginx}}}"), "");
    // Valid by itself: what refuses it is the namespace's LimitRange.
    check(
        "",
        "pods",
        "spec: {containers: [{name: c, image: i, resources: {limits: {cpu: '3', memory: 100Mi}}}]}",
        "",
    );
    check(
        "",
        "pods",
        "spec: {containers: [{name: c, image: i, env: [{name: D, valueFrom: {secretKeyRef: {name: s, key: data-1}}}]}], restartPolicy: Never}",
        "",
    );
    check(
        "",
        "pods",
        "spec: {containers: [{name: master, image: i, resources: {limits: {cpu: '0.5'}}, volumeMounts: [{mountPath: /d, name: data}]}, {name: sentinel, image: i}], volumes: [{name: data, emptyDir: {}}]}",
        "",
    );
    check(
        "",
        "limitranges",
        "spec: {limits: [{type: Pod, max: {cpu: '2', memory: 1Gi}, min: {cpu: 200m, memory: 6Mi}}, {type: Container, default: {cpu: 300m, memory: 200Mi}, defaultRequest: {cpu: 200m, memory: 100Mi}, max: {cpu: '2', memory: 1Gi}, min: {cpu: 100m, memory: 3Mi}}]}",
        "",
    );
    check(
        "",
        "limitranges",
        "spec: {limits: [{type: Container, default: {cpu: 200m, memory: 512Mi}, defaultRequest: {cpu: 100m, memory: 256Mi}}]}",
        "",
    );
    check(
        "",
        "resourcequotas",
        "spec: {hard: {cpu: '20', memory: 1Gi, persistentvolumeclaims: '10', pods: '10', services: '5', secrets: '10'}}",
        "",
    );
    check("", "namespaces", "metadata: {name: development, labels: {name: development}}", "");
    check(
        "apps",
        "daemonsets",
        "spec: {selector: {matchLabels: {daemon: e}}, template: {metadata: {name: e, labels: {daemon: e}}, spec: {containers: [{name: c, image: prom/prometheus, ports: [{containerPort: 9090, hostPort: 9090, name: serverport}]}]}}}",
        "",
    );
    check(
        "apps",
        "deployments",
        &format!(
            "spec: {{replicas: 3, selector: {{matchLabels: {{name: nginx}}}}, template: {{{labels}, {nginx}}}}}"
        ),
        "",
    );
    check(
        "apps",
        "replicasets",
        &format!(
            "spec: {{replicas: 2, selector: {{matchLabels: {{name: nginx}}}}, template: {{{labels}, {nginx}}}}}"
        ),
        "",
    );
    check(
        "",
        "replicationcontrollers",
        &format!(
            "spec: {{replicas: 3, selector: {{name: nginx}}, template: {{{labels}, {nginx}}}}}"
        ),
        "",
    );
    check("", "podtemplates", &format!("template: {{{labels}, {nginx}}}"), "");
    check(
        "batch",
        "jobs",
        "spec: {template: {metadata: {name: pi}, spec: {containers: [{name: pi, image: perl, command: [perl]}], restartPolicy: Never}}}",
        "",
    );
    check("", "secrets", "data: {data-1: dmFsdWUtMQ0K}", "");
    check("", "configmaps", "data: {data-1: value-1}", "");
    check(
        "",
        "persistentvolumeclaims",
        "spec: {accessModes: [ReadWriteOnce, ReadOnlyMany], resources: {requests: {storage: 10G}}}",
        "",
    );
    for source in [
        "gcePersistentDisk: {pdName: abc123, fsType: ext4}",
        "hostPath: {path: /somepath/data01}",
        "hostPath: {path: /somepath/data02}, persistentVolumeReclaimPolicy: Recycle",
        "nfs: {path: /somepath, server: 172.17.0.2}",
    ] {
        let text = format!(
            "spec: {{capacity: {{storage: 10Gi}}, accessModes: [ReadWriteOnce], {source}}}"
        );
        check("", "persistentvolumes", &text, "");
    }
}
