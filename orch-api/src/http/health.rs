//! The health endpoints.
//!
//! Source: `k8s.io/apiserver/pkg/server/healthz/healthz.go`.

use std::fmt::Write as _;

use http::{HeaderValue, Response, StatusCode, header};
use orch_core::ApiError;

use super::{Exchange, options::Query, respond};
use crate::{connect::BoxBody, health::Endpoint, serve::Draining};

/// Answers an endpoint, or one check of it.
///
/// # Errors
/// `NotFound` for a check that there is not.
pub(super) async fn serve(
    exchange: &Exchange,
    endpoint: Endpoint,
    check: &str,
) -> Result<Response<BoxBody>, ApiError> {
    let server = &exchange.server;
    let draining = exchange.parts.extensions.get::<Draining>().map(|draining| draining.0.clone());
    let checks = server.health.of(endpoint, &server.store, draining);
    if check.is_empty() {
        return Ok(all(exchange, endpoint, &checks).await);
    }
    let asked = checks.iter().find(|one| one.name() == check);
    Ok(match asked.ok_or_else(ApiError::no_such_path)?.check().await {
        Ok(()) => text(StatusCode::OK, "ok".into()),
        Err(why) => failed(format!("internal server error: {why}\n")),
    })
}

async fn all(
    exchange: &Exchange,
    endpoint: Endpoint,
    checks: &[std::sync::Arc<dyn crate::health::HealthCheck>],
) -> Response<BoxBody> {
    let query = Query::of(&exchange.parts.uri);
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    excluded.sort_unstable();
    excluded.dedup();
    let (mut told, mut wrong) = (String::new(), Vec::new());
    for check in checks {
        let name = check.name();
        if let Some(at) = excluded.iter().position(|excluded| *excluded == name) {
            excluded.remove(at);
            let _ = writeln!(told, "[+]{name} excluded: ok");
        } else if let Err(why) = check.check().await {
            // The endpoint is public: what is wrong is for the log.
            let _ = writeln!(told, "[-]{name} failed: reason withheld");
            wrong.push(format!("{name}: {why}"));
        } else {
            let _ = writeln!(told, "[+]{name} ok");
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        let _ =
            writeln!(told, "warn: some health checks cannot be excluded: no matches for {names}");
    }
    let name = endpoint.name();
    if !wrong.is_empty() {
        tracing::info!(wrong = wrong.join("; "), "{name} check failed");
        return failed(format!("{told}{name} check failed\n"));
    }
    let body = if query.get("verbose").is_some() {
        format!("{told}{name} check passed\n")
    } else {
        "ok".to_owned()
    };
    text(StatusCode::OK, body)
}

fn failed(body: String) -> Response<BoxBody> {
    text(StatusCode::INTERNAL_SERVER_ERROR, body)
}

fn text(code: StatusCode, body: String) -> Response<BoxBody> {
    let mut response = respond::bytes(code, "text/plain; charset=utf-8", body);
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
