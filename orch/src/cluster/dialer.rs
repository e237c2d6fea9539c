//! How the API server of a cluster in this process reaches its nodes and pods.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use orch_core::node::{Connection, DialError, Dialer};
use orch_node::server::NodeServer;
use parking_lot::RwLock;
use tokio::net::TcpStream;

const PIPE_BYTES: usize = 64 * 1024;

/// Reaches nodes of this process through pipes, and pods through the machine's network.
#[derive(Debug, Default)]
pub struct LocalDialer {
    nodes: RwLock<BTreeMap<String, NodeServer>>,
}

impl LocalDialer {
    /// Makes a node reachable under its name.
    pub fn add(&self, node: impl Into<String>, server: NodeServer) {
        self.nodes.write().insert(node.into(), server);
    }

    /// Makes a node reachable for as long as what this gives is kept.
    pub(super) fn place(self: &Arc<Self>, node: &str, server: NodeServer) -> Placed {
        self.add(node, server);
        Placed { dialer: self.clone(), node: node.to_owned() }
    }

    /// Lets go of all nodes: a node's server follows its pods through the API server, which holds
    /// this dialer, so each would keep the other alive.
    pub(super) fn clear(&self) {
        self.nodes.write().clear();
    }
}

/// A node that is reachable.
pub(super) struct Placed {
    dialer: Arc<LocalDialer>,
    node: String,
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.dialer.nodes.write().remove(&self.node);
    }
}

#[async_trait]
impl Dialer for LocalDialer {
    async fn dial_node(&self, node: &str) -> Result<Box<dyn Connection>, DialError> {
        let server = self.nodes.read().get(node).cloned();
        let server = server.ok_or_else(|| DialError::UnknownNode(node.to_owned()))?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(async move { server.serve(far).await });
        Ok(Box::new(near))
    }

    async fn dial_pod(&self, address: SocketAddr) -> Result<Box<dyn Connection>, DialError> {
        let failed = |error: io::Error| DialError::Io(address.to_string(), error);
        Ok(Box::new(TcpStream::connect(address).await.map_err(failed)?))
    }
}
