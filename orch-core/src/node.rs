//! How the API server reaches what runs in the cluster: node agents and pods.

use std::{fmt, net::SocketAddr};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Why something in the cluster could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No node of that name is known here, or it has published no address.
    #[error("node {0:?} cannot be reached: it has no address")]
    UnknownNode(String),
    /// The other side did not accept the connection.
    #[error("dialing {0} failed")]
    Io(String, #[source] std::io::Error),
}

/// Opens connections into the cluster for the API server's `log`, `exec`, `attach`,
/// `portforward` and `proxy` subresources.
///
/// A node connection speaks the kubelet's HTTP/1.1 API (`/containerLogs/NS/POD/CONTAINER`,
/// `/exec/...`, `/attach/...`, `/portForward/NS/POD`, `/pods`, `/healthz`), already
/// authenticated: whoever dials is the API server. Object-safe. Dropping the future abandons the
/// attempt.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug + 'static {
    /// A connection to a node's agent, by the node's name.
    async fn dial_node(&self, node: &str) -> Result<Box<dyn Connection>, DialError>;

    /// A connection to an address inside the cluster (a pod's, a service endpoint's).
    async fn dial_pod(&self, address: SocketAddr) -> Result<Box<dyn Connection>, DialError>;
}
