//! The seam to what really runs containers, in CRI's shape.
//!
//! [`Runtime`] is the sum of six small contracts: [`Sandboxes`] and [`Containers`] change what
//! runs, [`Inventory`] tells what there is and what happens, [`Images`] provides images,
//! [`Streaming`] reaches into what runs, and [`Stats`] measures it. The node agent takes an
//! `Arc<dyn Runtime>`; whoever writes a runtime implements the six and then
//! `impl Runtime for Mine { .. }`, and proves it with `orch_node::testing`.
//!
//! # The contract that all six share
//!
//! - **The runtime is the truth.** Whatever the agent must know about a workload after a restart
//!   it puts into names, labels and annotations, and the runtime gives them back unchanged for as
//!   long as the sandbox or container exists. The agent keeps nothing on disk itself.
//! - **Idempotence.** Every stopping and removing call succeeds on what is already stopped or
//!   gone. Running a sandbox and creating a container are not idempotent: the agent looks at the
//!   inventory first.
//! - **Cancellation.** Dropping a future abandons the waiting, not necessarily the work: the call
//!   takes place wholly or not at all, and the inventory tells which.
//! - **Blocking.** [`Images::pull_image`] and [`Containers::stop_container`] may take minutes; every
//!   other call is expected to answer within seconds. Calls for different pods run concurrently.
//!
//! Source: `cri-api/pkg/apis/runtime/v1/api.proto`.
//!
//! Differs: one list call returns whole statuses, because the agent needs them anyway; streaming
//! calls give streams instead of an URL.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;
use orch_core::node::Connection;

mod container;
pub mod cri;
mod error;
mod events;
mod image;
pub mod labels;
pub mod process;
mod sandbox;
pub mod simulated;
mod streaming;

pub use container::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Mount, MountPropagation,
    ResourceLimits,
};
pub use error::{ImageError, RuntimeError};
pub use events::RuntimeEventSender;
pub use image::{ImageInfo, ImagePull, RegistryAuth};
pub use sandbox::{
    DnsConfig, HostNamespaces, PortMapping, Protocol, SandboxConfig, SandboxId, SandboxMetadata,
    SandboxState, SandboxStatus,
};
pub use streaming::{ByteSink, ByteSource, ExecOutput, ExecRequest, StreamSession, TerminalSize};

/// Which runtime this is and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Its name, as `nodeInfo.containerRuntimeVersion` has it before `://`.
    pub name: String,
    /// Its version, as `nodeInfo.containerRuntimeVersion` has it behind `://`.
    pub version: String,
    /// Whether it can run pods now. A reason and a message when it cannot.
    pub not_ready: Option<(String, String)>,
    /// Whether its pods' network is up. A reason and a message when it is not.
    pub network_not_ready: Option<(String, String)>,
    /// Whether it gives sandboxes their addresses itself (CNI does). If not, the agent allocates
    /// one for each pod and hands it over in [`SandboxConfig::address`].
    pub assigns_addresses: bool,
    /// Whether mounts appear at their paths inside containers. If not, containers find each
    /// volume's host path in the environment variable `ORCH_VOLUME_<NAME>`.
    pub mounts_volumes: bool,
    /// Whether [`Inventory::events`] tells every change. If not, the agent lists the runtime often.
    pub tells_events: bool,
    /// Whether the files of volumes and of `hostPath` exist on this machine's disk. A simulated
    /// runtime has no files, and the agent prepares none for it.
    pub has_files: bool,
}

/// What happened, without the request that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeEvent {
    /// Something about a pod's sandbox or containers changed.
    PodChanged {
        /// The pod's uid, as its sandbox's metadata has it.
        pod_uid: String,
    },
    /// Events were lost: look at everything.
    Lost,
}

/// Events in the order in which they took place. When it ends, subscribe again and relist.
pub type RuntimeEvents = BoxStream<'static, RuntimeEvent>;

/// Where a container's output is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogLocation {
    /// A file in the CRI log format, see [`crate::logs`]; rotated ones lie beside it as
    /// `NAME.TIMESTAMP`.
    File(PathBuf),
    /// The text itself, in the CRI log format, one entry per line. Of runtimes without files.
    Text(Arc<str>),
}

/// Pod sandboxes: what a pod's containers share.
#[async_trait]
pub trait Sandboxes: Send + Sync + fmt::Debug + 'static {
    /// Creates and starts a sandbox. When it returns, containers can be created in it.
    ///
    /// # Errors
    /// [`RuntimeError`]; nothing is left behind then that [`Sandboxes::remove_sandbox`] could not
    /// remove.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Kills what still runs in the sandbox and gives back its network. Idempotent; succeeds on
    /// an unknown sandbox.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes the sandbox and every container in it, by force. Idempotent; succeeds on an
    /// unknown sandbox. Log files stay: the agent removes them with the pod.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError>;
}

/// Containers: created, started, stopped and removed one by one.
#[async_trait]
pub trait Containers: Send + Sync + fmt::Debug + 'static {
    /// Creates a container without starting it. The image must be present.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown sandbox or image,
    /// [`RuntimeError::InvalidArgument`] for a configuration that can never work.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] when the program cannot be executed; the container is then exited
    /// with code 128.
    async fn start_container(&self, container: &ContainerId) -> Result<(), RuntimeError>;

    /// Asks the container to stop (its stop signal, SIGTERM by default), kills it once `grace`
    /// has passed, and returns when it has exited. Idempotent; succeeds on an unknown container.
    /// A second call with a shorter grace period shortens the first one's.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn stop_container(
        &self,
        container: &ContainerId,
        grace: std::time::Duration,
    ) -> Result<(), RuntimeError>;

    /// Removes a container, killing it if it runs. Idempotent; succeeds on an unknown container.
    /// Its log file stays.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn remove_container(&self, container: &ContainerId) -> Result<(), RuntimeError>;

    /// Goes on writing to a new file at the container's log path, after the old one was renamed.
    ///
    /// # Errors
    /// [`RuntimeError::NotSupported`] by default: the logs are then not rotated.
    async fn reopen_log(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let _unused_by_default = container;
        Err(RuntimeError::NotSupported("log rotation"))
    }
}

