//! The server as a tower `Service` from HTTP requests to HTTP responses.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use orch_core::{ApiError, status::Reason};
use parking_lot::Mutex;

mod accept;
mod audit;
mod documents;
mod flow;
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
mod table;
mod watch;

use crate::{
    audit::{Record, Stage},
    auth::{
        AlwaysAllow, Attributes, Authorizers, GROUP_AUTHENTICATED, UserInfo,
        impersonation::{impersonated, impersonates},
    },
    connect::BoxBody,
    registry::Caller,
    server::{ApiServer, Inner},
};
use observe::Observed;
use request_info::RequestInfo;
use route::Route;

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
        async move {
            let answer = AssertUnwindSafe(serve(inner, request)).catch_unwind().await;
            Ok(answer.unwrap_or_else(|_| {
                let error = ApiError::internal("the handler of this request panicked");
                respond::error(&error)
            }))
        }
        .boxed()
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

async fn serve(server: Arc<Inner>, request: Request<BoxBody>) -> Response<BoxBody> {
    let (parts, body) = request.into_parts();
    let route = route::of(parts.uri.path());
    let metrics = server.metrics.clone();
    if metrics.is_none() && server.audit.is_none() && server.flow.is_none() {
        return answer(server, parts, body, route, None).await;
    }
    let info = RequestInfo::of(&parts, route.as_ref().ok());
    let observed = metrics.map(|metrics| Observed::begin(&metrics, &info));
    let response = answer(server.clone(), parts, body, route, Some(&info)).await;
    match observed {
        Some(observed) => observed.end(&server, &info, response),
        None => response,
    }
}

/// Finds out who asks, and has the request answered. `info` is what it is about, where somebody
/// wants to know.
async fn answer(
    server: Arc<Inner>,
    parts: Parts,
    body: BoxBody,
    route: Result<Route, ApiError>,
    info: Option<&RequestInfo>,
) -> Response<BoxBody> {
    let user = match authenticate(&server, &parts).await {
        Ok(user) => Arc::new(user),
        Err(error) => {
            let response = respond::error(&error);
            let Some(info) = info else { return response };
            return audit::not_authenticated(&server, &parts, info, response).await;
        }
    };
    let audited = info.zip(server.audit.as_ref());
    let Some((info, record)) = audited
        .and_then(|(info, audit)| Some((info, audit::begin(&server, audit, &parts, info, &user)?)))
    else {
        return handle(server, parts, body, (route, info), user, None).await;
    };
    record.reach(Stage::RequestReceived).await;
    let handled = handle(server, parts, body, (route, Some(info)), user, Some(record.clone()));
    match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(response) => audit::finish(record, info, response).await,
        Err(panic) => {
            record.panicked();
            record.reach(Stage::Panic).await;
            std::panic::resume_unwind(panic)
        }
    }
}

/// Has the request of somebody who is known answered.
async fn handle(
    server: Arc<Inner>,
    parts: Parts,
    body: BoxBody,
    (route, info): (Result<Route, ApiError>, Option<&RequestInfo>),
    user: Arc<UserInfo>,
    record: Option<Arc<Record>>,
) -> Response<BoxBody> {
    let asker = user.clone();
    let user = match impersonate(&server, &parts, user).await {
        Ok(user) => user,
        Err(error) => return respond::error(&error),
    };
    if let Some(record) = record.as_ref().filter(|_| !Arc::ptr_eq(&asker, &user)) {
        record.impersonates(&user);
    }
    let admitted = match (info, &server.flow) {
        (Some(info), Some(control)) => {
            let query = options::Query::of(&parts.uri);
            match flow::admit(&server, control, info, &query, &user).await {
                Ok(admitted) => admitted,
                Err(response) => return response,
            }
        }
        _ => None,
    };
    let manager = manager_of(&parts);
    let mut caller = Caller::new(user, manager);
    caller.record = record;
    let head = parts.method == Method::HEAD;
    let exchange = Exchange { server, caller, parts, body: Mutex::new(body) };
    let answer = match route {
        Ok(Route::Resource(found)) => resources::serve(exchange, found).await,
        Ok(Route::Path) => paths(exchange).await,
        Err(error) => Err(error),
    };
    let mut answer = answer.unwrap_or_else(|error| respond::error(&error));
    if let Some(admitted) = admitted {
        admitted.mark(&mut answer);
    }
    if head { answer.map(|_| respond::empty()) } else { answer }
}

/// The field manager of somebody who names none: the program, as its user agent begins.
fn manager_of(parts: &Parts) -> String {
    let agent = parts.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
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
    exchange.server.authorize_attributes(&exchange.caller, &attributes).await?;
    documents::serve(&exchange, &path).await
}
