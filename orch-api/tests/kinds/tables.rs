//! Rows as `kubectl get` shows them.

use orch_api::kinds::strategy;
use serde_json::Value;

use super::yaml;

/// Checks the cells of a row, the wide ones included, joined by bars.
fn check(group: &str, plural: &str, text: &str, wanted: &str) {
    let of = strategy(group, plural);
    let mut object = yaml(text);
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "x".into();
    }
    let now = "2026-01-01T00:05:00Z".parse().unwrap();
    let cells: Vec<String> = of
        .row(&object, now)
        .iter()
        .map(|cell| match cell {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    assert_eq!(cells.len(), of.columns().len());
    assert_eq!(cells.join(" | "), wanted);
}

#[test]
fn rows_read_as_kubectl_shows_them() {
    let template = "template: {spec: {containers: [{name: c, image: i}, {name: d, image: j}]}}";
    check(
        "apps",
        "deployments",
        &format!(
            "{{spec: {{replicas: 3, selector: {{matchLabels: {{a: b}}}}, {template}}}, status: {{readyReplicas: 1, updatedReplicas: 2}}}}"
        ),
        "x | 1/3 | 2 | 0 | 5m | c,d | i,j | a=b",
    );
    check(
        "",
        "services",
        "spec: {type: NodePort, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 80, nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}], selector: {a: b}}",
        "x | NodePort | 10.0.0.1 | <none> | 80:30080/TCP,53/UDP | 5m | a=b",
    );
    check(
        "",
        "services",
        "spec: {type: LoadBalancer, clusterIP: 10.0.0.1, ports: [{port: 80, protocol: TCP}]}",
        "x | LoadBalancer | 10.0.0.1 | <pending> | 80/TCP | 5m | <none>",
    );
    check(
        "",
        "nodes",
        "{metadata: {labels: {node-role.kubernetes.io/control-plane: ''}}, spec: {unschedulable: true}, status: {conditions: [{type: Ready, status: 'True'}], addresses: [{type: InternalIP, address: 10.1.1.1}], nodeInfo: {kubeletVersion: v1.36.0, osImage: Linux, kernelVersion: '6', containerRuntimeVersion: r://1}}}",
        "x | Ready,SchedulingDisabled | control-plane | 5m | v1.36.0 | 10.1.1.1 | <none> | Linux | 6 | r://1",
    );
    check(
        "",
        "persistentvolumeclaims",
        "{spec: {volumeName: pv1, storageClassName: fast, volumeMode: Filesystem}, status: {phase: Bound, capacity: {storage: 1Gi}, accessModes: [ReadWriteMany, ReadWriteOnce]}}",
        "x | Bound | pv1 | 1Gi | RWO,RWX | fast | <unset> | 5m | Filesystem",
    );
    check(
        "",
        "persistentvolumes",
        "{spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, claimRef: {namespace: ns, name: c}}, status: {phase: Bound}}",
        "x | 1Gi | RWO | Retain | Bound | ns/c |  | <unset> |  | 5m | <unset>",
    );
    check(
        "",
        "events",
        "{involvedObject: {kind: Pod, name: p}, type: Normal, reason: Pulled, message: 'done ', source: {component: kubelet, host: n1}, count: 2, firstTimestamp: '2026-01-01T00:04:00Z', lastTimestamp: '2026-01-01T00:04:30Z'}",
        "30s | Normal | Pulled | pod/p |  | kubelet, n1 | done | 60s | 2 | x",
    );
    check(
        "batch",
        "jobs",
        &format!(
            "{{spec: {{completions: 2, selector: {{}}, {template}}}, status: {{succeeded: 2, startTime: '2026-01-01T00:00:00Z', completionTime: '2026-01-01T00:00:09Z', conditions: [{{type: Complete, status: 'True'}}]}}}}"
        ),
        "x | Complete | 2/2 | 9s | 5m | c,d | i,j | <none>",
    );
    check(
        "batch",
        "cronjobs",
        "spec: {schedule: '* * * * *', suspend: false}",
        "x | * * * * * | <none> | False | 0 | <none> | 5m |  |  | <none>",
    );
    check(
        "",
        "endpoints",
        "subsets: [{addresses: [{ip: 1.1.1.1}, {ip: 1.1.1.2}], ports: [{port: 80}, {port: 81}]}]",
        "x | 1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more... | 5m",
    );
    check(
        "discovery.k8s.io",
        "endpointslices",
        "{addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [1.1.1.1]}]}",
        "x | IPv4 | 80 | 1.1.1.1 | 5m",
    );
    check(
        "networking.k8s.io",
        "ingresses",
        "{spec: {ingressClassName: web, tls: [{}], rules: [{host: a.io}, {}]}, status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}}",
        "x | web | a.io | 1.2.3.4 | 80, 443 | 5m",
    );
    check(
        "autoscaling",
        "horizontalpodautoscalers",
        "{spec: {scaleTargetRef: {kind: Deployment, name: d}, minReplicas: 1, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {averageUtilization: 80}}}]}, status: {currentReplicas: 2}}",
        "x | Deployment/d | cpu: <unknown>/80% | 1 | 3 | 2 | 5m",
    );
    check(
        "storage.k8s.io",
        "storageclasses",
        "{metadata: {annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: p, reclaimPolicy: Delete, volumeBindingMode: Immediate}",
        "x (default) | p | Delete | Immediate | false | 5m",
    );
    check("policy", "poddisruptionbudgets", "spec: {minAvailable: 50%}", "x | 50% | N/A | 0 | 5m");
    check("", "configmaps", "{data: {a: b}, binaryData: {c: ''}}", "x | 2 | 5m");
    check("", "secrets", "{type: Opaque, data: {a: b}}", "x | Opaque | 1 | 5m");
    check(
        "",
        "resourcequotas",
        "status: {hard: {pods: '10', limits.cpu: '2'}, used: {pods: '1'}}",
        "x | pods: 1/10 | limits.cpu: 0/2 | 5m",
    );
    check("x.io", "odd", "{}", "x | 5m");
}
