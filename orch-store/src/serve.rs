//! Serves any store as etcd v3, so that `etcdctl`, clientv3 and an unmodified kube-apiserver can
//! use it.
//!
//! [`EtcdServer`] speaks etcd's KV, Watch, Lease, Maintenance, Cluster (the list of members) and
//! Auth (that it is disabled) services over any [`LeasedStore`], with etcd's error codes and
//! messages, because clients match on them. The same port answers etcd's HTTP paths `/health`,
//! `/version`, `/livez` and `/readyz`, and gRPC's health service.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use orch_store::{
//!     EtcdOptions, EtcdStore, MemoryStore, Store, Write,
//!     serve::{EtcdServer, ServeOptions},
//! };
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let server = EtcdServer::new(Arc::new(MemoryStore::default()), ServeOptions::default());
//! let serving = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));
//!
//! let client = EtcdStore::connect(EtcdOptions::new(format!("http://{address}"))).await?;
//! client.write(Write::create("/pods/web", "{}")).await?;
//! drop((client, stop));
//! serving.await??;
//! # Ok(())
//! # }
//! ```
//!
//! A snapshot of etcd, or one of this server, is taken into an empty store by [`import_snapshot`].
//!
//! # What differs from etcd
//! - There is one member and no Raft: the term is constant, the Raft indexes are the revision.
//! - A watch that begins at exactly the compacted revision may be refused as compacted.
//! - `Alarm` knows no alarms and cannot raise one; `Defragment` has nothing to do; `MoveLeader`,
//!   `Downgrade`, changes of the membership, users and roles are unimplemented.
//! - A message past the transport's limit is refused with tonic's words, not with grpc-go's; one
//!   past the request limit below it is refused as etcd does.
//! - `HashKV` covers the living keys at a revision and not their history.
//!
//! Source: etcd's `server/etcdserver/api/v3rpc`, `server/etcdserver/txn`.

mod authority;
mod cluster;
mod connection;
mod convert;
mod hash;
mod http;
mod image;
mod import;
mod kv;
mod lease;
mod listener;
mod maintenance;
mod options;
mod range;
mod refusal;
mod service;
mod shared;
mod tls;
mod txn;
mod watch;

#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use tokio::net::TcpListener;

use self::shared::Shared;
pub use self::{
    import::{ImportError, Imported, import_snapshot},
    options::{ServeOptions, ServerTls},
    service::EtcdService,
};
use crate::store::LeasedStore;

/// Why a store cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A certificate, a key or an authority's certificate cannot be used.
    #[error("cannot use {what}: {why}")]
    Tls {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The listening socket failed.
    #[error("the listening socket failed")]
    Listener(#[source] io::Error),
}

/// A store, ready to be served as etcd.
///
/// Either [`serve`](Self::serve) it on a socket, or put its [`service`](Self::service) into a
/// server of your own.
#[derive(Debug)]
pub struct EtcdServer {
    shared: Arc<Shared>,
}

impl EtcdServer {
    /// Serves `store`; nothing is started yet.
    pub fn new(store: Arc<dyn LeasedStore>, options: ServeOptions) -> Self {
        Self { shared: Arc::new(Shared::new(store, options)) }
    }

    /// The requests' handler, as a tower service from HTTP request to HTTP response: cheap to
    /// clone, never fails, always ready. It can be the fallback service of an axum router.
    ///
    /// Its watches and keep-alives end with their connection, or when [`serve`](Self::serve) of the
    /// same server ends.
    pub fn service(&self) -> EtcdService {
        EtcdService::new(self.shared.clone())
    }

    /// Serves connections until `shutdown` completes. Then no more are taken, watches and
    /// keep-alives end, open requests have [`ServeOptions::shutdown_grace`] to finish, and what is
    /// left is cut off.
    ///
    /// Cancellation: dropping the future closes the socket and every connection.
    ///
    /// # Errors
    /// [`ServeError::Tls`] before the first connection is taken, [`ServeError::Listener`].
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        listener::serve(self.shared, listener, shutdown).await
    }
}
