//! A client that is there before its server is.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{
    Client, ClientError, ResourceType, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
};
use tokio::sync::watch;

type Lead = Box<dyn Fn() -> Option<Arc<dyn Client>> + Send + Sync>;

/// Stands for a server that is still being put together: plugins and authenticators take it when
/// they are built, and it leads to the server once it was told where that is. Calls before that
/// wait for it.
///
/// Holds the client weakly, because the server usually holds the plugins that hold this: calls
/// after the server's end fail as transport errors.
pub struct LateClient(watch::Sender<Option<Lead>>);

#[derive(Debug, thiserror::Error)]
#[error("the API server is gone")]
struct Gone;

impl fmt::Debug for LateClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateClient")
    }
}

impl LateClient {
    /// A client that leads nowhere yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(None)))
    }

    /// Leads to `client` from now on, as long as somebody else keeps it.
    pub fn set(&self, client: &Arc<dyn Client>) {
        let client = Arc::downgrade(client);
        self.lead(move || client.upgrade());
    }

    /// Leads to what `to` gives at every call.
    pub fn lead(&self, to: impl Fn() -> Option<Arc<dyn Client>> + Send + Sync + 'static) {
        self.0.send_replace(Some(Box::new(to)));
    }

    async fn current(&self) -> Result<Arc<dyn Client>, ClientError> {
        let mut receiver = self.0.subscribe();
        let found = receiver.wait_for(Option::is_some).await;
        let client = found.ok().and_then(|lead| lead.as_ref().and_then(|lead| lead()));
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

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.current().await?.resource_types().await
    }
}
