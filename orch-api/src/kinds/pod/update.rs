//! What may change in a pod after it was created.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidatePodUpdate`,
//! `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use orch_core::status::FieldError;
use serde_json::{Map, Value};

use crate::{
    kinds::{
        field::{Errors, Field, same},
        pod_spec::{self, Within},
    },
    strategy::carry,
};

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const NO_NEW: &str = "pod updates may not add or remove containers";

/// Checks an update of the pod itself.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (spec, before) = (Field::new(&new["spec"], "spec"), Field::new(&old["spec"], "spec"));
    if same(spec.value, before.value) {
        return errors;
    }
    pod_spec::validate(&spec, Within::Pod, &mut errors);
    for list in ["containers", "initContainers"] {
        if spec.len(list) != before.len(list) {
            errors.push(spec.forbidden(list, NO_NEW));
            return errors;
        }
    }
    deadline(&spec, &before, &mut errors);
    tolerations(&spec, &before, &mut errors);
    gates(&spec, &before, &mut errors);
    if errors.is_empty() {
        let munged = munge(&spec, &before);
        if !same(&munged, before.value) {
            let changed = differences(&munged, before.value);
            errors.push(FieldError::forbidden("spec", format!("{RULE}\n{changed}")));
        }
    }
    errors
}

fn deadline(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let name = "activeDeadlineSeconds";
    let Some(old) = before.int(name) else { return };
    match spec.int(name) {
        Some(new) if new > old => {
            errors.push(spec.invalid(name, "must be less than or equal to previous value"));
        }
        Some(_) => {}
        None => errors.push(FieldError::invalid(
            spec.at(name),
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
    }
}

fn tolerations(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = before.items("tolerations").all(|old| {
        let old = bare(old.value);
        spec.items("tolerations").any(|new| same(&bare(new.value), &old))
    });
    if !kept {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn gates(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    for gate in spec.items("schedulingGates") {
        let name = gate.str("name");
        if !before.items("schedulingGates").any(|old| old.str("name") == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(gate.path, why));
        }
    }
}

/// The new spec with everything put back that may change.
fn munge(spec: &Field<'_>, before: &Field<'_>) -> Value {
    let mut munged = spec.value.clone();
    for list in ["containers", "initContainers"] {
        let olds = before.items(list);
        let news = munged.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (new, old) in news.zip(olds) {
            carry(new, old.value, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"] {
        carry(&mut munged, before.value, name);
    }
    let grace = "terminationGracePeriodSeconds";
    if before.int(grace).is_some_and(|s| s < 0) && spec.int(grace) == Some(1) {
        carry(&mut munged, before.value, grace);
    }
    if before.len("schedulingGates") > 0 {
        // A pod that is held back may still be narrowed down to fewer nodes.
        let narrowed = before
            .entries("nodeSelector")
            .all(|(key, value)| spec.raw("nodeSelector").get(key) == Some(value));
        if narrowed {
            carry(&mut munged, before.value, "nodeSelector");
        }
        if !before.get("affinity").has("nodeAffinity") {
            let affinity = before.raw("affinity").clone();
            munged["affinity"] = affinity;
        }
    }
    munged
}

/// Names the fields that differ, one a line.
fn differences(new: &Value, old: &Value) -> String {
    let mut lines = Vec::new();
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    for name in names {
        let (after, before) =
            (new.get(name).unwrap_or(&Value::Null), old.get(name).unwrap_or(&Value::Null));
        if !same(after, before) {
            lines.push(format!("  {name}:\n-   {after}\n+   {before}"));
        }
    }
    lines.join("\n")
}

/// Puts back what an update of `ephemeralcontainers` or `resize` may not touch.
pub(super) fn prepare_subresource(subresource: &str, new: &mut Value, old: &Value) {
    let after = new.get("spec").cloned().unwrap_or_default();
    for name in ["metadata", "spec", "status"] {
        carry(new, old, name);
    }
    let Some(spec) = new.get_mut("spec") else { return };
    match subresource {
        "ephemeralcontainers" => carry(spec, &after, "ephemeralContainers"),
        "resize" => {
            for list in ["containers", "initContainers"] {
                let targets = spec.get_mut(list).and_then(Value::as_array_mut);
                for container in targets.into_iter().flatten() {
                    let wanted = Field::root(&after)
                        .items(list)
                        .find(|c| Some(c.str("name")) == container["name"].as_str());
                    if let Some(wanted) = wanted {
                        carry(container, wanted.value, "resources");
                        carry(container, wanted.value, "resizePolicy");
                    }
                }
            }
        }
        _ => {}
    }
}

/// Checks an update of `ephemeralcontainers` or `resize`.
pub(super) fn validate_subresource(subresource: &str, new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (spec, before) = (Field::new(&new["spec"], "spec"), Field::new(&old["spec"], "spec"));
    match subresource {
        "ephemeralcontainers" => {
            pod_spec::ephemeral_containers(&spec, &mut errors);
            for old in before.items("ephemeralContainers") {
                let name = old.str("name");
                let new = spec.items("ephemeralContainers").find(|c| c.str("name") == name);
                match new {
                    None => errors.push(spec.forbidden(
                        "ephemeralContainers",
                        format!("existing ephemeral containers {name:?} may not be removed\n"),
                    )),
                    Some(new) if !same(new.value, old.value) => errors.push(spec.forbidden(
                        "ephemeralContainers",
                        format!("existing ephemeral containers {name:?} may not be changed\n"),
                    )),
                    Some(_) => {}
                }
            }
        }
        "resize" => {
            pod_spec::validate(&spec, Within::Pod, &mut errors);
            let class = |pod: &Value| super::quality::class(pod);
            if class(new) != class(old) {
                errors.push(FieldError::invalid(
                    "spec",
                    class(new),
                    "Pod QOS Class may not change as a result of resizing",
                ));
            }
        }
        _ => {}
    }
    errors
}

/// Refuses a status in which a container that ended for good runs again.
pub(super) fn no_way_back(
    status: &Field<'_>,
    before: &Field<'_>,
    list: &str,
    pod: &Value,
    errors: &mut Errors,
) {
    let policy = pod.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or_default();
    if policy == "Always" {
        return;
    }
    let containers = if list == "containerStatuses" { "containers" } else { "initContainers" };
    for old in before.items(list) {
        let Some(ended) = old.get("state").opt("terminated") else { continue };
        if ended.int("exitCode") != Some(0) && policy == "OnFailure" {
            continue;
        }
        let name = old.str("name");
        let sidecar = Field::root(&pod["spec"])
            .items(containers)
            .any(|c| c.str("name") == name && !c.str("restartPolicy").is_empty());
        let again = status.items(list).find(|new| new.str("name") == name);
        if let Some(new) = again
            && !sidecar
            && !new.get("state").has("terminated")
        {
            let why = "may not be transitioned to non-terminated state";
            errors.push(new.forbidden("state", why));
        }
    }
}
