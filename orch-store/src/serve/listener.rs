//! The accept loop: TLS, HTTP/2 and HTTP/1.1 on one port, an orderly end.

use std::{pin::pin, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{EtcdService, ServeError, authority::AuthorityRepair, shared::Shared, tls};

/// How much a client may send on one stream, and on one connection, before it is read: enough for
/// the largest request, and for many small ones.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How much of one stream's responses is held for a client that does not read.
const SEND_BUFFER: usize = 1 << 20;

/// How long a client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let tls = shared.options.tls.as_ref().map(tls::config).transpose()?;
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    // A second socket for the same server does not change what clients were told.
    let _ = shared.own_url.set(format!("{scheme}://{address}"));
    // Streams end with this future, however it ends.
    let _streams_end = shared.stopping.clone().drop_guard();
    let mut connections = JoinSet::new();
    let accepting = accept(&shared, &listener, tls, &mut connections);
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    shared.stopping.cancel();
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(shared.options.shutdown_grace, ended).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Takes connections for ever.
async fn accept(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    tls: Option<Arc<ServerConfig>>,
    connections: &mut JoinSet<()>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let service = EtcdService::new(shared.clone());
    let permits = shared.options.connections_max.unwrap_or(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
    loop {
        let permit = permits.clone().acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // What has ended is forgotten.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = Connection {
                    shared: shared.clone(),
                    acceptor: acceptor.clone(),
                    service: service.clone(),
                };
                connections.spawn(async move {
                    connection.run(stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: the loop must neither end nor spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    acceptor: Option<TlsAcceptor>,
    service: EtcdService,
}

impl Connection {
    /// Shakes hands if need be, then serves the connection to its end.
    async fn run(self, stream: TcpStream) {
        // Where the option cannot be set, the connection works all the same.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.acceptor.clone() else {
            return self.http(stream).await;
        };
        let handshake = timeout(self.shared.options.handshake_timeout, acceptor.accept(stream));
        let handshaken = tokio::select! {
            () = self.shared.stopping.cancelled() => return,
            handshaken = handshake => handshaken,
        };
        match handshaken {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn http(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { shared, service, .. } = self;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.options.handshake_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(shared.options.connection_streams_max)
            .keep_alive_interval(shared.options.keepalive_interval)
            .keep_alive_timeout(PING_TIMEOUT);
        let io = TokioIo::new(AuthorityRepair::new(io));
        let service = hyper::service::service_fn(move |request| service.route(request));
        let mut connection = pin!(builder.serve_connection(io, service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = shared.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error, "a connection ended");
        }
    }
}
