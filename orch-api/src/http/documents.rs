//! What is no resource: discovery, version, health, metrics, OpenAPI.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use orch_core::{
    ApiError,
    metrics::{OPEN_METRICS, PLAIN},
};
use serde_json::{Value, json};

use super::{Exchange, accept, health, respond};
use crate::{
    catalog::{Catalog, Discovery},
    connect::BoxBody,
    health::Endpoint,
    openapi::OpenApi,
    registry::method_not_allowed,
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) async fn serve(exchange: &Exchange, path: &str) -> Result<Response<BoxBody>, ApiError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let Some(endpoint) = parts.first().copied().and_then(Endpoint::of) {
        return health::serve(exchange, endpoint, &parts[1..].join("/")).await;
    }
    if !matches!(exchange.parts.method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    match parts.as_slice() {
        ["api"] | ["apis"] if wants_aggregated(exchange) => {
            let catalog = exchange.server.newest_catalog().await?;
            let mut document = Discovery(&catalog).aggregated(parts == ["api"]);
            if parts == ["apis"] {
                exchange.server.add_remote_discovery(&mut document).await?;
            }
            Ok(respond::bytes(StatusCode::OK, AGGREGATED, document.to_string()))
        }
        ["openapi", ..] => openapi(exchange, path).await,
        ["metrics"] => metrics(exchange).await,
        _ => match document(exchange, &parts).await? {
            Some(value) => Ok(respond::json(&value)),
            None => added(exchange, path).ok_or_else(ApiError::no_such_path),
        },
    }
}

async fn document(exchange: &Exchange, parts: &[&str]) -> Result<Option<Value>, ApiError> {
    let catalog = match parts {
        [] | ["apis", ..] => exchange.server.newest_catalog().await?,
        _ => exchange.server.built_in.clone(),
    };
    let discovery = Discovery(&catalog);
    Ok(match parts {
        [] => Some(paths(&discovery)),
        ["api"] => Some(discovery.core_versions(&exchange.server.options.advertise)),
        ["apis"] => {
            let mut groups = discovery.groups();
            exchange.server.add_remote_groups(&mut groups).await?;
            Some(groups)
        }
        ["api", version] => discovery.resources("", version),
        ["apis", group] => exchange.server.add_remote_group(group, discovery.group(group)).await?,
        ["apis", group, version] => discovery.resources(group, version),
        ["version"] => Some(version(exchange)),
        _ => None,
    })
}

/// What the server was built to serve besides: what verifiers of its tokens read, now and then.
///
/// Source: `k8s.io/kubernetes/pkg/routes/openidmetadata.go`.
fn added(exchange: &Exchange, path: &str) -> Option<Response<BoxBody>> {
    let path = path.trim_end_matches('/');
    let found = exchange.server.documents.iter().find(|(at, _)| *at == path);
    let (at, document) = found?;
    let media_type = if at.ends_with("jwks") { "application/jwk-set+json" } else { respond::JSON };
    let mut response = respond::bytes(StatusCode::OK, media_type, document.to_string());
    let often = HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(header::CACHE_CONTROL, often);
    Some(response)
}

async fn openapi(exchange: &Exchange, path: &str) -> Result<Response<BoxBody>, ApiError> {
    let catalog = exchange.server.newest_catalog().await?;
    let documents = documents(exchange, &catalog);
    let headers = &exchange.parts.headers;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let found = documents.respond(path, text(header::ACCEPT)).ok_or_else(ApiError::no_such_path)?;
    let has_others = !exchange.server.remotes().await?.is_empty();
    if has_others && path.trim_end_matches('/') == "/openapi/v3" {
        let mut index = serde_json::from_slice(&found.body).map_err(ApiError::internal)?;
        exchange.server.add_remote_documents(&mut index).await?;
        return Ok(respond::json(&index));
    }
    let mut response = if text(header::IF_NONE_MATCH) == found.etag {
        respond::bytes(StatusCode::NOT_MODIFIED, found.content_type, "")
    } else {
        respond::bytes(StatusCode::OK, found.content_type, found.body.clone())
    };
    if let Ok(etag) = found.etag.parse() {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// The documents of what is served now, made anew when that has changed.
fn documents(exchange: &Exchange, catalog: &Arc<Catalog>) -> Arc<OpenApi> {
    let mut made = exchange.server.openapi.lock();
    match &*made {
        Some((of, documents)) if Arc::ptr_eq(of, catalog) => documents.clone(),
        _ => {
            let documents = Arc::new(OpenApi::new(catalog.endpoints()));
            *made = Some((catalog.clone(), documents.clone()));
            documents
        }
    }
}

fn wants_aggregated(exchange: &Exchange) -> bool {
    let ranges = accept::ranges(&exchange.parts.headers);
    let of =
        |range: &accept::Range<'_>, name: &str, value: &str| range.parameter(name) == Some(value);
    let first = ranges.into_iter().find(|range| {
        let json = matches!(range.media_type, "application/json" | "*/*");
        json && (range.parameter("as").is_none() || of(range, "v", "v2"))
    });
    first.is_some_and(|range| {
        of(&range, "as", "APIGroupDiscoveryList") && of(&range, "g", "apidiscovery.k8s.io")
    })
}

fn paths(discovery: &Discovery<'_>) -> Value {
    let mut paths: Vec<String> = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for group in discovery.groups()["groups"].as_array().into_iter().flatten() {
        paths.push(format!("/apis/{}", group["name"].as_str().unwrap_or_default()));
        for version in group["versions"].as_array().into_iter().flatten() {
            paths.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap_or_default()));
        }
    }
    paths.extend(["/healthz", "/livez", "/metrics", "/readyz", "/version"].map(str::to_owned));
    json!({"paths": paths})
}

fn version(exchange: &Exchange) -> Value {
    let git = &exchange.server.options.git_version;
    json!({
        "major": "1", "minor": "36", "gitVersion": git, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The metrics, if the server keeps any.
async fn metrics(exchange: &Exchange) -> Result<Response<BoxBody>, ApiError> {
    let server = &exchange.server;
    let metrics = server.metrics.as_ref().ok_or_else(ApiError::no_such_path)?;
    metrics.set_objects(server.count_objects().await?);
    let ranges = accept::ranges(&exchange.parts.headers);
    let open = ranges.iter().any(|range| range.media_type == "application/openmetrics-text");
    let media_type = if open { OPEN_METRICS } else { PLAIN };
    Ok(respond::bytes(StatusCode::OK, media_type, metrics.encode(open)))
}
