//! The requests' handler: finds the service that a path names.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Request, Response, header::CONTENT_TYPE};
use futures::{FutureExt as _, future::BoxFuture};
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, codegen::Service as _};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};

use super::{
    http, lease::LeaseService, maintenance::MaintenanceService, shared::Shared, watch::WatchService,
};
use crate::protocol::etcdserverpb::{
    auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
    lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
};

/// The error of a request's body.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Handles the requests of an [`EtcdServer`](super::EtcdServer).
#[derive(Clone)]
pub struct EtcdService {
    shared: Arc<Shared>,
    kv: KvServer<Shared>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    cluster: ClusterServer<Shared>,
    auth: AuthServer<Shared>,
    health: HealthServer<HealthService>,
}

impl std::fmt::Debug for EtcdService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdService").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl EtcdService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let bytes_max = shared.message_bytes_max();
        let reporter = tonic_health::server::HealthReporter::new();
        Self {
            kv: KvServer::from_arc(shared.clone()).max_decoding_message_size(bytes_max),
            watch: WatchServer::new(WatchService(shared.clone()))
                .max_decoding_message_size(bytes_max),
            lease: LeaseServer::new(LeaseService(shared.clone())),
            maintenance: MaintenanceServer::new(MaintenanceService(shared.clone())),
            cluster: ClusterServer::from_arc(shared.clone()),
            auth: AuthServer::from_arc(shared.clone()),
            health: HealthServer::new(HealthService::from_health_reporter(reporter)),
            shared,
        }
    }
}

impl<B> tower::Service<Request<B>> for EtcdService
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BodyError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.route(request)
    }
}

impl EtcdService {
    /// Hands a request over to the service that its path names.
    pub(super) fn route<B>(
        &self,
        request: Request<B>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        B: HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError> + Send + 'static,
    {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match service.map_or("", |(service, _)| service) {
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            "grpc.health.v1.Health" => self.health.clone().call(request),
            unknown if is_grpc(&request) => {
                let status = Status::unimplemented(format!("unknown service {unknown}"));
                std::future::ready(Ok(status.into_http())).boxed()
            }
            _ => {
                let (method, uri) = (request.method().clone(), request.uri().clone());
                let shared = self.shared.clone();
                async move { Ok(http::answer(&shared, &method, &uri).await) }.boxed()
            }
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