/// What there is, and what happens to it.
#[async_trait]
pub trait Inventory: Send + Sync + fmt::Debug + 'static {
    /// Which runtime this is and whether it is ready.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when it cannot be reached.
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

    /// All sandboxes, or those of one pod, newest attempt first within a pod.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// All containers, or those of one pod, newest attempt first within a name.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn containers(&self, pod_uid: Option<&str>)
    -> Result<Vec<ContainerStatus>, RuntimeError>;

    /// Changes from now on. A runtime that cannot tell gives a stream that never yields: the
    /// agent relists from time to time anyway.
    fn events(&self) -> RuntimeEvents;

    /// Where a container's output is. The default is the log path of its status.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown container.
    async fn log_location(&self, container: &ContainerStatus) -> Result<LogLocation, RuntimeError> {
        Ok(LogLocation::File(container.log_path.clone()))
    }
}

/// Images by reference (`nginx`, `registry:5000/team/app:v1`, `app@sha256:...`).
#[async_trait]
pub trait Images: Send + Sync + fmt::Debug + 'static {
    /// What is known of an image, `None` if it is not present.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`], [`ImageError::Unavailable`].
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError>;

    /// Brings an image here. Idempotent.
    ///
    /// # Errors
    /// [`ImageError`].
    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError>;

    /// All images that are present. The default knows of none.
    ///
    /// # Errors
    /// [`ImageError::Unavailable`].
    async fn images(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(Vec::new())
    }

    /// Removes an image. Idempotent. The default removes nothing.
    ///
    /// # Errors
    /// [`ImageError::Unavailable`].
    async fn remove_image(&self, image: &str) -> Result<(), ImageError> {
        let _unused_by_default = image;
        Ok(())
    }
}

/// Reaching into what runs.
#[async_trait]
pub trait Streaming: Send + Sync + fmt::Debug + 'static {
    /// Runs a command in a container and collects its output (at most 16 MiB of each stream).
    ///
    /// # Errors
    /// [`RuntimeError::Timeout`] when `timeout` has passed (the command is killed),
    /// [`RuntimeError::NotFound`] for a container that is unknown or does not run,
    /// [`RuntimeError::Start`] when the command cannot be executed.
    async fn exec_sync(
        &self,
        container: &ContainerId,
        command: &[String],
        timeout: Option<std::time::Duration>,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Runs a command in a container with its streams connected.
    ///
    /// # Errors
    /// As for [`Streaming::exec_sync`], without the timeout.
    async fn exec(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let _unused_by_default = (container, request);
        Err(RuntimeError::NotSupported("exec"))
    }

    /// Connects to the streams of a container's main process. Output from now on; `request`'s
    /// command is ignored.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for a container that is unknown or does not run,
    /// [`RuntimeError::NotSupported`] by default.
    async fn attach(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let _unused_by_default = (container, request);
        Err(RuntimeError::NotSupported("attach"))
    }

    /// Answers a probe over the network (HTTP, TCP, gRPC) in place of a container that has no
    /// network. The default is `None`: the agent probes the pod's address by itself.
    async fn answer_probe(&self, container: &ContainerId) -> Option<bool> {
        let _unused_by_default = container;
        None
    }

    /// A connection to a TCP port inside a sandbox.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown sandbox, [`RuntimeError::Io`] when nothing
    /// listens, [`RuntimeError::NotSupported`] by default.
    async fn port_forward(
        &self,
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn Connection>, RuntimeError> {
        let _unused_by_default = (sandbox, port);
        Err(RuntimeError::NotSupported("port forwarding"))
    }
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// CPU time used since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub working_set_bytes: u64,
}

/// Measuring what runs. CPU time only grows while a container runs, so that a rate is the
/// difference of two measurements.
#[async_trait]
pub trait Stats: Send + Sync + fmt::Debug + 'static {
    /// What every running container uses now, in one call because all of them are measured
    /// together, again and again.
    ///
    /// # Errors
    /// [`RuntimeError::NotSupported`] by default.
    async fn usages(&self) -> Result<Vec<(ContainerId, ContainerUsage)>, RuntimeError> {
        Err(RuntimeError::NotSupported("usage statistics"))
    }

    /// What a container uses now.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for one that does not run; those of [`Stats::usages`].
    async fn usage(&self, container: &ContainerId) -> Result<ContainerUsage, RuntimeError> {
        let all = self.usages().await?;
        let found = all.into_iter().find(|(id, _)| id == container);
        found.map(|(_, usage)| usage).ok_or_else(|| RuntimeError::no_container(&container.0))
    }

    /// What the whole machine uses now, with what is no container. The default does not know; the
    /// sum of the containers then stands for it.
    ///
    /// # Errors
    /// [`RuntimeError`].
    async fn machine_usage(&self) -> Result<Option<ContainerUsage>, RuntimeError> {
        Ok(None)
    }
}

/// Everything that runs pods. See the [module](self) for the contract.
pub trait Runtime: Sandboxes + Containers + Inventory + Images + Streaming + Stats {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_object_safe() {
        fn takes(_: Option<Arc<dyn Runtime>>) {}
        takes(None);
    }
}
