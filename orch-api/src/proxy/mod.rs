//! The connections through the API server: logs, exec, attach, port-forward, and proxies to pods,
//! services and nodes.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod`, `strategy.go` and `rest/subresources.go`;
//! `k8s.io/apimachinery/pkg/util/proxy`.

mod backend;
mod forward;
mod options;
mod pod;

use std::sync::Arc;

use async_trait::async_trait;
pub(crate) use backend::ready_addresses;
use bytes::Bytes;
pub(crate) use forward::{is_upgrade, join_upgraded, strip_hop_by_hop, strip_identity};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use orch_core::{ApiError, Target, node::Dialer};

use crate::connect::{BoxBody, ConnectContext, Connector};

/// Answers by forwarding to node agents (in the kubelet's HTTP API) and to pods.
///
/// Upgraded connections, SPDY and WebSocket alike, are carried byte for byte in both directions
/// until both sides have ended them.
///
/// `Differs:` the proxies speak plain HTTP to pods and services (`https:` names are refused), and
/// do not rewrite links in HTML.
#[derive(Clone, Debug)]
pub struct NodeConnector {
    dialer: Arc<dyn Dialer>,
}

impl NodeConnector {
    /// Reaches nodes and pods through `dialer`.
    pub fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer }
    }

    async fn answer(
        &self,
        context: ConnectContext,
        target: &Target,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, ApiError> {
        let subresource = target.subresource.as_deref().unwrap_or_default();
        match (&*target.resource.plural, subresource) {
            ("pods", "log") => pod::log(&*self.dialer, &context.client, target, request).await,
            ("pods", "exec" | "attach") => {
                pod::remote_command(&*self.dialer, &context.client, target, request).await
            }
            ("pods", "portforward") => {
                pod::port_forward(&*self.dialer, &context.client, target, request).await
            }
            ("pods" | "services" | "nodes", "proxy") => {
                backend::proxy(&*self.dialer, context, target, request).await
            }
            _ => Err(ApiError::no_such_path()),
        }
    }
}

#[async_trait]
impl Connector for NodeConnector {
    async fn connect(
        &self,
        context: ConnectContext,
        target: Target,
        request: Request<BoxBody>,
    ) -> Response<BoxBody> {
        match self.answer(context, &target, request).await {
            Ok(response) => response,
            Err(error) => refusal(&error),
        }
    }
}

fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An error as the API answers with it.
fn refusal(error: &ApiError) -> Response<BoxBody> {
    let body = serde_json::to_vec(error.status()).unwrap_or_default();
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
