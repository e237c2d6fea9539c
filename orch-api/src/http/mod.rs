//! The server as a tower `Service` from HTTP requests to HTTP responses.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
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
mod audit;
mod deadline;
mod documents;
mod flow;
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
    let limit = deadline::of(route.as_ref().ok(), request.method(), &query, max);
    let (parts, body) = request.into_parts();
    let side = Arc::new(Side::of(&server, &parts, route.as_ref().ok()));
    let observed = server.metrics.as_ref().zip(side.info.as_ref());
    let observed = observed.map(|(metrics, info)| Observed::begin(metrics, info));
    let request = Request::from_parts(parts, body);
    let answer = match limit {
        Ok(limit) => {
            let work = AssertUnwindSafe(serve(server.clone(), request, route, side.clone()))
                .catch_unwind();
            match deadline::within(&*server.environment.clock, limit, work.boxed()).await {
                Some(Ok(answer)) => answer,
                Some(Err(_)) => Err(side.panicked().await),
                None => Err(deadline::exceeded()),
            }
        }
        Err(error) => Err(error),
    };
    let answer = answer.unwrap_or_else(|error| wanted.error(&server, &error));
    let answer = side.tell(answer).await;
    let answer = match observed.zip(side.info.as_ref()) {
        Some((observed, info)) => observed.end(&server, info, answer),
        None => answer,
    };
    if head { answer.map(|_| respond::empty()) } else { answer }
}

/// What goes on beside the answer to a request: who watches, waits and writes down.
struct Side {
    /// What the request is about, where somebody wants to know.
    info: Option<RequestInfo>,
    notes: Notes,
    record: OnceLock<Arc<Record>>,
    /// Nobody knows who asked.
    refused: AtomicBool,
    /// The audit has its last word already.
    ended: AtomicBool,
    /// The seats that the request takes as long as it is worked on.
    admitted: OnceLock<flow::Admitted>,
}

impl Side {
    fn of(server: &Inner, parts: &Parts, route: Option<&Route>) -> Self {
        let wanted = server.metrics.is_some() || server.audit.is_some() || server.flow.is_some();
        Self {
            info: wanted.then(|| RequestInfo::of(parts, route)),
            notes: Notes::default(),
            record: OnceLock::new(),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            admitted: OnceLock::new(),
        }
    }

    fn begin_record(&self, server: &Inner, parts: &Parts, user: &UserInfo) {
        let Some((info, audit)) = self.info.as_ref().zip(server.audit.as_ref()) else { return };
        if let Some(record) = audit::begin(server, audit, parts, info, user) {
            self.record.get_or_init(|| record);
        }
    }

    async fn panicked(&self) -> ApiError {
        if let Some(record) = self.record.get() {
            record.panicked();
            record.reach(Stage::Panic).await;
            self.ended.store(true, Relaxed);
        }
        ApiError::internal("the handler of this request panicked")
    }

    /// Puts into the answer what is told besides, and ends the record.
    async fn tell(&self, mut answer: Response<BoxBody>) -> Response<BoxBody> {
        respond::warn(&mut answer, &self.notes.take_warnings());
        let annotations = self.notes.annotations();
        if let Some(admitted) = self.admitted.get() {
            admitted.mark(&mut answer);
        }
        let ended = self.ended.load(Relaxed);
        if let Some((record, info)) = self.record.get().zip(self.info.as_ref()).filter(|_| !ended) {
            annotations.0.iter().for_each(|(key, value)| record.annotate(key, value));
            answer = if self.refused.load(Relaxed) {
                audit::not_authenticated(record, answer).await
            } else {
                audit::finish(record.clone(), info, answer).await
            };
        }
        if !annotations.0.is_empty() {
            answer.extensions_mut().insert(annotations);
        }
        answer
    }
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
    side: Arc<Side>,
) -> Result<Response<BoxBody>, ApiError> {
    let (parts, body) = request.into_parts();
    let user = match authenticate(&server, &parts).await {
        Ok(user) => Arc::new(user),
        Err(error) => {
            side.refused.store(true, Relaxed);
            side.begin_record(&server, &parts, &UserInfo::default());
            return Err(error);
        }
    };
    side.begin_record(&server, &parts, &user);
    if let Some(record) = side.record.get() {
        record.reach(Stage::RequestReceived).await;
    }
    let asker = user.clone();
    let user = impersonate(&server, &parts, user).await?;
    if let Some(record) = side.record.get().filter(|_| !Arc::ptr_eq(&asker, &user)) {
        record.impersonates(&user);
    }
    if let (Some(info), Some(control)) = (&side.info, &server.flow) {
        match flow::admit(&server, control, info, &Query::of(&parts.uri), &user).await {
            Ok(admitted) => admitted.into_iter().for_each(|seats| drop(side.admitted.set(seats))),
            Err(response) => return Ok(response),
        }
    }
    let manager = manager_of(&parts);
    let mut caller = Caller::new(user, manager);
    caller.notes = side.notes.clone();
    caller.record = side.record.get().cloned();
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
    exchange.server.authorize_attributes(&exchange.caller, &attributes).await?;
    documents::serve(&exchange, &path).await
}
