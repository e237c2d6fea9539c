//! Requests to a server.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use orch_api::ApiServer;
use tower::ServiceExt as _;

/// A request with headers; gives the code, the headers and the body as text.
pub(super) async fn call(
    server: &ApiServer,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, http::HeaderMap, String) {
    let (method, path) = request.split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::from(body.to_owned())).unwrap();
    let (parts, body) = server.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

/// The same without headers and body; gives the code and the body.
pub(super) async fn get(server: &ApiServer, path: &str) -> (u16, String) {
    let (code, _, body) = call(server, &format!("GET {path}"), &[], "").await;
    (code, body)
}
