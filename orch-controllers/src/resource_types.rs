//! Which kinds of objects there are, for controllers that work on all of them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{Client, ClientError, ResourceType};

/// Which kinds of objects there are. Asked each time, so that kinds may come and go.
///
/// A client is one, which asks its cluster: custom resources are among them as they come and go. A
/// list of [`ResourceType`]s is one too, and so is a closure that gives one.
#[async_trait]
pub trait ResourceTypes: Send + Sync + 'static {
    /// Every resource that can be listed and deleted, each in one version.
    ///
    /// # Errors
    /// [`ClientError`] if that cannot be found out now.
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError>;
}

#[async_trait]
impl ResourceTypes for Vec<ResourceType> {
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Ok(self.clone())
    }
}

#[async_trait]
impl<F> ResourceTypes for F
where
    F: Fn() -> Vec<ResourceType> + Send + Sync + 'static,
{
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Ok(self())
    }
}

#[async_trait]
impl ResourceTypes for Arc<dyn ResourceTypes> {
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        (**self).resource_types().await
    }
}

impl fmt::Debug for dyn ResourceTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceTypes")
    }
}

/// By asking the cluster.
#[async_trait]
impl ResourceTypes for Arc<dyn Client> {
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        (**self).resource_types().await
    }
}
