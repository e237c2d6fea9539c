//! A client whose every call is expected beforehand.

use async_trait::async_trait;

use crate::{
    client::{ClientError, Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
    resource::{ResourceType, Target},
};

mockall::mock! {
    /// A client that answers as it was told and fails the test on any other call, for tests of
    /// exactly which calls a component makes. For everything else [`super::MemoryClient`] reads
    /// better.
    ///
    /// ```
    /// use k8s_openapi::api::core::v1::Pod;
    /// use orch_core::{ApiError, Client, ResourceType, Target, client::Write, testing::MockClient};
    ///
    /// # futures::executor::block_on(async {
    /// let mut client = MockClient::new();
    /// client
    ///     .expect_write()
    ///     .withf(|write| matches!(write, Write::Delete(..)))
    ///     .once()
    ///     .returning(|_| Err(ApiError::not_found("", "pods", "web").into()));
    ///
    /// let web = Target::object(ResourceType::of::<Pod>(), Some("default"), "web");
    /// let gone = client.write(Write::Delete(web, Default::default())).await;
    /// assert!(gone.is_err_and(|error| error.is_not_found()));
    /// # });
    /// ```
    #[derive(Debug)]
    pub Client {}

    #[async_trait]
    impl crate::client::Client for Client {
        async fn read(&self, read: Read) -> Result<ReadReply, ClientError>;
        async fn write(&self, write: Write) -> Result<WriteReply, ClientError>;
        async fn watch(
            &self,
            target: Target,
            options: WatchOptions,
        ) -> Result<WatchStream, ClientError>;
        async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError>;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::{ApiError, Resources};

    #[tokio::test]
    async fn a_missing_object_is_asked_for_once_and_is_none() {
        let mut client = MockClient::new();
        client
            .expect_read()
            .withf(|read| matches!(read, Read::Get(target) if target.name.as_deref() == Some("a")))
            .once()
            .returning(|_| Err(ApiError::not_found("", "pods", "a").into()));
        let pods = Resources::<Pod>::namespaced(std::sync::Arc::new(client), "default");
        assert!(pods.get_opt("a").await.unwrap().is_none());
    }
}
