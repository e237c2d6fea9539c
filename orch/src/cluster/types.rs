//! Which kinds of objects the cluster has, for the controllers that work on all of them.

use async_trait::async_trait;
use orch_api::ApiServer;
use orch_controllers::namespace::ResourceTypes;
use orch_core::{ClientError, ResourceType};

/// What the server serves when it is asked, custom resources included.
pub(super) struct Served(pub(super) ApiServer);

#[async_trait]
impl ResourceTypes for Served {
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Ok(self.0.newest_resource_types().await?)
    }
}
