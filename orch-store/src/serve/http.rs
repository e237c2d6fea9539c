//! etcd's plain HTTP paths, for probes and load balancers.
//!
//! Source: `server/etcdserver/api/etcdhttp`.

use ::http::{
    Method, Response, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::Full;
use tonic::body::Body;

use super::shared::Shared;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to a request that is not gRPC.
pub(super) async fn answer(shared: &Shared, method: &Method, uri: &Uri) -> Response<Body> {
    let known = ["/health", "/version", "/livez", "/readyz"].contains(&uri.path());
    if known && method != Method::GET {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
        refused.headers_mut().insert(ALLOW, const { ::http::HeaderValue::from_static("GET") });
        return refused;
    }
    match uri.path() {
        "/version" => respond(StatusCode::OK, JSON, versions(&shared.options.version)),
        "/health" => match shared.revision().await {
            Ok(_) => respond(StatusCode::OK, JSON, r#"{"health":"true","reason":""}"#),
            Err(status) => {
                let message = status.message().escape_default();
                let body = format!(r#"{{"health":"false","reason":"RANGE ERROR:{message}"}}"#);
                respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
            }
        },
        "/livez" | "/readyz" => match shared.revision().await {
            Ok(_) => respond(StatusCode::OK, TEXT, "ok\n"),
            Err(status) => {
                let body = format!("[-]serializable_read failed: {}\n", status.message());
                respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, body)
            }
        },
        _ => respond(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    }
}

fn versions(version: &str) -> String {
    // The cluster's version is the server's without its patch.
    let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    let storage = super::image::STORAGE_VERSION;
    format!(r#"{{"etcdserver":"{version}","etcdcluster":"{minor}.0","storage":"{storage}"}}"#)
}

fn respond(code: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = code;
    let content = ::http::HeaderValue::from_static(content);
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}
