//! HTTP ingress: requests from outside, led to services by host and path.

mod forward;
mod publish;
mod routing;
mod tls;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use orch_core::informer::Informers;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{forward::Forwarder, publish::Publisher, routing::Router};

/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How an [`IngressController`] behaves.
#[derive(Clone, Debug)]
pub struct IngressOptions {
    /// Classes whose `spec.controller` is this are served. Default: `orch.dev/ingress`.
    pub controller: String,
    /// A class of this name is created if it is missing. Default: `orch`.
    pub class: Option<String>,
    /// Whether ingresses that name no class are served too. Default: yes; say no where another
    /// ingress controller works in the same cluster.
    pub without_class: bool,
    /// Where HTTPS is served, with the certificates of `spec.tls`. Default: nowhere.
    pub tls_address: Option<SocketAddr>,
    /// The address that is written into the status of ingresses. Default: the one listened on,
    /// or none if that is "all".
    pub published: Option<IpAddr>,
    /// How many connections may be open at a time; further ones wait in the kernel's queue.
    /// Default: 4096.
    pub connections_max: usize,
    /// How long connecting to one endpoint may take before the next is tried. Default: 1 s.
    pub connect_timeout: Duration,
    /// For how long endpoints are tried that do not take connections. Default: 5 s.
    pub connect_deadline: Duration,
    /// How long an endpoint may take until it begins to answer. Default: 60 s.
    pub response_timeout: Duration,
    /// How long requests in flight may take when the controller is stopped. Default: 5 s.
    pub grace_period: Duration,
}

impl Default for IngressOptions {
    fn default() -> Self {
        Self {
            controller: "orch.dev/ingress".into(),
            class: Some("orch".into()),
            without_class: true,
            tls_address: None,
            published: None,
            connections_max: 4096,
            connect_timeout: Duration::from_secs(1),
            connect_deadline: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            grace_period: Duration::from_secs(5),
        }
    }
}

/// Serves the cluster's ingresses.
///
/// The longest path of the most specific host wins, `Exact` before `Prefix`; nothing that matches
/// is 404, a service without endpoints 503, endpoints that do not answer 502 and 504. Requests go
/// straight to endpoints, over kept connections; one that does not take a connection is passed
/// over for the next. WebSockets and other upgrades pass through. `X-Forwarded-*` tell about the
/// client, and what the client says of itself in them is not believed.
///
/// Differs from ingress-nginx: no annotations are read, HTTP is not redirected to HTTPS, and
/// `ImplementationSpecific` is `Prefix`.
#[derive(Debug)]
pub struct IngressController {
    listener: TcpListener,
    tls: Option<(TcpListener, Arc<ServerConfig>)>,
    forwarder: Arc<Forwarder>,
    publisher: Publisher,
    connections: Arc<Semaphore>,
    options: IngressOptions,
}

impl IngressController {
    /// Listens; port 0 chooses one.
    ///
    /// # Errors
    /// If an address is taken or not allowed.
    pub async fn bind(
        address: SocketAddr,
        informers: &Informers,
        options: IngressOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let tls = match options.tls_address {
            Some(address) => Some((TcpListener::bind(address).await?, tls::config(informers)?)),
            None => None,
        };
        let router = Router::new(informers, &options);
        let own = Some(listener.local_addr()?.ip()).filter(|ip| !ip.is_unspecified());
        let published = options.published.or(own);
        let publisher = Publisher::new(informers, router.clone(), published, &options);
        let forwarder = Forwarder::new(router, informers.environment().clone(), &options);
        let connections = Arc::new(Semaphore::new(options.connections_max.max(1)));
        let forwarder = Arc::new(forwarder);
        Ok(Self { listener, tls, forwarder, publisher, connections, options })
    }

    /// Where HTTP is served.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where HTTPS is served, if anywhere.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until it is cancelled, and then lets requests in flight finish within the grace
    /// period.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { listener, tls, forwarder, publisher, connections, options } = self;
        let server = Server {
            forwarder,
            connections,
            grace_period: options.grace_period,
            cancel: cancel.clone(),
            tracker: TaskTracker::new(),
        };
        let http = server.accept(listener, None);
        let https = async {
            if let Some((listener, config)) = tls {
                server.accept(listener, Some(TlsAcceptor::from(config))).await;
            }
        };
        let work = async { tokio::join!(http, https, publisher.run()) };
        cancel.run_until_cancelled(work).await;
        server.tracker.close();
        server.tracker.wait().await;
    }
}

/// What the connections' tasks share.
struct Server {
    forwarder: Arc<Forwarder>,
    connections: Arc<Semaphore>,
    grace_period: Duration,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    async fn accept(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.forwarder.environment().clock.sleep(PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let connection = Connection {
                forwarder: self.forwarder.clone(),
                client,
                local_port: listener.local_addr().map_or(0, |address| address.port()),
                grace_period: self.grace_period,
                cancel: self.cancel.clone(),
            };
            self.tracker.spawn(connection.serve(stream, tls.clone(), permit));
        }
    }
}

struct Connection {
    forwarder: Arc<Forwarder>,
    client: SocketAddr,
    local_port: u16,
    grace_period: Duration,
    cancel: CancellationToken,
}

impl Connection {
    async fn serve(
        self,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        _permit: OwnedSemaphorePermit,
    ) {
        let Some(tls) = tls else { return self.serve_http(stream, "http").await };
        // A client that does not get through the handshake in time does not keep its place.
        match tokio::time::timeout(Duration::from_secs(10), tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, "https").await,
            Ok(Err(error)) => tracing::debug!(client = %self.client, %error, "no TLS session"),
            Err(_) => tracing::debug!(client = %self.client, "the TLS handshake took too long"),
        }
    }

    async fn serve_http<S>(self, stream: S, scheme: &'static str)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
        builder.http2().timer(TokioTimer::new());
        let source = forward::Source { client: self.client, port: self.local_port, scheme };
        let service = service_fn(move |request| {
            let forwarder = self.forwarder.clone();
            async move { Ok::<_, hyper::Error>(forwarder.handle(request, source).await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let rest = tokio::time::timeout(self.grace_period, connection);
                rest.await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %self.client, %error, "a connection ended badly");
        }
    }
}
