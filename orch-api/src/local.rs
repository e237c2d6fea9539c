//! The client in the server's own process.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use orch_core::{
    Client, ClientError, ResourceType, Target,
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

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Ok(self.server.newest_resource_types().await?)
    }
}

/// The server's own client, with all rights. It does not keep the server alive, because the
/// server holds what holds it.
#[derive(Clone)]
pub(crate) struct OwnClient(pub(crate) Weak<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("the API server is gone, or not there yet")]
struct Gone;

impl std::fmt::Debug for OwnClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnClient")
    }
}

impl OwnClient {
    fn client(&self) -> Result<LocalClient, ClientError> {
        let server = self.0.upgrade().ok_or_else(|| ClientError::Transport(Box::new(Gone)))?;
        Ok(LocalClient::new(server, UserInfo::master("system:apiserver")))
    }
}

// Boxed futures: the server's verbs call this client, which calls the server's verbs.
#[async_trait]
impl Client for OwnClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.client()?.read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.client()?.write(write).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        self.client()?.watch(target, options).await
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.client()?.resource_types().await
    }
}
