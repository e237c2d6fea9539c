//! A client that is there before its server is.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use orch_core::{
    Client, ClientError, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
};
use tokio::sync::watch;

/// Stands for a server that is still being put together: plugins and authenticators take it when
/// they are built, and it leads to the server once [`LateClient::set`] was called. Calls before
/// that wait for it.
///
/// Holds the client weakly, because the server usually holds the plugins that hold this: whoever
/// sets it keeps the client alive. Calls after its end fail as transport errors.
#[derive(Debug)]
pub struct LateClient(watch::Sender<Option<Weak<dyn Client>>>);

#[derive(Debug, thiserror::Error)]
#[error("the API server is gone")]
struct Gone;

impl LateClient {
    /// A client that leads nowhere yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(None)))
    }

    /// Leads to `client` from now on.
    pub fn set(&self, client: &Arc<dyn Client>) {
        self.0.send_replace(Some(Arc::downgrade(client)));
    }

    async fn current(&self) -> Result<Arc<dyn Client>, ClientError> {
        let mut receiver = self.0.subscribe();
        let found = receiver.wait_for(Option::is_some).await;
        let client = found.ok().and_then(|client| client.as_ref().and_then(Weak::upgrade));
        client.ok_or_else(|| ClientError::Transport(Box::new(Gone)))
    }
}

#[async_trait]
impl Client for LateClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.current().await?.read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.current().await?.write(write).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        self.current().await?.watch(target, options).await
    }
}
