//! The client in the server's own process.

use std::sync::Arc;

use async_trait::async_trait;
use orch_core::{
    Client, ClientError, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
};

use crate::{auth::UserInfo, registry::Caller, server::Inner};

/// Calls the server without HTTP: objects are shared, not encoded.
pub(crate) struct LocalClient {
    server: Arc<Inner>,
    user: Arc<UserInfo>,
}

impl std::fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalClient({})", self.user.name)
    }
}

impl LocalClient {
    pub(crate) fn new(server: Arc<Inner>, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }

    fn caller(&self) -> Caller {
        Caller::new(self.user.clone(), self.user.name.as_str())
    }
}

#[async_trait]
impl Client for LocalClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        Ok(self.server.read(&self.caller(), read).await?)
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        Ok(self.server.write(&self.caller(), write).await?.object)
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        Ok(self.server.watch(&self.caller(), target, options).await?)
    }
}
