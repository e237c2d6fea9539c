//! What may change, and what stays as it was.

use orch_api::kinds::strategy;
use serde_json::Value;

use super::{created, lines, yaml};

/// Changes one place of a created object and checks the complaints. A pointer's last part may be
/// new.
fn check(group: &str, plural: &str, text: &str, changes: &[(&str, &str)], wanted: &str) {
    let of = strategy(group, plural);
    let old = created(of, yaml(text));
    let mut new = old.clone();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let parent = new.pointer_mut(parent).expect("a parent");
        let value: Value = serde_json::from_str(value).expect("JSON");
        match parent {
            Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value,
            other => other[field] = value,
        }
    }
    of.set_defaults(&mut new);
    of.prepare_for_update(&mut new, &old);
    let told = lines(&of.validate_update(&new, &old));
    let first = told.lines().next().unwrap_or_default();
    assert_eq!(first, wanted, "{told}");
}

const POD: &str = "spec: {containers: [{name: a, image: i:1}], tolerations: [{key: k, operator: Exists}], activeDeadlineSeconds: 9}";

#[test]
fn pods() {
    let check = |changes: &[(&str, &str)], wanted: &str| check("", "pods", POD, changes, wanted);
    check(&[], "");
    check(&[("/spec/containers/0/image", "\"i:2\"")], "");
    check(&[("/spec/activeDeadlineSeconds", "5")], "");
    check(
        &[("/spec/activeDeadlineSeconds", "10")],
        "spec.activeDeadlineSeconds: Invalid value: 10: must be less than or equal to previous value",
    );
    check(
        &[(
            "/spec/tolerations",
            r#"[{"key":"k","operator":"Exists"},{"key":"l","operator":"Exists"}]"#,
        )],
        "",
    );
    check(
        &[("/spec/tolerations", "[]")],
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
    );
    check(
        &[("/spec/containers", r#"[{"name":"a","image":"i:1"},{"name":"b","image":"i"}]"#)],
        "spec.containers: Forbidden: pod updates may not add or remove containers",
    );
    check(
        &[("/spec/nodeName", "\"n\"")],
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    );
    check(&[("/status/phase", "\"Running\"")], "");
}

#[test]
fn selectors_and_data() {
    let deployment = "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: c, image: i}]}}}";
    check(
        "apps",
        "deployments",
        deployment,
        &[("/spec/selector", r#"{"matchLabels":{"c":"d"}}"#)],
        "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable",
    );
    check(
        "",
        "configmaps",
        "{immutable: true, data: {a: b}}",
        &[("/data/a", "\"c\"")],
        "data: Forbidden: field is immutable when `immutable` is set",
    );
    check(
        "",
        "secrets",
        "{type: a.io/b, data: {}}",
        &[("/type", "\"Opaque\"")],
        "type: Invalid value: \"Opaque\": field is immutable",
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        "{roleRef: {kind: Role, name: r}}",
        &[("/roleRef/name", "\"s\"")],
        "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"s\"}: cannot change roleRef",
    );
    let claim = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}";
    check(
        "",
        "persistentvolumeclaims",
        claim,
        &[("/spec/resources/requests/storage", "\"2Gi\"")],
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
    );
    check("", "persistentvolumeclaims", claim, &[("/spec/volumeName", "\"pv\"")], "");
    let class = [("/spec/storageClassName", "\"standard\"")];
    check("", "persistentvolumeclaims", claim, &class, "");
    check(
        "",
        "persistentvolumeclaims",
        "spec: {storageClassName: '', accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
        &class,
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
    );
    let set = "spec: {serviceName: s, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}";
    check("apps", "statefulsets", set, &[("/spec/replicas", "3")], "");
    check(
        "apps",
        "statefulsets",
        set,
        &[("/spec/serviceName", "\"t\"")],
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
    );
}

#[test]
fn services_keep_what_they_were_given() {
    let of = strategy("", "services");
    let mut old = created(of, yaml("spec: {type: NodePort, ports: [{name: a, port: 80}]}"));
    old["spec"]["clusterIP"] = "10.0.0.1".into();
    old["spec"]["clusterIPs"] = serde_json::json!(["10.0.0.1"]);
    old["spec"]["ports"][0]["nodePort"] = 30001.into();
    let update = |text: &str| {
        let mut new = yaml(text);
        of.set_defaults(&mut new);
        of.prepare_for_update(&mut new, &old);
        let told = lines(&of.validate_update(&new, &old));
        (new["spec"].clone(), told)
    };
    let (kept, told) = update("spec: {type: NodePort, ports: [{name: a, port: 81}]}");
    assert_eq!(
        (&kept["clusterIP"], &kept["ports"][0]["nodePort"], told.as_str()),
        (&"10.0.0.1".into(), &30001.into(), "")
    );
    let (plain, told) =
        update("spec: {type: ClusterIP, ports: [{name: a, port: 80, nodePort: 30001}]}");
    assert_eq!((&plain["ports"][0]["nodePort"], told.as_str()), (&Value::Null, ""));
    let (named, told) = update(
        "spec: {type: ExternalName, externalName: x.io, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1]}",
    );
    assert_eq!((&named["clusterIPs"], told.as_str()), (&Value::Null, ""));
    let (_, told) =
        update("spec: {type: NodePort, clusterIP: 10.0.0.2, ports: [{name: a, port: 80}]}");
    assert_eq!(told, "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set");
}

#[test]
fn pods_stop_at_once_where_nothing_runs() {
    let of = strategy("", "pods");
    let check = |text: &str, requested: Option<i64>, wanted: i64| {
        let mut pod = yaml(text);
        pod["metadata"] = serde_json::json!({"name": "p"});
        let object = orch_core::Object::from_value(&pod).unwrap();
        assert_eq!(of.grace_period_s(&object, requested), Some(wanted), "{text}");
    };
    check("spec: {terminationGracePeriodSeconds: 7}", None, 0);
    check("spec: {terminationGracePeriodSeconds: 7, nodeName: n1}", None, 7);
    check("spec: {terminationGracePeriodSeconds: 7, nodeName: n1}", Some(3), 3);
    check("spec: {terminationGracePeriodSeconds: 7, nodeName: n1}", Some(-1), 1);
    check("{spec: {nodeName: n1}, status: {phase: Succeeded}}", Some(3), 0);
}
