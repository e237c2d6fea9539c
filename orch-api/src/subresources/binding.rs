//! Binding a pod to a node.
//!
//! Source: `pkg/registry/core/pod/storage/storage.go`, `BindingREST`.

use orch_core::{ApiError, Target, clock::to_seconds, status::FieldError};
use serde_json::{Map, Value, json};

use crate::{
    kinds::Field,
    strategy::{Action, carry},
};

/// Answers a POST to `pods/binding`, and to the old `bindings`.
#[derive(Debug)]
pub struct Binding;

impl Action for Binding {
    fn object(&self, target: &Target, body: &Value) -> Target {
        let name = target.name.as_deref().or(body["metadata"]["name"].as_str());
        let pods = orch_core::ResourceType::of::<k8s_openapi::api::core::v1::Pod>();
        Target::object(pods, target.namespace.as_deref(), name.unwrap_or_default())
    }

    fn apply(&self, body: &Value, pod: &mut Value, now: jiff::Timestamp) -> Result<(), ApiError> {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if body["metadata"]["name"].as_str().is_some_and(|given| given != name) {
            let why = "name in URL does not match name in Binding object";
            return Err(ApiError::bad_request(why));
        }
        let node = node_of(body, &name)?;
        let conflict = |why: String| ApiError::conflict("", "pods/binding", &name, &why);
        for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, is) = (&body["metadata"][field], &pod["metadata"][field]);
            if wanted.as_str().is_some_and(|w| !w.is_empty()) && wanted != is {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(conflict(format!(
                    "Precondition failed: {what} in precondition: {}, {what} in object meta: {}",
                    text(wanted),
                    text(is)
                )));
            }
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return Err(conflict(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            )));
        }
        let bound = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !bound.is_empty() {
            return Err(conflict(format!("pod {name} is already assigned to node \"{bound}\"")));
        }
        if Field::root(&pod["spec"]).len("schedulingGates") > 0 {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        pod["spec"]["nodeName"] = node.into();
        merge_annotations(body, pod);
        // Room was made on one node: once bound, nothing is nominated any more.
        carry(&mut pod["status"], &Value::Null, "nominatedNodeName");
        scheduled(pod, now);
        Ok(())
    }
}

fn node_of<'a>(body: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    let target = Field::new(&body["target"], "target");
    let mut errors = Vec::new();
    if !matches!(target.str("kind"), "" | "Node") {
        let supported = ["Node", "<empty>"];
        errors.push(FieldError::not_supported(target.at("kind"), target.str("kind"), &supported));
    }
    if target.str("name").is_empty() {
        errors.push(target.required("name", ""));
    }
    if errors.is_empty() {
        return Ok(target.str("name"));
    }
    Err(ApiError::invalid("", "Binding", name, &errors))
}

fn merge_annotations(body: &Value, pod: &mut Value) {
    let Some(given) = body["metadata"]["annotations"].as_object().filter(|a| !a.is_empty()) else {
        return;
    };
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = Value::Object(Map::new());
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn scheduled(pod: &mut Value, now: jiff::Timestamp) {
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": to_seconds(now).to_string(),
    });
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(old) if old["status"] == "True" => {}
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let body = json!({"metadata": {"name": "p", "annotations": {"a": "b"}},
            "target": {"kind": "Node", "name": "n1"}});
        let check = |body: &Value, pod: Value, wanted: &str| {
            let mut pod = pod;
            let told = Binding.apply(body, &mut pod, now).err();
            assert_eq!(told.map(|e| e.to_string()).unwrap_or_default(), wanted);
            pod
        };
        let fresh = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {}});
        let bound = check(&body, fresh.clone(), "");
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        assert_eq!(bound["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        check(
            &body,
            bound,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"",
        );
        let mut dying = fresh.clone();
        dying["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check(
            &body,
            dying,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is being deleted, cannot be assigned to a host",
        );
        let other = json!({"metadata": {"uid": "v"}, "target": {"name": "n1"}});
        check(
            &other,
            fresh.clone(),
            "Operation cannot be fulfilled on pods/binding \"p\": Precondition failed: UID in precondition: v, UID in object meta: u",
        );
        let misnamed = json!({"metadata": {"name": "q"}, "target": {"name": "n1"}});
        let refusal = "name in URL does not match name in Binding object";
        check(&misnamed, fresh.clone(), refusal);
        let nowhere = json!({"target": {"kind": "Rack"}});
        check(
            &nowhere,
            fresh,
            "Binding \"p\" is invalid: [target.kind: Unsupported value: \"Rack\": supported values: \"Node\", \"<empty>\", target.name: Required value]",
        );
    }
}
