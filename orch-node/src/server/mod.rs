//! The node's HTTP API: logs, exec, attach, port-forward, as the API server asks for them, and what
//! the node uses, as metrics servers do.
//!
//! Paths and query parameters are the kubelet's, so that any API server can forward to it.
//! [`NodeServer::serve`] takes one connection that is already authenticated; where it comes from
//! (an in-process pipe, a TLS listener) is the embedding application's affair.
//!
//! Source: `pkg/kubelet/server/server.go`.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use orch_core::{Environment, node::Connection};

use crate::{
    pods::{ContainerRef, PodSource},
    runtime::{Runtime, RuntimeError},
};

mod log_stream;
mod port_forward;
mod remote_command;
mod resource_metrics;
pub mod spdy;
mod spdy_dictionary;
mod websocket;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers the kubelet's HTTP API for one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeServer {
    runtime: Arc<dyn Runtime>,
    pods: Arc<dyn PodSource>,
    environment: Environment,
}

/// A request that failed before anything was streamed.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        let status = match &error {
            RuntimeError::NotFound { .. } => StatusCode::NOT_FOUND,
            RuntimeError::InvalidArgument(_) => StatusCode::BAD_REQUEST,
            RuntimeError::NotSupported(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl NodeServer {
    /// A server for what `runtime` runs of `pods`.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        pods: Arc<dyn PodSource>,
        environment: Environment,
    ) -> Self {
        Self { runtime, pods, environment }
    }

    /// Serves one HTTP/1.1 connection until it ends. Streams that were upgraded go on in tasks of
    /// their own until either side closes them.
    pub async fn serve<C: Connection>(&self, connection: C) {
        let service = service_fn(|request| async {
            Ok::<_, Infallible>(self.answer(request).await.unwrap_or_else(refuse))
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "node connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match parts.as_slice() {
            ["healthz"] => Ok(text(StatusCode::OK, "ok")),
            ["pods" | "runningpods"] => self.pod_list(),
            ["metrics", "resource"] => {
                expect_get(&request)?;
                Ok(resource_metrics::respond(self).await)
            }
            ["containerLogs", namespace, pod, container] => {
                expect_get(&request)?;
                let wanted = ContainerRef { namespace, pod, uid: None, container };
                log_stream::respond(self, wanted, &query).await
            }
            [verb @ ("exec" | "attach"), namespace, pod, container] => {
                let wanted = ContainerRef { namespace, pod, uid: None, container };
                remote_command::respond(self, verb == &"exec", wanted, &query, request).await
            }
            [verb @ ("exec" | "attach"), namespace, pod, uid, container] => {
                let wanted = ContainerRef { namespace, pod, uid: Some(uid), container };
                remote_command::respond(self, verb == &"exec", wanted, &query, request).await
            }
            ["portForward", namespace, pod] => {
                port_forward::respond(self, namespace, pod, &query, request).await
            }
            _ => Err(Refusal(StatusCode::NOT_FOUND, "404 page not found".into())),
        }
    }

    fn pod_list(&self) -> Result<Response<Body>, Refusal> {
        let pods: Vec<_> = self.pods.pods();
        let items: Result<Vec<_>, _> = pods.iter().map(|p| serde_json::to_value(&**p)).collect();
        let items =
            items.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let list = serde_json::json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
        });
        let mut response = text(StatusCode::OK, &list.to_string());
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

fn expect_get<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.method() == Method::GET {
        Ok(())
    } else {
        Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".into()))
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(full(message.to_owned()));
    *response.status_mut() = status;
    response
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that unwrap_or_else wants")]
fn refuse(refusal: Refusal) -> Response<Body> {
    text(refusal.0, &refusal.1)
}

/// Query parameters; a name may come several times.
#[derive(Debug, Default)]
struct Query(HashMap<String, Vec<String>>);

impl Query {
    fn parse(query: &str) -> Self {
        let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(parameters)
    }

    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str).filter(|v| !v.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.one(name), Some("1" | "true" | "True" | "TRUE" | "t" | "T"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let number = text.parse::<i64>();
        number.map(Some).map_err(|_| {
            Refusal::bad_request(format!("parameter {name}: {text:?} is not a number"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_keep_order_and_repetition() {
        let query = Query::parse("command=sh&command=-c&command=a+b%26&tty=1&tailLines=x");
        assert_eq!(query.all("command"), ["sh", "-c", "a b&"]);
        assert!(query.flag("tty") && !query.flag("input"));
        assert!(query.number("tailLines").is_err());
        assert_eq!(query.number("sinceSeconds").unwrap(), None);
    }
}
