//! The accept loop: TLS, HTTP/1.1 and HTTP/2 on one port, upgrades, an orderly end.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::auth::PeerCertificates;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another program (or another server in this one) listens there.
    #[error("{0} is already in use: stop what listens there or choose another port")]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] io::Error),
}

/// Limits of a [`Listener`].
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// How many connections are served at once; more wait in the kernel's queue. Default: no
    /// limit.
    pub max_connections: Option<usize>,
    /// How many requests one HTTP/2 connection may have open at once; every watch is one.
    /// Default: 2000.
    pub max_streams: u32,
    /// How long a client may take for the TLS handshake, and for a request's headers. Default:
    /// 10 s.
    pub handshake_timeout: Duration,
    /// How long requests may go on after the shutdown began, before they are cut off. Default:
    /// 5 s.
    pub shutdown_deadline: Duration,
    /// How long the server goes on as before after the shutdown began, only that `/readyz` says
    /// so, for load balancers to notice. Default: none, as upstream's
    /// `--shutdown-delay-duration`.
    pub shutdown_delay: Duration,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_streams: 2000,
            handshake_timeout: Duration::from_secs(10),
            shutdown_deadline: Duration::from_secs(5),
            shutdown_delay: Duration::ZERO,
        }
    }
}

/// Put into every request's extensions: cancelled when the server begins to shut down, so that
/// watches and followed logs can end on an event's boundary instead of being cut off.
#[derive(Clone, Debug)]
pub struct ShutdownSignal(pub CancellationToken);

/// Put into every request's extensions: cancelled as soon as the shutdown was asked for, before
/// [`ListenerOptions::shutdown_delay`].
#[derive(Clone, Debug)]
pub struct Draining(pub CancellationToken);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    options: ListenerOptions,
}

impl Listener {
    /// Binds an address; port 0 takes a free one. Without `tls` it speaks plain HTTP.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        options: ListenerOptions,
    ) -> Result<Self, ServeError> {
        let tcp = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ServeError::AddressInUse(address),
            _ => ServeError::Bind(address, error),
        })?;
        let address = tcp.local_addr().map_err(|error| ServeError::Bind(address, error))?;
        Ok(Self { tcp, address, tls, options })
    }

    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled, then lets open requests finish (at most
    /// [`ListenerOptions::shutdown_deadline`]) and returns. A verified client certificate is in
    /// each request's extensions as [`PeerCertificates`], the shutdown as [`ShutdownSignal`].
    ///
    /// Cancellation: dropping the future leaves open connections to themselves; cancel the token.
    pub async fn serve<S, B>(self, service: S, shutdown: CancellationToken)
    where
        S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connections = TaskTracker::new();
        let cut_off = CancellationToken::new();
        let permits = self.options.max_connections.unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        let (draining, shutdown) = (Draining(shutdown), CancellationToken::new());
        let mut delayed = pin!(async {
            draining.0.cancelled().await;
            tokio::time::sleep(self.options.shutdown_delay).await;
            shutdown.cancel();
        });
        loop {
            let accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, self.tcp.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut delayed => break,
                accepted = accepted => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: the loop must neither end nor spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (service, shutdown) = (service.clone(), shutdown.clone());
            let draining = draining.clone();
            let (acceptor, options) = (acceptor.clone(), self.options.clone());
            let connection = async move {
                connect(stream, acceptor, service, &options, (draining, shutdown)).await;
                drop(permit);
            };
            let cut_off = cut_off.clone();
            connections.spawn(async move { cut_off.run_until_cancelled(connection).await });
        }
        drop(self.tcp);
        connections.close();
        if timeout(self.options.shutdown_deadline, connections.wait()).await.is_err() {
            cut_off.cancel();
            connections.wait().await;
        }
    }
}

/// Shakes hands if need be, then serves the connection to its end.
async fn connect<S, B>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    service: S,
    options: &ListenerOptions,
    (draining, shutdown): (Draining, CancellationToken),
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Small frames of watches and exec sessions must not wait for more; where the option cannot
    // be set, the connection works all the same.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        http(stream, None, service, options, (draining, shutdown)).await;
        return;
    };
    let handshake = timeout(options.handshake_timeout, acceptor.accept(stream));
    let handshaken = tokio::select! {
        () = shutdown.cancelled() => return,
        handshaken = handshake => handshaken,
    };
    match handshaken {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let peer = chain.map(|chain| {
                PeerCertificates(chain.iter().map(|der| der.as_ref().to_vec()).collect())
            });
            http(stream, peer, service, options, (draining, shutdown)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn http<I, S, B>(
    io: I,
    peer: Option<PeerCertificates>,
    service: S,
    options: &ListenerOptions,
    (draining, shutdown): (Draining, CancellationToken),
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let signal = ShutdownSignal(shutdown.clone());
    let handler = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        request.extensions_mut().insert(signal.clone());
        request.extensions_mut().insert(draining.clone());
        service.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.handshake_timeout)
        .half_close(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(options.max_streams);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), handler));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}
