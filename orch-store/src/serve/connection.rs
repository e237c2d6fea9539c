//! One connection: TLS if there is any, and HTTP/2 or HTTP/1.1.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::Request;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{EtcdService, authority::AuthorityRepair, shared::Shared};

/// How much a client may send on one stream, and on one connection, before it is read: enough for
/// the largest request, and for many small ones.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How much of one stream's responses is held for a client that does not read.
const SEND_BUFFER: usize = 256 << 10;

/// How long a client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) service: EtcdService,
}

impl Connection {
    /// Shakes hands if need be, then serves the connection to its end. Dropping the future ends
    /// its requests as well.
    pub(super) async fn run(self, stream: TcpStream) {
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
        let (executor, mut requests) = Requests::new();
        let mut builder = auto::Builder::new(executor);
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
        let service = service_fn(move |request: Request<Incoming>| service.route(request));
        let mut connection = pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = requests.drive(connection.as_mut()) => ended,
            () = shared.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                requests.drive(connection).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended");
        }
    }
}

/// The open requests of one connection.
///
/// They are polled by the connection's own task: a task for each would have to be handed to
/// another thread and back for the microseconds that most requests take. It also ties them to the
/// connection, with which they are dropped. The requests of one connection share a processor
/// therefore, and clients that want more have several.
struct Requests {
    started: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    open: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// Where hyper puts the requests that it has read; their number is bounded by that of streams.
#[derive(Clone)]
struct Executor(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        // Without a receiver the connection is gone, and the request with it.
        let _ = self.0.send(Box::pin(future));
    }
}

impl Requests {
    fn new() -> (Executor, Self) {
        let (sender, started) = mpsc::unbounded_channel();
        (Executor(sender), Self { started, open: FuturesUnordered::new() })
    }

    /// Drives a connection and its requests until the connection ends.
    async fn drive<T>(&mut self, mut connection: Pin<&mut impl Future<Output = T>>) -> T {
        std::future::poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                // What a request has to say is written by the connection.
                if !self.advance(context) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Polls the requests that are new or were woken; whether one of them has ended.
    fn advance(&mut self, context: &mut Context<'_>) -> bool {
        while let Poll::Ready(Some(request)) = self.started.poll_recv(context) {
            self.open.push(request);
        }
        let mut any = false;
        while let Poll::Ready(Some(())) = self.open.poll_next_unpin(context) {
            any = true;
        }
        any
    }
}
