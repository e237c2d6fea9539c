//! Containers by any runtime that speaks CRI v1: containerd, CRI-O.
//!
//! Pods get their addresses from the runtime's own CNI plugins. Streams (exec, attach,
//! port-forward) go through the runtime's streaming server, in SPDY, because that is what every
//! CRI runtime speaks and because it can close standard input.
//!
//! Source: `cri-api/pkg/apis/runtime/v1/api.proto`, `pkg/kubelet/kuberuntime`.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    ContainerId, ContainerStatus, ContainerUsage, Inventory, Runtime, RuntimeError, RuntimeEvents,
    RuntimeInfo, SandboxStatus, Stats,
};

mod container;
mod events;
mod image;
#[rustfmt::skip]
mod proto;
mod sandbox;
mod streaming;

use proto::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

/// Where containerd listens.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where CRI-O listens.
pub const CRIO_SOCKET: &str = "/var/run/crio/crio.sock";

/// Calls that are answered from the runtime's memory.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest message that a list may be.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Statuses that are asked for at a time.
const STATUS_CONCURRENCY: usize = 16;

/// A CRI runtime behind a Unix socket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CriRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    socket: Arc<str>,
}

impl CriRuntime {
    /// A runtime behind `socket`, a path or a `unix://` URL. Nothing is dialed yet; a runtime that
    /// is not there shows as [`RuntimeError::Unavailable`] with the first call, and is dialed
    /// again with the next.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidArgument`] if `socket` is no absolute path.
    pub fn new(socket: &str) -> Result<Self, RuntimeError> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        if !Path::new(path).is_absolute() {
            let message = format!("{socket:?} is not the path of a Unix socket");
            return Err(RuntimeError::InvalidArgument(message));
        }
        let endpoint = Endpoint::from_shared(format!("unix://{path}"))
            .map_err(|error| RuntimeError::InvalidArgument(format!("{socket:?}: {error}")))?;
        let channel = endpoint.connect_lazy();
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            socket: path.into(),
        })
    }

    /// The first of the well-known sockets that exists.
    pub fn find_socket() -> Option<&'static str> {
        [CONTAINERD_SOCKET, CRIO_SOCKET].into_iter().find(|socket| Path::new(socket).exists())
    }

    /// The path of the socket.
    pub fn socket(&self) -> &str {
        &self.socket
    }
}

/// A request with the deadline of quick calls.
fn quick<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn failed(status: Status) -> RuntimeError {
    match status.code() {
        Code::NotFound => RuntimeError::NotFound { kind: "object", id: status.message().into() },
        Code::Unimplemented => RuntimeError::NotSupported("this CRI call"),
        Code::InvalidArgument => RuntimeError::InvalidArgument(status.message().into()),
        Code::DeadlineExceeded => RuntimeError::Timeout(CALL_TIMEOUT),
        Code::Unavailable => RuntimeError::Unavailable(Box::new(status)),
        _ => RuntimeError::Refused(status.message().into()),
    }
}

/// What is gone already has been stopped and removed.
fn unless_gone(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(RuntimeError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Inventory for CriRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let mut client = self.runtime.clone();
        let version = client.version(quick(proto::VersionRequest::default())).await;
        let version = version.map_err(failed)?.into_inner();
        let status = client.status(quick(proto::StatusRequest::default())).await;
        let conditions = status.map_err(failed)?.into_inner().status.unwrap_or_default().conditions;
        let problem = |kind: &str| {
            let condition = conditions.iter().find(|c| c.r#type == kind && !c.status);
            condition.map(|c| (c.reason.clone(), c.message.clone()))
        };
        Ok(RuntimeInfo {
            name: version.runtime_name,
            version: version.runtime_version,
            not_ready: problem("RuntimeReady"),
            network_not_ready: problem("NetworkReady"),
            assigns_addresses: true,
            mounts_volumes: true,
            tells_events: true,
            has_files: true,
        })
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let filter = proto::PodSandboxFilter {
            label_selector: of_pod(pod_uid),
            ..proto::PodSandboxFilter::default()
        };
        let request = proto::ListPodSandboxRequest { filter: Some(filter) };
        let listed = self.runtime.clone().list_pod_sandbox(quick(request)).await;
        let ids = listed.map_err(failed)?.into_inner().items.into_iter().map(|s| s.id);
        let found = futures::stream::iter(ids)
            .map(|id| async move { self.sandbox_status(&id).await })
            .buffered(STATUS_CONCURRENCY);
        let mut found = present(found.collect::<Vec<_>>().await)?;
        found.sort_by_key(|s| std::cmp::Reverse(s.metadata.attempt));
        Ok(found)
    }

    async fn containers(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let filter = proto::ContainerFilter {
            label_selector: of_pod(pod_uid),
            ..proto::ContainerFilter::default()
        };
        let request = proto::ListContainersRequest { filter: Some(filter) };
        let listed = self.runtime.clone().list_containers(quick(request)).await;
        let listed = listed.map_err(failed)?.into_inner().containers;
        let found = futures::stream::iter(listed)
            .map(|c| async move { self.container_status(&c.id, c.pod_sandbox_id).await })
            .buffered(STATUS_CONCURRENCY);
        let mut found = present(found.collect::<Vec<_>>().await)?;
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.attempt.cmp(&a.attempt)));
        Ok(found)
    }

    fn events(&self) -> RuntimeEvents {
        events::subscribe(self.clone())
    }
}

fn of_pod(uid: Option<&str>) -> std::collections::HashMap<String, String> {
    uid.map(|uid| (super::labels::POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

/// What went away between the list and the look at it is not there.
fn present<T>(found: Vec<Result<T, RuntimeError>>) -> Result<Vec<T>, RuntimeError> {
    let gone = |r: &Result<T, RuntimeError>| matches!(r, Err(RuntimeError::NotFound { .. }));
    found.into_iter().filter(|r| !gone(r)).collect()
}

#[async_trait]
impl Stats for CriRuntime {
    async fn usages(&self) -> Result<Vec<(ContainerId, ContainerUsage)>, RuntimeError> {
        let request = proto::ListContainerStatsRequest { filter: None };
        let listed = self.runtime.clone().list_container_stats(quick(request)).await;
        let listed = listed.map_err(failed)?.into_inner().stats.into_iter();
        let usages = listed.filter_map(|mut stats| {
            let id = ContainerId(stats.attributes.take()?.id);
            Some((id, measured(&stats)?))
        });
        Ok(usages.collect())
    }

    async fn usage(&self, container: &ContainerId) -> Result<ContainerUsage, RuntimeError> {
        let request = proto::ContainerStatsRequest { container_id: container.0.clone() };
        let stats = self.runtime.clone().container_stats(quick(request)).await.map_err(failed)?;
        let stats = stats.into_inner().stats.unwrap_or_default();
        measured(&stats).ok_or_else(|| RuntimeError::no_container(&container.0))
    }

    async fn machine_usage(&self) -> Result<Option<ContainerUsage>, RuntimeError> {
        Ok(crate::machine::usage())
    }
}

/// `None` for a container that does not run: containerd tells of those too, without a usage.
fn measured(stats: &proto::ContainerStats) -> Option<ContainerUsage> {
    let (cpu, memory) = (stats.cpu.as_ref()?, stats.memory.as_ref()?);
    let value = |value: &Option<proto::UInt64Value>| value.as_ref().map_or(0, |value| value.value);
    Some(ContainerUsage {
        cpu_ns: value(&cpu.usage_core_nano_seconds),
        working_set_bytes: value(&memory.working_set_bytes),
    })
}

impl Runtime for CriRuntime {}
