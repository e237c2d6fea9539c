//! `AdmissionReview`: the question, and what an answer has to be.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`,
//! `pkg/admission/plugin/webhook/errors/statuserror.go`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use orch_core::{ApiError, ResourceType};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::AdmissionRequest;
use crate::{auth::UserInfo, registry::Versioned};

/// Puts a field that upstream leaves out when it is empty.
fn put(map: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        map.insert(field.to_owned(), text.into());
    }
}

fn user(user: &UserInfo) -> Value {
    let mut info = Map::new();
    put(&mut info, "username", &user.name);
    put(&mut info, "uid", user.uid.as_deref().unwrap_or_default());
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

fn resource(of: &ResourceType) -> Value {
    json!({"group": of.group, "version": of.version, "resource": of.plural})
}

fn kind((group, version, kind): &(String, String, String)) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The question, in a version of reviews. `seen_as` is what the webhook takes the resource for.
pub(super) fn question(
    version: &str,
    uid: &str,
    request: &AdmissionRequest,
    (seen_as, versioned): (&ResourceType, &Versioned),
) -> Value {
    let subresource = request.target.subresource.as_deref().unwrap_or_default();
    let own = request.origin.resource.as_ref();
    let requested = own.map(|own| own.kind_of(request.target.subresource.as_deref()));
    let mut body = Map::new();
    body.insert("uid".into(), uid.into());
    body.insert("kind".into(), kind(&versioned.kind));
    body.insert("resource".into(), resource(seen_as));
    put(&mut body, "subResource", subresource);
    body.insert("requestKind".into(), kind(requested.as_ref().unwrap_or(&versioned.kind)));
    body.insert("requestResource".into(), resource(&request.target.resource));
    put(&mut body, "requestSubResource", subresource);
    put(&mut body, "name", &request.object_name());
    put(&mut body, "namespace", &request.namespace_attribute());
    body.insert("operation".into(), request.operation.as_str().into());
    body.insert("userInfo".into(), user(&request.user));
    body.insert("object".into(), versioned.object.clone());
    body.insert("oldObject".into(), versioned.old.clone());
    body.insert("dryRun".into(), request.dry_run.into());
    body.insert("options".into(), request.options.to_value(request.operation));
    json!({
        "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"),
        "request": body,
    })
}

/// An answer that is one.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// A JSON patch, as bytes, if there is one.
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) result: Option<Status>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    #[serde(default)]
    patch: Option<String>,
    #[serde(default)]
    patch_type: Option<String>,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Checks an answer; the error says what is wrong with it.
pub(super) fn check(
    version: &str,
    uid: &str,
    mutating: bool,
    mut answer: Value,
) -> Result<Answer, String> {
    let response = answer["response"].take();
    if response.is_null() {
        return Err("webhook response was absent".into());
    }
    let raw: Raw = serde_json::from_value(response).map_err(|error| error.to_string())?;
    let patch = STANDARD.decode(raw.patch.as_deref().unwrap_or_default());
    let patch = patch.map_err(|error| error.to_string())?;
    let mut patch_type = raw.patch_type.clone();
    if version == "v1" {
        if raw.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", raw.uid));
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let (api, kind) = (text("apiVersion"), text("kind"));
        if api != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api}, Kind={kind}"
            ));
        }
        check_patch(mutating, patch.is_empty(), patch_type.as_deref())?;
    } else if !patch.is_empty() {
        patch_type = Some("JSONPatch".into());
    }
    Ok(Answer {
        allowed: raw.allowed,
        patch: if mutating { patch } else { Vec::new() },
        patch_type: patch_type.unwrap_or_default(),
        result: raw.status,
        warnings: raw.warnings.unwrap_or_default(),
        annotations: raw.audit_annotations.unwrap_or_default(),
    })
}

fn check_patch(mutating: bool, empty: bool, kind: Option<&str>) -> Result<(), String> {
    let wrong = match (mutating, empty, kind) {
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, _, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (false, false, _) => "validating webhook may not return response.patch",
        (false, _, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(wrong.into())
}

/// The refusal that a webhook's `result` is.
pub(super) fn denial(hook: &str, result: Option<Status>) -> ApiError {
    let mut status = result.unwrap_or_default();
    if status.code.unwrap_or(0) < 400 {
        status.code = Some(400);
    }
    if matches!(status.status.as_deref(), None | Some("" | "Success")) {
        status.status = Some("Failure".into());
    }
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let by = format!("admission webhook \"{hook}\" denied the request");
    status.message = Some(match said(&status.message).or_else(|| said(&status.reason)) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    });
    ApiError::from_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_as_upstream_does() {
        let verdict = |mutating: bool, response: Value| {
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": response,
            });
            check("v1", "u", mutating, answer).map(|answer| answer.allowed)
        };
        let no = |text: &str| Err(text.to_owned());
        assert_eq!(verdict(true, Value::Null), no("webhook response was absent"));
        let wrong = verdict(true, json!({"uid": "x"}));
        assert_eq!(wrong, no("expected response.uid=\"u\", got \"x\""));
        assert_eq!(verdict(true, json!({"uid": "u", "allowed": true})), Ok(true));
        let patched = json!({"uid": "u", "patch": "W10="});
        let why = "webhook returned response.patch but not response.patchType";
        assert_eq!(verdict(true, patched.clone()), no(why));
        assert_eq!(verdict(false, patched), no("validating webhook may not return response.patch"));
        let typed = json!({"uid": "u", "patchType": "JSONPatch"});
        let why = "webhook returned response.patchType but not response.patch";
        assert_eq!(verdict(true, typed), no(why));
        let other = json!({"apiVersion": "a/v1", "kind": "B", "response": {"uid": "u"}});
        assert_eq!(
            check("v1", "u", true, other).unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got a/v1, Kind=B"
        );
        let old = json!({"response": {"allowed": true, "patch": "W10="}});
        assert_eq!(check("v1beta1", "u", true, old).unwrap().patch_type, "JSONPatch");
    }

    #[test]
    fn refusals_are_worded_as_upstreams() {
        let check = |result: Value, code: u16, message: &str| {
            let error = denial("h.example.com", serde_json::from_value(result).unwrap());
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
        };
        let by = "admission webhook \"h.example.com\" denied the request";
        check(Value::Null, 400, &format!("{by} without explanation"));
        check(json!({"message": "no"}), 400, &format!("{by}: no"));
        check(json!({"reason": "Forbidden", "code": 403}), 403, &format!("{by}: Forbidden"));
        check(json!({"code": 200, "status": "Success"}), 400, &format!("{by} without explanation"));
    }
}
