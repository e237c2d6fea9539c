//! The way of a request to the server behind this one.
//!
//! Source: `k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go`,
//! `k8s.io/client-go/transport/round_trippers.go`, `SetAuthProxyHeaders`.

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use http_body_util::{BodyExt as _, Empty, Full};
use orch_core::ApiError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Remote;
use crate::{
    auth::{Attributes, UserInfo},
    connect::BoxBody,
    http::{Exchange, Found, Route},
    proxy::{is_upgrade, join_upgraded, strip_hop_by_hop, strip_identity},
    registry::method_not_allowed,
    serve::ShutdownSignal,
};

/// What may stand in the name of a header as it is; other bytes are percent-encoded.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
const REMOTE: [&str; 3] = ["x-remote-user", "x-remote-uid", "x-remote-group"];
const REMOTE_EXTRA: &str = "x-remote-extra-";

/// Tells the other server who asks. Whatever the client said about that is taken out.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let said: Vec<HeaderName> = headers
        .keys()
        .filter(|name| REMOTE.contains(&name.as_str()) || name.as_str().starts_with(REMOTE_EXTRA))
        .cloned()
        .collect();
    said.iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if let Some(uid) = &user.uid {
        add("x-remote-uid", uid);
    }
    user.groups.iter().for_each(|group| add("x-remote-group", group));
    for (key, values) in &user.extra {
        let name = format!("{REMOTE_EXTRA}{}", utf8_percent_encode(key, TOKEN));
        values.iter().for_each(|value| add(&name, value));
    }
}

/// An error as upstream's aggregator gives it: bare text.
fn plain(code: StatusCode, text: &str) -> Response<BoxBody> {
    let body = Full::new(Bytes::from(format!("{text}\n")));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a request asks to do, as the authorizers judge it.
fn attributes(exchange: &Exchange, route: Route) -> Result<Attributes, ApiError> {
    let (parts, user) = (&exchange.parts, exchange.caller.user.clone());
    let path = parts.uri.path().to_owned();
    let Route::Resource(found) = route else {
        let verb = parts.method.as_str().to_ascii_lowercase();
        return Ok(Attributes { user, verb, path, ..Attributes::default() });
    };
    let verb = verb(&parts.method, &parts.uri, &found)?;
    let text = |field: Option<String>| field.unwrap_or_default();
    Ok(Attributes {
        user,
        verb: verb.to_owned(),
        path,
        group: found.group,
        version: found.version,
        resource: found.plural,
        subresource: text(found.subresource),
        namespace: text(found.namespace),
        name: text(found.name),
    })
}

fn verb(method: &Method, uri: &Uri, found: &Found) -> Result<&'static str, ApiError> {
    let query = uri.query().unwrap_or_default();
    let watches = found.watch
        || form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "watch" && value != "0" && value != "false");
    Ok(match (method, found.name.is_some()) {
        (&Method::GET | &Method::HEAD, true) => "get",
        (&Method::GET | &Method::HEAD, false) if watches => "watch",
        (&Method::GET | &Method::HEAD, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err(method_not_allowed()),
    })
}

/// Authorizes a request, and lets the other server answer it.
///
/// Boxed, because the compiler cannot prove the bare future `Send` for every lifetime.
pub(crate) fn serve(
    exchange: Exchange,
    remote: std::sync::Arc<Remote>,
    route: Route,
) -> BoxFuture<'static, Result<Response<BoxBody>, ApiError>> {
    async move {
        let attributes = attributes(&exchange, route)?;
        exchange.server.authorize_attributes(&attributes).await?;
        if !remote.available {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
        }
        Ok(forward(exchange, &remote).await)
    }
    .boxed()
}

async fn forward(exchange: Exchange, remote: &Remote) -> Response<BoxBody> {
    let Exchange { server, caller, mut parts, body } = exchange;
    let upgrades = is_upgrade(&parts.headers);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("https://{}{path}", remote.endpoint.authority()).parse() else {
        return plain(StatusCode::BAD_REQUEST, "invalid path");
    };
    parts.uri = uri;
    parts.version = Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers, upgrades);
    strip_identity(&mut parts.headers);
    parts.headers.remove(header::HOST);
    identify(&mut parts.headers, &caller.user);
    let shutdown = parts.extensions.get::<ShutdownSignal>().map(|signal| signal.0.clone());
    let mut request = Request::from_parts(parts, body.into_inner());
    let client_side = upgrades.then(|| hyper::upgrade::on(&mut request));
    let mut response = match server.outbound.send(&remote.endpoint, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(name = %remote.name, %error, "an aggregated API server failed");
            server.aggregated.changed.notify_waiters();
            return plain(StatusCode::SERVICE_UNAVAILABLE, &unavailable(&error));
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let other_side = hyper::upgrade::on(&mut response);
        join_upgraded(client_side, other_side, shutdown.unwrap_or_default());
        return response.map(|_| Empty::new().map_err(|never| match never {}).boxed_unsync());
    }
    strip_hop_by_hop(response.headers_mut(), false);
    response
}

/// Who cannot be found is unavailable; other failures say what they are.
fn unavailable(error: &crate::outbound::OutboundError) -> String {
    match error {
        crate::outbound::OutboundError::Unresolved(_) => "service unavailable".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_and_nobody_says_so_themselves() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-a", HeaderValue::from_static("b"));
        let mut user = UserInfo::authenticated("ann", &["dev"]);
        user.extra.insert("example.com/some key".into(), vec!["x".into(), "y".into()]);
        identify(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "ann");
        let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["dev", "system:authenticated"]);
        let extra: Vec<_> =
            headers.get_all("x-remote-extra-example.com%2fsome%20key").iter().collect();
        assert_eq!(extra, ["x", "y"]);
        assert!(!headers.contains_key("x-remote-extra-a"));
    }
}
