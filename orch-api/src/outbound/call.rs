//! One JSON document there, and one back, within a time.
//!
//! Source: `k8s.io/client-go/rest/request.go`, `k8s.io/apimachinery/pkg/api/errors`,
//! `NewGenericServerResponse`.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use orch_core::clock::Clock;
use serde_json::Value;

use super::{Endpoint, Outbound, OutboundError};
use crate::connect::BoxBody;

/// Answers are not read beyond this.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Of an answer that is no JSON, an error shows so much.
const SHOWN_MAX: usize = 2048;

/// A call to be made.
pub(crate) struct Json<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) body: &'a Value,
    /// The other side is told of it, and no answer is waited for beyond it.
    pub(crate) timeout: Option<Duration>,
}

/// Posts a document and gives the one that was answered; the error is upstream's text.
///
/// Boxed, because the compiler cannot prove the bare future `Send` for every lifetime.
pub(crate) fn send_json<'a>(
    outbound: &'a dyn Outbound,
    clock: &'a dyn Clock,
    call: Json<'a>,
) -> BoxFuture<'a, Result<Value, String>> {
    post(outbound, clock, call).boxed()
}

async fn post(outbound: &dyn Outbound, clock: &dyn Clock, call: Json<'_>) -> Result<Value, String> {
    let mut url = call.endpoint.url();
    if let Some(timeout) = call.timeout {
        url.push_str(&format!("?timeout={}s", timeout.as_secs().max(1)));
    }
    let failed = |error: &dyn std::fmt::Display| format!("Post \"{url}\": {error}");
    let request = request(&url, call.body).map_err(|error| failed(&error))?;
    let answer = exchange(outbound, call.endpoint, request);
    let answered = match call.timeout {
        None => answer.await,
        Some(timeout) => tokio::select! {
            answered = answer => answered,
            () = clock.sleep(timeout) => Err(OutboundError::TimedOut),
        },
    };
    let (status, body) = answered.map_err(|error| failed(&error))?;
    if !status.is_success() {
        return Err(unexpected(status, &body));
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
}

fn request(url: &str, body: &Value) -> Result<Request<BoxBody>, http::Error> {
    let body = Full::new(Bytes::from(body.to_string()));
    let builder = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::ACCEPT, "application/json, */*")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission");
    builder.body(body.map_err(|never| match never {}).boxed_unsync())
}

async fn exchange(
    outbound: &dyn Outbound,
    endpoint: &Endpoint,
    request: Request<BoxBody>,
) -> Result<(StatusCode, Bytes), OutboundError> {
    let response = outbound.send(endpoint, request).await?;
    let (parts, body) = response.into_parts();
    Ok((parts.status, whole(body).await?))
}

fn whole(body: BoxBody) -> BoxFuture<'static, Result<Bytes, OutboundError>> {
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let read = read.map_err(|error| OutboundError::Broken(error.to_string()));
    read.map_ok(Collected::to_bytes).boxed()
}

/// What a status that is no success says.
fn unexpected(status: StatusCode, body: &[u8]) -> String {
    // A `Status` speaks for itself.
    if let Ok(said) = serde_json::from_slice::<Value>(body)
        && said["kind"] == "Status"
        && let Some(message) = said["message"].as_str().filter(|message| !message.is_empty())
    {
        return message.to_owned();
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_MAX)]);
    let shown = if shown.trim().is_empty() { "unknown" } else { shown.trim() };
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => shown.to_owned(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        406 => "the server was unable to respond with a content type that the client supports".into(),
        409 => "the server reported a conflict".into(),
        415 => "the media type sent is not supported by the server".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({shown:?}) has prevented the request from succeeding"),
        other => format!("the server responded with the status code {other} but did not return more information"),
    }
}
