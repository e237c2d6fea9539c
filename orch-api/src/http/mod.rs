//! The server as a tower `Service` from HTTP requests to HTTP responses.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use orch_core::{ApiError, status::Reason};
use parking_lot::Mutex;

mod accept;
mod deadline;
mod documents;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod health;
mod observe;
mod options;
mod read_body;
pub(crate) mod request_info;
mod resources;
mod respond;
mod route;
mod serialize;
mod table;
mod watch;

pub(crate) use frames::Frames;

use crate::{
    admission::Notes,
    aggregation,
    auth::{
        AlwaysAllow, Attributes, Authorizers, GROUP_AUTHENTICATED, UserInfo,
        impersonation::{impersonated, impersonates},
    },
    connect::BoxBody,
    registry::Caller,
    server::{ApiServer, Inner},
};
use observe::Observed;
use options::Query;
use request_info::RequestInfo;
pub(crate) use route::{Found, Route};

impl<B> tower::Service<Request<B>> for ApiServer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<BoxBody>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        answer(inner, request).map(Ok).boxed()
    }
}

async fn answer(server: Arc<Inner>, request: Request<BoxBody>) -> Response<BoxBody> {
    let wanted = Wanted::of(&request);
    let head = request.method() == Method::HEAD;
    let route = route::of(request.uri().path());
    let query = Query::of(request.uri());
    let max = server.options.request_timeout;
    let notes = Notes::default();
    let limit = deadline::of(route.as_ref().ok(), request.method(), &query, max);
    let (parts, body) = request.into_parts();
    let info = server.metrics.as_ref().map(|_| RequestInfo::of(&parts, route.as_ref().ok()));
    let observed = server.metrics.as_ref().zip(info.as_ref());
    let observed = observed.map(|(metrics, info)| Observed::begin(metrics, info));
    let request = Request::from_parts(parts, body);
    let answer = match limit {
        Ok(limit) => {
            let work = AssertUnwindSafe(serve(server.clone(), request, route, notes.clone()))
                .catch_unwind();
            match deadline::within(&*server.environment.clock, limit, work.boxed()).await {
                Some(Ok(answer)) => answer,
                Some(Err(_)) => Err(ApiError::internal("the handler of this request panicked")),
                None => Err(deadline::exceeded()),
            }
        }
        Err(error) => Err(error),
    };
    let mut answer = answer.unwrap_or_else(|error| wanted.error(&server, &error));
    respond::warn(&mut answer, &notes.take_warnings());
    let annotations = notes.annotations();
    if !annotations.0.is_empty() {
        answer.extensions_mut().insert(annotations);
    }
    let answer = match observed.zip(info) {
        Some((observed, info)) => observed.end(&server, &info, answer),
        None => answer,
    };
    if head { answer.map(|_| respond::empty()) } else { answer }
}

/// What is kept of a request in case that it fails: how the error is to be told.
struct Wanted {
    headers: [(header::HeaderName, Option<HeaderValue>); 2],
    uri: Uri,
}

impl Wanted {
    fn of(request: &Request<BoxBody>) -> Self {
        let header = |name: header::HeaderName| {
            let value = request.headers().get(&name).cloned();
            (name, value)
        };
        let headers = [header(header::ACCEPT), header(header::USER_AGENT)];
        Self { headers, uri: request.uri().clone() }
    }

    fn error(self, server: &Inner, error: &ApiError) -> Response<BoxBody> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.extend(value.map(|value| (name, value)));
        }
        serialize::error(&headers, &Query::of(&self.uri), server.options.cbor, error)
    }
}

/// A request on its way through the handlers.
pub(crate) struct Exchange {
    pub(crate) server: Arc<Inner>,
    pub(crate) caller: Caller,
    pub(crate) parts: Parts,
    /// Behind a lock only because a body is not `Sync`; nobody shares it.
    pub(crate) body: Mutex<BoxBody>,
}

async fn serve(
    server: Arc<Inner>,
    request: Request<BoxBody>,
    route: Result<Route, ApiError>,
    notes: Notes,
) -> Result<Response<BoxBody>, ApiError> {
    let (parts, body) = request.into_parts();
    let user = Arc::new(authenticate(&server, &parts).await?);
    let user = impersonate(&server, &parts, user).await?;
    let manager = manager_of(&parts);
    let mut caller = Caller::new(user, manager);
    caller.notes = notes;
    let exchange = Exchange { server, caller, parts, body: Mutex::new(body) };
    let remote = exchange.server.remote_of(exchange.parts.uri.path()).await?;
    match (route?, remote) {
        (route, Some(remote)) => aggregation::serve(exchange, remote, route).await,
        (Route::Resource(found), None) => resources::serve(exchange, found).await,
        (Route::Path, None) => paths(exchange).await,
    }
}

/// The field manager of somebody who names none: the program, as its user agent begins.
fn manager_of(parts: &Parts) -> String {
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let name = agent.and_then(|agent| agent.split('/').next()).unwrap_or_default();
    if name.is_empty() { "unknown".into() } else { name.chars().take(128).collect() }
}

/// Boxed, because the compiler cannot prove the bare future `Send` for every lifetime.
fn authenticate<'a>(
    server: &'a Inner,
    parts: &'a Parts,
) -> BoxFuture<'a, Result<UserInfo, ApiError>> {
    identify(server, parts).boxed()
}

async fn identify(server: &Inner, parts: &Parts) -> Result<UserInfo, ApiError> {
    if let Some(user) = parts.extensions.get::<UserInfo>() {
        return Ok(user.clone());
    }
    if server.authenticators.is_empty() {
        return Ok(UserInfo::master("system:admin"));
    }
    for authenticator in &server.authenticators {
        if let Some(mut user) = authenticator.authenticate(parts).await? {
            if !user.in_group(GROUP_AUTHENTICATED) && user.name != "system:anonymous" {
                user.groups.push(GROUP_AUTHENTICATED.into());
            }
            return Ok(user);
        }
    }
    Err(ApiError::new(Reason::Unauthorized, "Unauthorized"))
}

/// Whom the caller acts as: themselves, unless they ask to act as somebody else and may.
fn impersonate<'a>(
    server: &'a Inner,
    parts: &'a Parts,
    user: Arc<UserInfo>,
) -> BoxFuture<'a, Result<Arc<UserInfo>, ApiError>> {
    async move {
        if !impersonates(&parts.headers) {
            return Ok(user);
        }
        let mut authorizers = server.authorizers.clone();
        if authorizers.is_empty() {
            authorizers.push(Arc::new(AlwaysAllow));
        }
        let authorizers = Authorizers(authorizers);
        let other = impersonated(&parts.headers, &user, &authorizers).await?;
        Ok(other.map_or(user, Arc::new))
    }
    .boxed()
}

async fn paths(exchange: Exchange) -> Result<Response<BoxBody>, ApiError> {
    let path = exchange.parts.uri.path().to_owned();
    let attributes = Attributes {
        user: exchange.caller.user.clone(),
        verb: exchange.parts.method.as_str().to_ascii_lowercase(),
        path: path.clone(),
        ..Attributes::default()
    };
    exchange.server.authorize_attributes(&attributes).await?;
    documents::serve(&exchange, &path).await
}
