//! Conversion of custom objects between their versions by a webhook.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`.

use std::time::Duration;

use orch_core::{ApiError, status::Reason};
use serde_json::{Map, Value, json};

use crate::{
    kinds::{Field, metadata},
    outbound::{Endpoint, Json, send_json},
    server::Inner,
};

/// How long a webhook may take, as upstream documents it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Who converts the objects of a definition.
#[derive(Debug)]
pub(crate) struct ConversionWebhook {
    endpoint: Endpoint,
    /// The first version of reviews that both sides know.
    review: &'static str,
}

impl ConversionWebhook {
    /// What a definition's `spec.conversion` says; `None` if no webhook converts.
    pub(super) fn of(conversion: &Value) -> Option<Self> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array()?;
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        let review = versions.iter().find_map(known)?;
        Some(Self { endpoint: Endpoint::of_client_config(&webhook["clientConfig"])?, review })
    }
}

fn failure(message: String) -> ApiError {
    ApiError::new(Reason::Unknown, message)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// How upstream names what is converted.
fn described(object: &Value) -> String {
    format!("{}, Kind={}", text(object, "apiVersion"), text(object, "kind"))
}

impl Inner {
    /// Brings objects of a definition that a webhook converts to another version, in one call.
    /// Those that have it already stay as they are.
    pub(crate) async fn convert_custom(
        &self,
        webhook: &ConversionWebhook,
        api_version: &str,
        mut objects: Vec<Value>,
    ) -> Result<Vec<Value>, ApiError> {
        let other: Vec<usize> = (0..objects.len())
            .filter(|at| text(&objects[*at], "apiVersion") != api_version)
            .collect();
        let Some(first) = other.first() else { return Ok(objects) };
        let what = described(&objects[*first]);
        let sent: Vec<&Value> = other.iter().map(|at| &objects[*at]).collect();
        let answer = self.review(webhook, api_version, &sent).await;
        let converted = answer
            .map_err(|why| failure(format!("conversion webhook for {what} failed: {why}")))?;
        if converted.len() != other.len() {
            return Err(failure(format!(
                "conversion webhook for {what} returned {} objects, expected {}",
                converted.len(),
                other.len()
            )));
        }
        for (index, (at, new)) in other.into_iter().zip(converted).enumerate() {
            let invalid = |why: String| {
                failure(format!(
                    "conversion webhook for {what} returned invalid converted object at index {index}: {why}"
                ))
            };
            check(&objects[at], &new, api_version).map_err(invalid)?;
            objects[at] = restored(&objects[at], new).map_err(|why| {
                failure(format!(
                    "conversion webhook for {what} returned invalid metadata in object at index {index}: {why}"
                ))
            })?;
        }
        Ok(objects)
    }

    async fn review(
        &self,
        webhook: &ConversionWebhook,
        api_version: &str,
        objects: &[&Value],
    ) -> Result<Vec<Value>, String> {
        let uid = self.environment.random.uuid();
        let api = format!("apiextensions.k8s.io/{}", webhook.review);
        let body = json!({
            "kind": "ConversionReview", "apiVersion": api,
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let call = Json { endpoint: &webhook.endpoint, body: &body, timeout: Some(TIMEOUT) };
        let answer = send_json(&*self.outbound, &*self.environment.clock, call).await?;
        converted(answer, &uid, (webhook.review == "v1").then_some(api.as_str()))
    }
}

/// The objects of an answer. That of a review of version 1 has to say what it answers.
fn converted(mut answer: Value, uid: &str, strictly: Option<&str>) -> Result<Vec<Value>, String> {
    if let Some(api) = strictly
        && (text(&answer, "apiVersion") != api || text(&answer, "kind") != "ConversionReview")
    {
        let expected = format!("{api}, Kind=ConversionReview");
        let found = described(&answer);
        return Err(format!("expected webhook response of {expected}, got {found}"));
    }
    let mut response = answer["response"].take();
    if response.is_null() {
        return Err("no response provided".into());
    }
    let found = text(&response, "uid");
    if strictly.is_some() && found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let result = &response["result"];
    let status = text(result, "status");
    if status != "Success" {
        return Err(match text(result, "message") {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Checks that a converted object is still the one it was.
fn check(old: &Value, new: &Value, api_version: &str) -> Result<(), String> {
    let found = text(new, "apiVersion");
    if found != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {found})"));
    }
    let (kind, found) = (text(old, "kind"), text(new, "kind"));
    if found != kind {
        return Err(format!("invalid kind (expected {kind}, received {found})"));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (text(&old["metadata"], field), text(&new["metadata"], field));
        if before != after {
            return Err(format!("must have the same {name}: {before} != {after}"));
        }
    }
    Ok(())
}

/// The converted object with the metadata that it had; labels and annotations may have changed.
fn restored(old: &Value, mut new: Value) -> Result<Value, String> {
    let Some(said) = new.get("metadata") else {
        return Err("missing metadata in converted object".into());
    };
    let Some(said) = said.as_object().cloned() else {
        return Err("invalid metadata in converted object".into());
    };
    let mut meta = old["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match said.get(field) {
            None | Some(Value::Null) => {
                meta.remove(field);
            }
            Some(Value::Object(entries)) => {
                check_texts(field, entries)?;
                if meta.get(field).and_then(Value::as_object) != Some(entries) {
                    check_entries(field, &new["metadata"])?;
                }
                meta.insert(field.into(), Value::Object(entries.clone()));
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    new["metadata"] = Value::Object(meta);
    Ok(new)
}

fn check_texts(field: &str, entries: &Map<String, Value>) -> Result<(), String> {
    match entries.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => {
            Err(format!("metadata.{field}[{key}] must be a string in converted object"))
        }
        None => Ok(()),
    }
}

fn check_entries(field: &str, meta: &Value) -> Result<(), String> {
    let (meta, mut errors) = (Field::new(meta, "metadata"), Vec::new());
    if field == "labels" {
        metadata::labels(&meta, field, &mut errors);
    } else {
        metadata::annotations(&meta, field, &mut errors);
    }
    match errors.first() {
        Some(error) => Err(error.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_as_upstream_does() {
        let check = |answer: Value, expected: Result<usize, &str>| {
            let found = converted(answer, "u", Some("apiextensions.k8s.io/v1"));
            let found = found.map(|objects| objects.len());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        let answer = |response: Value| {
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": response,
            })
        };
        check(
            json!({"apiVersion": "a/v1", "kind": "B"}),
            Err(
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got a/v1, Kind=B",
            ),
        );
        check(answer(Value::Null), Err("no response provided"));
        check(answer(json!({"uid": "x"})), Err("expected response.uid=\"u\", got \"x\""));
        let failed = json!({"uid": "u", "result": {"status": "Failure"}});
        check(answer(failed), Err("response.result.status was 'Failure', not 'Success'"));
        let failed = json!({"uid": "u", "result": {"status": "Failure", "message": "no"}});
        check(answer(failed), Err("no"));
        let done =
            json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}, {}]});
        check(answer(done), Ok(2));
    }

    #[test]
    fn a_converted_object_keeps_its_metadata() {
        let object = |meta: Value| json!({"apiVersion": "a/v2", "kind": "B", "metadata": meta});
        let old = json!({"apiVersion": "a/v1", "kind": "B",
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"}}});
        let new = object(json!({"name": "n", "uid": "u", "annotations": {"x": "y"}}));
        assert_eq!(check(&old, &new, "a/v2"), Ok(()));
        assert_eq!(
            restored(&old, new).unwrap()["metadata"],
            json!({"name": "n", "uid": "u", "resourceVersion": "5", "annotations": {"x": "y"}})
        );
        let renamed = object(json!({"name": "m", "uid": "u"}));
        assert_eq!(check(&old, &renamed, "a/v2").unwrap_err(), "must have the same name: n != m");
        assert_eq!(
            check(&old, &old, "a/v2").unwrap_err(),
            "invalid groupVersion (expected a/v2, received a/v1)"
        );
        let labelled = object(json!({"name": "n", "uid": "u", "labels": {"a": "b c"}}));
        assert!(
            restored(&old, labelled).unwrap_err().starts_with("metadata.labels: Invalid value")
        );
    }
}
