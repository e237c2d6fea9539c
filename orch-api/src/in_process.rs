//! `kube::Client` in the server's own process: no socket, the same bytes.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use orch_core::{ApiError, ResourceType};
use tower::Service;

use crate::{
    auth::UserInfo,
    catalog::{Catalog, Resource},
    connect::BoxBody,
    server::{ApiServer, Inner},
};

type Error = Box<dyn std::error::Error + Send + Sync>;
/// How much a connection in memory holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;

impl ApiServer {
    /// Every resource that can be listed and watched, in the version stored: what garbage collection
    /// and the emptying of namespaces go through. Custom resources are among them once somebody
    /// has asked for one; [`ApiServer::newest_resource_types`] asks.
    pub fn resource_types(&self) -> Vec<ResourceType> {
        types(&self.inner.customs.last_known())
    }

    /// The same, with every custom resource that is defined now.
    ///
    /// # Errors
    /// What the store's failure is to a client.
    pub async fn newest_resource_types(&self) -> Result<Vec<ResourceType>, ApiError> {
        self.inner.newest_resource_types().await
    }

    /// A `kube::Client` that calls this server directly, as `user`. Call it inside a tokio
    /// runtime. Requests that upgrade (`exec`, `attach`, `portforward`) go over a connection in
    /// memory.
    pub fn kube_client(&self, user: UserInfo, default_namespace: &str) -> kube::Client {
        kube::Client::new(InProcess { server: self.clone(), user }, default_namespace)
    }
}

impl Inner {
    pub(crate) async fn newest_resource_types(&self) -> Result<Vec<ResourceType>, ApiError> {
        let catalog = self.newest_catalog().await?;
        Ok(types(&catalog))
    }
}

/// One version of each resource: the stored one, or the most preferred if that is not served.
fn types(catalog: &Catalog) -> Vec<ResourceType> {
    let versions = catalog.group_versions().iter();
    let resources = versions.flat_map(|version| &version.resources);
    let mut kept: Vec<ResourceType> = Vec::new();
    let mut places = std::collections::HashSet::new();
    let mut lists: Vec<&std::sync::Arc<Resource>> = resources
        .filter(|resource| resource.verbs.has("list") && resource.verbs.has("watch"))
        .collect();
    lists.sort_by_key(|resource| !resource.is_stored());
    for resource in lists {
        if places.insert(&resource.prefix) {
            kept.push(resource.of.clone());
        }
    }
    kept
}

/// The server, called as one user.
#[derive(Clone, Debug)]
struct InProcess {
    server: ApiServer,
    user: UserInfo,
}

impl<B> Service<Request<B>> for InProcess
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    type Response = Response<BoxBody>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<BoxBody>, Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let this = self.clone();
        if upgrades(request.headers()) {
            return this.connect(request).boxed();
        }
        async move { Ok(this.answer(request).await?) }.boxed()
    }
}

fn upgrades(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

impl InProcess {
    fn answer(
        mut self,
        mut request: Request<BoxBody>,
    ) -> BoxFuture<'static, Result<Response<BoxBody>, Infallible>> {
        request.extensions_mut().insert(self.user);
        self.server.call(request)
    }

    /// Sends the request over a connection of its own, which can become something else.
    async fn connect(self, request: Request<BoxBody>) -> Result<Response<BoxBody>, Error> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            self.clone().answer(request)
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .with_upgrades();
        tokio::spawn(served);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(origin_form(request)?).await?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// HTTP/1 wants a path alone, and a host.
fn origin_form(request: Request<BoxBody>) -> Result<Request<BoxBody>, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse()?;
    parts.headers.entry(header::HOST).or_insert(http::HeaderValue::from_static("localhost"));
    Ok(Request::from_parts(parts, body))
}
