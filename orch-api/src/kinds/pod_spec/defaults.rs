//! The defaults of a pod's spec.
//!
//! Source: `pkg/apis/core/v1/defaults.go`.

use serde_json::{Map, Value, json};

use super::resources::canonicalize;
use crate::kinds::field::{child, child_opt, children, default_nonzero, default_to};

type Fields = Map<String, Value>;

/// `0644`.
const FILE_MODE: i64 = 420;
const TOKEN_LIFETIME_S: i64 = 3600;

/// Fills in the spec of a pod.
pub(crate) fn pod_defaults(spec: &mut Fields) {
    default_to(spec, "enableServiceLinks", true);
    spec_defaults(spec);
    for list in ["initContainers", "containers"] {
        for container in children(spec, list) {
            requests_from_limits(container);
        }
    }
    if let Some(resources) = child_opt(spec, "resources") {
        canonicalize_requirements(resources);
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["initContainers", "containers"] {
            for container in children(spec, list) {
                for port in children(container, "ports") {
                    let own = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                    default_nonzero(port, "hostPort", own);
                }
            }
        }
    }
}

/// Fills in the pod template of an object that has one under `template`.
pub(crate) fn template_defaults(parent: &mut Fields) {
    if let Some(template) = child(parent, "template") {
        child(template, "metadata");
        if let Some(spec) = child(template, "spec") {
            spec_defaults(spec);
        }
    }
}

fn spec_defaults(spec: &mut Fields) {
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "schedulerName", "default-scheduler");
    account(spec);
    for volume in children(spec, "volumes") {
        volume_defaults(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in children(spec, list) {
            container_defaults(container);
        }
    }
    if let Some(overhead) = child_opt(spec, "overhead") {
        canonicalize(overhead);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`: both are served.
fn account(spec: &mut Fields) {
    let text = |name: &str| spec.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    let account = text("serviceAccountName").or_else(|| text("serviceAccount"));
    if let Some(account) = account.map(str::to_owned) {
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.into());
    }
}

fn volume_defaults(volume: &mut Fields) {
    if volume.iter().all(|(name, value)| name == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child_opt(volume, source) {
            default_to(source, "defaultMode", FILE_MODE);
            field_refs(source);
        }
    }
    if let Some(projected) = child_opt(volume, "projected") {
        for source in children(projected, "sources") {
            if let Some(token) = child_opt(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", TOKEN_LIFETIME_S);
            }
            if let Some(downward) = child_opt(source, "downwardAPI") {
                field_refs(downward);
            }
        }
    }
    if let Some(size) = child_opt(volume, "emptyDir").and_then(|e| e.get_mut("sizeLimit")) {
        super::resources::canonicalize_value(size);
    }
    source_defaults(volume);
    if let Some(image) = child_opt(volume, "image") {
        let policy = super::image_pull_policy(text_of(image, "reference"));
        default_to(image, "pullPolicy", policy);
    }
    if let Some(ephemeral) = child_opt(volume, "ephemeral")
        && let Some(template) = child_opt(ephemeral, "volumeClaimTemplate")
        && let Some(spec) = child_opt(template, "spec")
    {
        default_to(spec, "volumeMode", "Filesystem");
        child(spec, "resources");
    }
}

/// The defaults of sources that volumes of pods and PersistentVolumes share.
pub(crate) fn source_defaults(volume: &mut Fields) {
    if let Some(path) = child_opt(volume, "hostPath")
        && path.get("type").is_none_or(Value::is_null)
    {
        path.insert("type".into(), "".into());
    }
    if let Some(iscsi) = child_opt(volume, "iscsi") {
        default_to(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child_opt(volume, "rbd") {
        default_to(rbd, "pool", "rbd");
        default_to(rbd, "user", "admin");
        default_to(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = child_opt(volume, "azureDisk") {
        default_to(disk, "cachingMode", "ReadWrite");
        default_to(disk, "kind", "Shared");
        default_to(disk, "fsType", "ext4");
        default_to(disk, "readOnly", false);
    }
    if let Some(scale) = child_opt(volume, "scaleIO") {
        default_to(scale, "storageMode", "ThinProvisioned");
        default_to(scale, "fsType", "xfs");
    }
}

fn field_refs(source: &mut Fields) {
    for item in children(source, "items") {
        if let Some(field) = child_opt(item, "fieldRef") {
            default_to(field, "apiVersion", "v1");
        }
        resource_field(item);
    }
}

fn resource_field(parent: &mut Fields) {
    if let Some(field) = child_opt(parent, "resourceFieldRef") {
        default_to(field, "divisor", "0");
    }
}

fn text_of<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn container_defaults(container: &mut Fields) {
    let policy = super::image_pull_policy(text_of(container, "image"));
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    if let Some(resources) = child(container, "resources") {
        canonicalize_requirements(resources);
    }
    for port in children(container, "ports") {
        default_to(port, "protocol", "TCP");
    }
    for variable in children(container, "env") {
        if let Some(from) = child_opt(variable, "valueFrom") {
            if let Some(field) = child_opt(from, "fieldRef") {
                default_to(field, "apiVersion", "v1");
            }
            resource_field(from);
            if let Some(file) = child_opt(from, "fileKeyRef") {
                default_to(file, "optional", false);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_opt(container, probe) {
            probe_defaults(probe);
        }
    }
    if let Some(lifecycle) = child_opt(container, "lifecycle") {
        for handler in ["postStart", "preStop"] {
            if let Some(handler) = child_opt(lifecycle, handler) {
                http_defaults(handler);
            }
        }
    }
    if let Some(security) = child_opt(container, "securityContext")
        && security.get("procMount").is_some_and(|p| p == "")
    {
        security.insert("procMount".into(), "Default".into());
    }
}

fn probe_defaults(probe: &mut Fields) {
    for (name, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        default_nonzero(probe, name, value);
    }
    if let Some(grpc) = child_opt(probe, "grpc")
        && grpc.get("service").is_none_or(Value::is_null)
    {
        grpc.insert("service".into(), "".into());
    }
    http_defaults(probe);
}

fn http_defaults(handler: &mut Fields) {
    if let Some(http) = child_opt(handler, "httpGet") {
        default_to(http, "path", "/");
        default_to(http, "scheme", "HTTP");
    }
}

fn canonicalize_requirements(resources: &mut Fields) {
    for list in ["limits", "requests"] {
        if let Some(list) = child_opt(resources, list) {
            canonicalize(list);
        }
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = child_opt(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            if !requests.contains_key(&name) {
                requests.insert(name, limit);
            }
        }
    }
}
