//! A client that is there before its server is.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use orch_core::{
    Client, ClientError, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
};
use parking_lot::RwLock;

/// Stands for a server that is still being put together: plugins and authenticators take it when
/// they are built, and it leads to the server once [`LateClient::set`] was called.
///
/// Holds the client weakly, because the server usually holds the plugins that hold this: whoever
/// sets it keeps the client alive. Calls before and after that fail as transport errors.
#[derive(Debug, Default)]
pub struct LateClient(RwLock<Option<Weak<dyn Client>>>);

#[derive(Debug, thiserror::Error)]
#[error("the API server is not there yet, or no longer")]
struct NotThere;

impl LateClient {
    /// A client that leads nowhere yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Leads to `client` from now on.
    pub fn set(&self, client: &Arc<dyn Client>) {
        *self.0.write() = Some(Arc::downgrade(client));
    }

    fn current(&self) -> Result<Arc<dyn Client>, ClientError> {
        let client = self.0.read().as_ref().and_then(Weak::upgrade);
        client.ok_or_else(|| ClientError::Transport(Box::new(NotThere)))
    }
}

#[async_trait]
impl Client for LateClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.current()?.read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.current()?.write(write).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        self.current()?.watch(target, options).await
    }
}
