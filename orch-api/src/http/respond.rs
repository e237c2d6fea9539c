//! Responses.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use orch_core::{ApiError, status::Reason};
use serde_json::Value;

use crate::connect::BoxBody;

pub(super) const JSON: &str = "application/json";

pub(super) fn empty() -> BoxBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn bytes(
    code: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<BoxBody> {
    let body: Bytes = body.into();
    let length = body.len();
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    describe(&mut response, media_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Says what the body is, and that it is nobody else's.
pub(super) fn describe(response: &mut Response<BoxBody>, media_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
}

/// Says that the body is compressed.
pub(super) fn gzipped(response: &mut Response<BoxBody>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

pub(super) fn json(value: &Value) -> Response<BoxBody> {
    bytes(StatusCode::OK, JSON, value.to_string())
}

/// The `Status` of an error as JSON.
pub(crate) fn status_json(error: &ApiError) -> Value {
    let mut value = serde_json::to_value(error.status()).unwrap_or_default();
    value["kind"] = "Status".into();
    value["apiVersion"] = "v1".into();
    value
}

/// The response of an error, whose `Status` has been encoded.
pub(super) fn error(error: &ApiError, media_type: &'static str, body: Bytes) -> Response<BoxBody> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if error.reason() == Reason::InternalError {
        tracing::warn!(%error, "a request failed");
    }
    let mut response = bytes(code, media_type, body);
    let after = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers.
///
/// Source: RFC 7234, and `k8s.io/apiserver/pkg/endpoints/filters/warning.go`.
pub(super) fn warn(response: &mut Response<BoxBody>, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
