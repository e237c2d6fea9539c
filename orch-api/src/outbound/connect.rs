//! New connections: resolved, dialed, and secured.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection as Pooled},
    rt::TokioIo,
};
use orch_core::{
    Client, Environment,
    node::{Connection, DialError, Dialer},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Address, Endpoint, OutboundError,
    resolve::{Found, resolve},
    split_port, trust,
};

/// How connections come about.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) client: Arc<dyn Client>,
    pub(super) environment: Environment,
    pub(super) dialer: Option<Arc<dyn Dialer>>,
}

impl Way {
    async fn dial(&self, endpoint: &Endpoint) -> Result<Box<dyn Connection>, OutboundError> {
        let found = match &endpoint.address {
            Address::Service { namespace, name, port } => {
                let random = &*self.environment.random;
                resolve(&self.client, random, (namespace, name, *port)).await?
            }
            Address::Host(host) => {
                let (name, port) = split_port(host);
                Found::Name(name.to_owned(), port)
            }
        };
        let address = match found {
            Found::Name(name, port) => {
                let tcp = TcpStream::connect((name.as_str(), port)).await;
                let tcp =
                    tcp.map_err(|error| OutboundError::dial(format!("{name}:{port}"), error))?;
                return Ok(Box::new(tcp));
            }
            Found::Address(address) => address,
        };
        match &self.dialer {
            None => {
                let tcp = TcpStream::connect(address).await;
                Ok(Box::new(tcp.map_err(|error| OutboundError::dial(address, error))?))
            }
            Some(dialer) => dialer.dial_pod(address).await.map_err(|error| match error {
                DialError::Io(address, source) => OutboundError::dial(address, source),
                other => OutboundError::Unresolved(other.to_string()),
            }),
        }
    }

    async fn connect(
        self,
        tls: TlsConnector,
        endpoint: Endpoint,
    ) -> Result<TokioIo<Secured>, OutboundError> {
        let name = endpoint.server_name();
        let name = ServerName::try_from(name.clone())
            .map_err(|_| OutboundError::Broken(format!("invalid server name {name:?}")))?;
        let connection = self.dial(&endpoint).await?;
        let secured = tls.connect(name, connection).await;
        let secured = secured.map_err(|error| trust::handshake_failed(&error))?;
        Ok(TokioIo::new(Secured(secured)))
    }
}

/// Makes the connections to one endpoint.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) way: Way,
    pub(super) tls: TlsConnector,
    pub(super) endpoint: Endpoint,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Secured>;
    type Error = OutboundError;
    type Future = BoxFuture<'static, Result<Self::Response, OutboundError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), OutboundError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        self.way.clone().connect(self.tls.clone(), self.endpoint.clone()).boxed()
    }
}

/// A connection under TLS.
pub(super) struct Secured(TlsStream<Box<dyn Connection>>);

impl Pooled for Secured {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
