//! The connection of a component that uses a `kube::Client`: the same decisions over HTTP.

use std::{borrow::Cow, convert::Infallible, io};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use orch_api::RequestInfo;
use orch_core::{
    ApiError,
    client::lines,
    testing::{Call, Verb},
};
use serde::Deserialize;
use serde_json::json;
use tower::service_fn;

use super::{Connection, Fate, stale, watched};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Error>>;

/// A client behind a connection. Call it inside a tokio runtime.
pub(crate) fn over_http(inner: kube::Client, connection: Connection) -> kube::Client {
    let namespace = inner.default_namespace().to_owned();
    let over = OverHttp { inner, connection };
    kube::Client::new(service_fn(move |request| over.clone().carry(request)), namespace)
}

#[derive(Clone)]
struct OverHttp {
    inner: kube::Client,
    connection: Connection,
}

impl OverHttp {
    async fn carry(self, request: Request<Body>) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let call = call_of(&parts, &body);
        let fate = call.as_ref().map_or_else(Fate::default, |call| self.connection.line.fate(call));
        let behind = call.as_ref().and_then(|call| self.connection.line.behind(call));
        let behind = behind.filter(|_| stale::accepts_any(&parts));
        let send = async {
            if let Some(behind) = behind
                && let Some(answer) = stale::list(&self.inner, &parts, behind).await
            {
                return Ok(answer.map(boxed));
            }
            let request = Request::from_parts(parts, Body::from(body));
            Ok(self.inner.send(request).await?.map(boxed))
        };
        let answer = self.connection.call(fate, send, told).await?;
        Ok(match call {
            Some(call) if call.verb == Verb::Watch && answer.status().is_success() => {
                answer.map(|body| self.connection.watched(call.event(), body))
            }
            _ => answer,
        })
    }
}

impl Connection {
    fn watched(
        self,
        call: Call<'static>,
        body: UnsyncBoxBody<Bytes, Error>,
    ) -> UnsyncBoxBody<Bytes, Error> {
        let lines = lines(body.into_data_stream());
        let lines = watched::watched(self, call, lines.boxed(), told_to_watcher);
        let frames = lines.map_ok(|line| Frame::data([&line, b"\n".as_slice()].concat().into()));
        StreamBody::new(frames).boxed_unsync()
    }
}

fn boxed(body: Body) -> UnsyncBoxBody<Bytes, Error> {
    body.map_err(Into::into).boxed_unsync()
}

/// What a request asks for; `None` if it is about no resource.
fn call_of(parts: &Parts, body: &[u8]) -> Option<Call<'static>> {
    let info = RequestInfo::read(parts);
    let verb = Verb::named(&info.verb).filter(|_| info.is_resource)?;
    let name = match verb {
        Verb::Create if info.name.is_empty() => name_in(body),
        _ => info.name,
    };
    let mut call = Call::new(verb, info.group, info.resource);
    call.subresource = Cow::Owned(info.subresource);
    call.namespace = Cow::Owned(info.namespace);
    call.name = Cow::Owned(name);
    Some(call)
}

/// The name of an object that is about to be created, as far as it can be read.
fn name_in(body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata {
        name: String,
    }
    serde_json::from_slice::<Named>(body).unwrap_or_default().metadata.name
}

fn broken() -> Error {
    let kind = io::ErrorKind::ConnectionReset;
    io::Error::new(kind, "injected: the connection broke").into()
}

fn told(answer: Option<ApiError>) -> Result<Answer, Error> {
    let error = answer.ok_or_else(broken)?;
    let mut answer =
        Response::builder().status(error.code()).header(header::CONTENT_TYPE, "application/json");
    let after = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(after) = after {
        answer = answer.header(header::RETRY_AFTER, after);
    }
    let body = Full::from(serde_json::to_vec(error.status())?);
    Ok(answer.body(body.map_err(|never: Infallible| match never {}).boxed_unsync())?)
}

fn told_to_watcher(answer: Option<ApiError>) -> Result<Bytes, Error> {
    let error = answer.ok_or_else(broken)?;
    Ok(serde_json::to_vec(&json!({"type": "ERROR", "object": error.status()}))?.into())
}
