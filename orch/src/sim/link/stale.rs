//! Lists that are told as they were, to those who accept that.

use bytes::Bytes;
use http::{Request, Response, Uri, request::Parts};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;

/// Whether a list is asked for at any revision: the server may answer with what its cache has.
///
/// Source: `resourceVersion="0"` in the API concepts, which informers of client-go begin with, and
/// kube's watchers with `any_semantic`.
pub(super) fn accepts_any(parts: &Parts) -> bool {
    let mut pairs = parts.uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair == "resourceVersion=0")
}

/// The same list as it was so many revisions ago; `None` if that is not to be had.
pub(super) async fn list(
    client: &kube::Client,
    parts: &Parts,
    behind: u64,
) -> Option<Response<Body>> {
    let newest = newest(client, parts).await?;
    let revision = newest.checked_sub(behind).filter(|revision| *revision > 0)?;
    let version = format!("resourceVersion={revision}&resourceVersionMatch=Exact");
    let answer = client.send(at(parts, &version)?).await.ok()?;
    // The revision may have been forgotten: then there is nothing older to tell.
    answer.status().is_success().then_some(answer)
}

async fn newest(client: &kube::Client, parts: &Parts) -> Option<u64> {
    let answer = client.send(at(parts, "limit=1")?).await.ok()?;
    let body: Bytes = answer.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice::<Listed>(&body).ok()?.metadata.resource_version.parse().ok()
}

/// The request with another version, and with nothing else that speaks of versions or pages.
fn at(parts: &Parts, version: &str) -> Option<Request<Body>> {
    const REPLACED: [&str; 4] = ["resourceVersion", "resourceVersionMatch", "limit", "continue"];
    let stays = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !REPLACED.contains(&name)
    };
    let query = parts.uri.query().unwrap_or_default().split('&').filter(stays);
    let query: Vec<&str> = query.chain([version]).collect();
    let uri: Uri = format!("{}?{}", parts.uri.path(), query.join("&")).parse().ok()?;
    let mut request = Request::builder().method(parts.method.clone()).uri(uri);
    *request.headers_mut()? = parts.headers.clone();
    request.body(Body::empty()).ok()
}

/// What is read of a list.
#[derive(Deserialize)]
struct Listed {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}
