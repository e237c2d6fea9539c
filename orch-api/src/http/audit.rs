//! Requests as the audit sees them.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/audit.go`, `audit_init.go`,
//! `k8s.io/apimachinery/pkg/util/net/http.go`.

use std::{io::Read as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;

use super::{observe::Kept, request_info::RequestInfo, respond};
use crate::{
    audit::{Audit, Received, Record, Stage},
    auth::UserInfo,
    connect::BoxBody,
    serve::PeerAddress,
    server::Inner,
};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest id that is taken from a client.
const AUDIT_ID_MAX: usize = 64;
/// A body up to this size is looked at for a `Status`.
const STATUS_BYTES_MAX: u64 = 16 << 10;

/// Begins the record of a request, if the server has an audit that wants to know of it.
pub(super) fn begin(
    server: &Inner,
    audit: &Audit,
    parts: &Parts,
    info: &RequestInfo,
    user: &UserInfo,
) -> Option<Arc<Record>> {
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(&AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_MAX);
    let received = Received {
        audit_id: own.map_or_else(|| server.environment.random.uuid(), str::to_owned),
        uri: parts.uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string),
        source_ips: source_ips(parts),
        user_agent: text(&header::USER_AGENT).unwrap_or_default().chars().take(1024).collect(),
        info,
    };
    Record::begin(audit, &server.environment, received, user).map(Arc::new)
}

/// Ends the record of somebody who could not be believed.
pub(super) async fn not_authenticated(
    record: &Record,
    response: Response<BoxBody>,
) -> Response<BoxBody> {
    let error = respond::status_json(&crate::auth::unauthorized());
    record.answered(response.status().as_u16(), Some(error));
    record.reach(Stage::ResponseStarted).await;
    marked(record, response)
}

/// Ends the record with the answer; of long-running requests when the answer ends.
pub(super) async fn finish(
    record: Arc<Record>,
    info: &RequestInfo,
    response: Response<BoxBody>,
) -> Response<BoxBody> {
    let response = marked(&record, response);
    let code = response.status().as_u16();
    let starts = info.is_long_running();
    if starts && code < 400 {
        record.answered(code, None);
        record.reach(Stage::ResponseStarted).await;
        let until = Completes(Some(record));
        return response.map(|body| Kept { body, _until: until }.boxed_unsync());
    }
    let small = http_body::Body::size_hint(response.body()).upper();
    let looks = record.wants_answer() || small.is_some_and(|bytes| bytes <= STATUS_BYTES_MAX);
    if !looks {
        record.answered(code, None);
        record.reach(Stage::ResponseComplete).await;
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let value = value_of(&parts.headers, &bytes);
    record.answered(code, value);
    if starts {
        record.reach(Stage::ResponseStarted).await;
    }
    record.reach(Stage::ResponseComplete).await;
    Response::from_parts(parts, respond::full(bytes))
}

fn marked(record: &Record, mut response: Response<BoxBody>) -> Response<BoxBody> {
    if let Ok(id) = HeaderValue::from_str(&record.audit_id()) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response
}

/// The object in the body of an answer.
fn value_of(headers: &HeaderMap, bytes: &Bytes) -> Option<Value> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut inflated = Vec::new();
    let bytes = if text(header::CONTENT_ENCODING) == "gzip" {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut inflated).ok()?;
        inflated.as_slice()
    } else {
        bytes
    };
    match text(header::CONTENT_TYPE).split(';').next().unwrap_or_default() {
        "application/json" => serde_json::from_slice(bytes).ok(),
        "application/yaml" => serde_saphyr::from_slice(bytes).ok(),
        orch_core::protobuf::CONTENT_TYPE => orch_core::protobuf::decode(bytes).ok(),
        _ => None,
    }
}

/// What proxies say of where a request came from, and where the connection came from.
fn source_ips(parts: &Parts) -> Vec<String> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let valid = |text: &str| text.trim().parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string());
    let forwarded = text("x-forwarded-for").unwrap_or_default();
    let mut all: Vec<String> = forwarded.split(',').filter_map(valid).collect();
    if let Some(real) = text("x-real-ip").and_then(valid)
        && !all.contains(&real)
    {
        all.push(real);
    }
    let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip().to_string());
    if let Some(peer) = peer
        && all.last() != Some(&peer)
    {
        all.push(peer);
    }
    all
}

/// Ends the record of a long-running request when its body is dropped.
struct Completes(Option<Arc<Record>>);

impl Drop for Completes {
    fn drop(&mut self) {
        // Outside of a runtime everything ends, this too.
        if let (Some(record), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { record.reach(Stage::ResponseComplete).await });
        }
    }
}
