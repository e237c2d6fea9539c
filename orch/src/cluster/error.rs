//! Why a cluster did not start.

use std::net::SocketAddr;

use orch_api::serve::{PkiError, ServeError};
use orch_core::ClientError;

/// Why a cluster did not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The API's address cannot be listened on.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Certificates could not be made or loaded.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token key is no key.
    #[error("the service account key is unusable: {0}")]
    TokenKey(String),
    /// What every cluster holds from its start (namespaces, roles) could not be written.
    #[error("the cluster's first objects could not be written")]
    Bootstrap(#[source] ClientError),
    /// No standard controller has this name.
    #[error(transparent)]
    UnknownController(#[from] orch_controllers::standard::UnknownController),
    /// The scheduler's plugins do not fit together.
    #[error("the scheduler cannot be built: {0}")]
    Scheduler(String),
    /// DNS, ingress or the service proxy cannot listen.
    #[error("{what} cannot listen on {address}")]
    Network {
        /// Which of them.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service proxy cannot be set up.
    #[error("the service proxy cannot be set up")]
    Proxy(#[source] orch_net::service::ProxyError),
    /// Two nodes have the same name.
    #[error("two nodes are named {0:?}")]
    DuplicateNode(String),
}
