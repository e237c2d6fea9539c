//! What must not stand in a recording.

use http::Request;
use orch_api::RequestInfo;
use serde_json::{Map, Value};

use super::line::Content;

/// What stands in a Secret's `data` instead: legal there, and it says what it is.
const HIDDEN_DATA: &str = "cmVkYWN0ZWQ=";
/// What stands elsewhere instead.
const HIDDEN: &str = "redacted";
/// Where `kubectl` keeps a copy of everything.
const COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether a path leads to Secrets.
fn leads_to_secrets(path: &str) -> bool {
    let Ok(request) = Request::get(path).body(()) else { return false };
    let info = RequestInfo::read(&request.into_parts().0);
    info.is_resource && info.group.is_empty() && info.resource == "secrets"
}

/// The content with everything replaced that must not be written down: tokens always, and the data
/// of Secrets if `data` says so.
pub(super) fn hide(path: &str, content: Content, data: bool) -> Content {
    let in_secrets = data && leads_to_secrets(path);
    match content {
        Content::Json(mut value) => {
            match &mut value {
                Value::Array(operations) if in_secrets => {
                    operations.iter_mut().for_each(hide_operation);
                }
                value => hide_in(value, data, in_secrets),
            }
            Content::Json(value)
        }
        Content::Empty => Content::Empty,
        // Nobody can tell where in it the data is, or whether a token is in it.
        _ if in_secrets || path.ends_with("/token") || path.ends_with("/tokenreviews") => {
            Content::LeftOut("secrets that are not JSON are not recorded".to_owned())
        }
        content => content,
    }
}

/// Goes through an object, a list, an event of a watch, a table.
fn hide_in(value: &mut Value, data: bool, in_secrets: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide_in(item, data, in_secrets)),
        Value::Object(fields) => {
            let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default();
            let in_secrets = in_secrets || data && kind == "Secret";
            match kind {
                "TokenRequest" => hide_token(fields, "status"),
                "TokenReview" => hide_token(fields, "spec"),
                _ => {}
            }
            for (name, field) in fields {
                match &**name {
                    "data" | "stringData" if in_secrets => hide_values(name == "data", field),
                    COPY if in_secrets => *field = HIDDEN.into(),
                    _ => hide_in(field, data, in_secrets),
                }
            }
        }
        _ => {}
    }
}

fn hide_token(fields: &mut Map<String, Value>, part: &str) {
    if let Some(token) = fields.get_mut(part).and_then(|part| part.get_mut("token")) {
        *token = HIDDEN.into();
    }
}

/// Replaces every text, and keeps the names: that a key is there is no secret.
fn hide_values(encoded: bool, value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = (if encoded { HIDDEN_DATA } else { HIDDEN }).to_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide_values(encoded, item)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| hide_values(encoded, value));
        }
        _ => {}
    }
}

/// An operation of a JSON patch of a Secret. A value for a path is data, unless it surely is not.
fn hide_operation(operation: &mut Value) {
    let path = operation.get("path").and_then(Value::as_str).unwrap_or_default();
    let elsewhere = path.starts_with("/metadata/") && !path.contains("annotations");
    let (whole, encoded) = (path.is_empty(), path.starts_with("/data"));
    match operation.get_mut("value") {
        Some(object) if whole => hide_in(object, true, true),
        Some(value) if !elsewhere => hide_values(encoded, value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(path: &str, value: Value, expected: Value) {
        assert_eq!(hide(path, Content::Json(value), true), Content::Json(expected));
    }

    #[test]
    fn data_of_secrets_is_hidden_wherever_it_comes_from() {
        let (secret, hidden) = (
            |data: &str| json!({"data": {"key": data}, "metadata": {"name": "a"}}),
            json!({"data": {"key": HIDDEN_DATA}, "metadata": {"name": "a"}}),
        );
        let path = "/api/v1/namespaces/default/secrets";
        check(path, secret("cGFzcw=="), hidden.clone());
        check(path, json!({"items": [secret("YQ==")]}), json!({"items": [hidden]}));
        check(
            "/api/v1/secrets",
            json!({"type": "ADDED", "object": secret("YQ==")}),
            json!({"type": "ADDED", "object": hidden}),
        );
        check(
            path,
            json!({"stringData": {"key": "pass"}, "metadata": {"annotations": {COPY: "{pass}"}}}),
            json!({"stringData": {"key": HIDDEN}, "metadata": {"annotations": {COPY: HIDDEN}}}),
        );
        check(
            &format!("{path}/a"),
            json!([{"op": "add", "path": "/data/key", "value": "cGFzcw=="},
                {"op": "add", "path": "/metadata/labels/a", "value": "b"}]),
            json!([{"op": "add", "path": "/data/key", "value": HIDDEN_DATA},
                {"op": "add", "path": "/metadata/labels/a", "value": "b"}]),
        );
        let mixed = |secret| {
            json!({"items": [{"kind": "Secret", "data": {"a": secret}},
            {"kind": "ConfigMap", "data": {"a": "b"}}]})
        };
        check("/apis/example.com/v1/lists", mixed("YQ=="), mixed(HIDDEN_DATA));
        let yaml = hide(path, Content::Text("data: {key: cGFzcw==}".to_owned()), true);
        assert!(matches!(yaml, Content::LeftOut(_)));
    }

    #[test]
    fn everything_else_is_as_it_was() {
        let map = json!({"kind": "ConfigMap", "data": {"key": "value"}});
        check("/api/v1/namespaces/secrets/configmaps", map.clone(), map);
        let kept = Content::Json(json!({"data": {"key": "cGFzcw=="}}));
        assert_eq!(hide("/api/v1/secrets", kept.clone(), false), kept);
    }

    #[test]
    fn tokens_are_always_hidden() {
        for data in [true, false] {
            let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
            let request = |token: &str| json!({"kind": "TokenRequest", "status": {"token": token}});
            let hidden = hide(path, Content::Json(request("ey.a.b")), data);
            assert_eq!(hidden, Content::Json(request(HIDDEN)));
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            let review = |token: &str| json!({"kind": "TokenReview", "spec": {"token": token}});
            let hidden = hide(path, Content::Json(review("ey.a.b")), data);
            assert_eq!(hidden, Content::Json(review(HIDDEN)));
        }
    }
}
