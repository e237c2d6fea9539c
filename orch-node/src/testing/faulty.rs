//! A runtime that fails on demand.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use orch_core::node::Connection;

use crate::runtime::{
    ContainerConfig, ContainerId, ContainerStatus, ContainerUsage, Containers, ExecOutput,
    ExecRequest, ImageError, ImageInfo, ImagePull, Images, Inventory, LogLocation, Runtime,
    RuntimeError, RuntimeEvents, RuntimeInfo, SandboxConfig, SandboxId, SandboxStatus, Sandboxes,
    Stats, StreamSession, Streaming,
};

/// Which call is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuntimeCall {
    /// [`Sandboxes::run_sandbox`].
    RunSandbox,
    /// [`Sandboxes::stop_sandbox`].
    StopSandbox,
    /// [`Sandboxes::remove_sandbox`].
    RemoveSandbox,
    /// [`Containers::create_container`].
    CreateContainer,
    /// [`Containers::start_container`].
    StartContainer,
    /// [`Containers::stop_container`].
    StopContainer,
    /// [`Containers::remove_container`].
    RemoveContainer,
    /// [`Inventory::sandboxes`] or [`Inventory::containers`].
    List,
    /// [`Inventory::info`].
    Info,
    /// [`Images::image`].
    Image,
    /// [`Images::pull_image`].
    PullImage,
    /// [`Streaming::exec_sync`], [`Streaming::exec`] or [`Streaming::attach`].
    Exec,
}

type Decide = dyn Fn(RuntimeCall) -> Option<RuntimeError> + Send + Sync;

/// Passes every call on to another runtime, unless a closure says that it is to fail. A call that
/// fails has not taken place.
#[derive(Clone)]
pub struct FaultyRuntime {
    inner: Arc<dyn Runtime>,
    decide: Arc<Decide>,
}

impl fmt::Debug for FaultyRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyRuntime").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl FaultyRuntime {
    /// A wrapper that asks `decide` before each call; an error that it gives is the answer.
    pub fn new(
        inner: Arc<dyn Runtime>,
        decide: impl Fn(RuntimeCall) -> Option<RuntimeError> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, decide: Arc::new(decide) }
    }

    fn check(&self, call: RuntimeCall) -> Result<(), RuntimeError> {
        match (self.decide)(call) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn check_image(&self, call: RuntimeCall) -> Result<(), ImageError> {
        self.check(call).map_err(|error| ImageError::Unavailable(Box::new(error)))
    }
}

#[async_trait]
impl Sandboxes for FaultyRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.check(RuntimeCall::RunSandbox)?;
        self.inner.run_sandbox(config).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.check(RuntimeCall::StopSandbox)?;
        self.inner.stop_sandbox(sandbox).await
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.check(RuntimeCall::RemoveSandbox)?;
        self.inner.remove_sandbox(sandbox).await
    }
}

#[async_trait]
impl Containers for FaultyRuntime {
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.check(RuntimeCall::CreateContainer)?;
        self.inner.create_container(sandbox, config).await
    }

    async fn start_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        self.check(RuntimeCall::StartContainer)?;
        self.inner.start_container(container).await
    }

    async fn stop_container(
        &self,
        container: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        self.check(RuntimeCall::StopContainer)?;
        self.inner.stop_container(container, grace).await
    }

    async fn remove_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        self.check(RuntimeCall::RemoveContainer)?;
        self.inner.remove_container(container).await
    }

    async fn reopen_log(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.reopen_log(container).await
    }
}

#[async_trait]
impl Inventory for FaultyRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        self.check(RuntimeCall::Info)?;
        self.inner.info().await
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        self.check(RuntimeCall::List)?;
        self.inner.sandboxes(pod_uid).await
    }

    async fn containers(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.check(RuntimeCall::List)?;
        self.inner.containers(pod_uid).await
    }

    fn events(&self) -> RuntimeEvents {
        self.inner.events()
    }

    async fn log_location(&self, container: &ContainerStatus) -> Result<LogLocation, RuntimeError> {
        self.inner.log_location(container).await
    }
}

#[async_trait]
impl Images for FaultyRuntime {
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError> {
        self.check_image(RuntimeCall::Image)?;
        self.inner.image(image).await
    }

    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError> {
        self.check_image(RuntimeCall::PullImage)?;
        self.inner.pull_image(pull).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.inner.images().await
    }

    async fn remove_image(&self, image: &str) -> Result<(), ImageError> {
        self.inner.remove_image(image).await
    }
}

#[async_trait]
impl Streaming for FaultyRuntime {
    async fn exec_sync(
        &self,
        container: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        self.check(RuntimeCall::Exec)?;
        self.inner.exec_sync(container, command, timeout).await
    }

    async fn exec(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        self.check(RuntimeCall::Exec)?;
        self.inner.exec(container, request).await
    }

    async fn attach(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        self.check(RuntimeCall::Exec)?;
        self.inner.attach(container, request).await
    }

    async fn answer_probe(&self, container: &ContainerId) -> Option<bool> {
        self.inner.answer_probe(container).await
    }

    async fn port_forward(
        &self,
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn Connection>, RuntimeError> {
        self.inner.port_forward(sandbox, port).await
    }
}

#[async_trait]
impl Stats for FaultyRuntime {
    async fn usages(&self) -> Result<Vec<(ContainerId, ContainerUsage)>, RuntimeError> {
        self.inner.usages().await
    }

    async fn machine_usage(&self) -> Result<Option<ContainerUsage>, RuntimeError> {
        self.inner.machine_usage().await
    }

    async fn usage(&self, container: &ContainerId) -> Result<ContainerUsage, RuntimeError> {
        self.inner.usage(container).await
    }
}

impl Runtime for FaultyRuntime {}
