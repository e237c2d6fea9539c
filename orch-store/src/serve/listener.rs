//! The accept loop, and an orderly end.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{EtcdService, ServeError, connection::Connection, shared::Shared, tls};

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
