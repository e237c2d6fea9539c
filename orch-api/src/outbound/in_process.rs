//! Services of this process, reached without a socket.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::RwLock;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{Address, Endpoint, Outbound, OutboundError};
use crate::connect::BoxBody;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Served = BoxCloneSyncService<Request<BoxBody>, Response<BoxBody>, Error>;

/// Leads to tower services of this process. Services may be added while it is in use.
///
/// Certificates play no part: whoever adds a service here vouches for it. What is not found here
/// is left to whoever comes next ([`crate::ApiServerBuilder::in_process`]), or is an error.
#[derive(Default)]
pub struct InProcess {
    served: RwLock<HashMap<String, Served>>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.served.read().keys()).finish()
    }
}

impl InProcess {
    /// Serves a Service of the cluster, at each of its ports. The Service itself need not exist.
    pub fn serve<S, B>(&self, namespace: &str, name: &str, service: S)
    where
        S: Service<Request<BoxBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        self.add(format!("{name}.{namespace}.svc"), service);
    }

    /// Serves a host, written as in URLs: `hooks.example.com` or `hooks.example.com:8443`.
    pub fn serve_host<S, B>(&self, host: &str, service: S)
    where
        S: Service<Request<BoxBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        self.add(host.to_owned(), service);
    }

    fn add<S, B>(&self, place: String, service: S)
    where
        S: Service<Request<BoxBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let service = service
            .map_response(|answer: Response<B>| {
                answer.map(|body| body.map_err(Into::into).boxed_unsync())
            })
            .map_err(Into::into);
        self.served.write().insert(place, BoxCloneSyncService::new(service));
    }

    /// Stops serving a Service.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.served.write().remove(&format!("{name}.{namespace}.svc"));
    }

    fn find(&self, endpoint: &Endpoint) -> Option<Served> {
        let served = self.served.read();
        match &endpoint.address {
            Address::Service { .. } => served.get(&endpoint.server_name()).cloned(),
            Address::Host(host) => served.get(host).cloned(),
        }
    }
}

/// Boxed, because the compiler cannot prove the bare future `Send` for every lifetime.
fn answered(
    service: Served,
    request: Request<BoxBody>,
) -> BoxFuture<'static, Result<Response<BoxBody>, Error>> {
    service.oneshot(request).boxed()
}

#[async_trait]
impl Outbound for InProcess {
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, OutboundError> {
        let Some(service) = self.find(endpoint) else {
            return Err(OutboundError::Unresolved(match &endpoint.address {
                Address::Service { name, .. } => format!("service {name:?} not found"),
                Address::Host(_) => {
                    format!("dial tcp: lookup {}: no such host", endpoint.server_name())
                }
            }));
        };
        answered(service, request).await.map_err(|error| OutboundError::Broken(error.to_string()))
    }
}

/// What is in this process, and otherwise somebody else.
#[derive(Debug)]
pub(crate) struct InProcessFirst {
    pub(crate) own: Arc<InProcess>,
    pub(crate) otherwise: Arc<dyn Outbound>,
}

#[async_trait]
impl Outbound for InProcessFirst {
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, OutboundError> {
        match self.own.find(endpoint) {
            Some(_) => self.own.send(endpoint, request).await,
            None => self.otherwise.send(endpoint, request).await,
        }
    }
}
