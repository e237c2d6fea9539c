//! Pod sandboxes.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{CriRuntime, failed, proto, quick, unless_gone};
use crate::runtime::{
    Protocol, RuntimeError, SandboxConfig, SandboxId, SandboxMetadata, SandboxState, SandboxStatus,
    Sandboxes,
};

/// Annotation of sandboxes: the log directory, which CRI wants again with every container but does
/// not give back.
const LOG_DIRECTORY: &str = "orch.io/log-directory";

#[async_trait]
impl Sandboxes for CriRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let runtime_handler = config.runtime_handler.clone();
        let request = proto::RunPodSandboxRequest { config: Some(encode(config)), runtime_handler };
        let ran = self.runtime.clone().run_pod_sandbox(quick(request)).await;
        Ok(SandboxId(ran.map_err(failed)?.into_inner().pod_sandbox_id))
    }

    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let request = proto::StopPodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
        let stopped = self.runtime.clone().stop_pod_sandbox(quick(request)).await;
        unless_gone(stopped.map(drop).map_err(failed))
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let request = proto::RemovePodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
        let removed = self.runtime.clone().remove_pod_sandbox(quick(request)).await;
        unless_gone(removed.map(drop).map_err(failed))
    }
}

impl CriRuntime {
    async fn raw_sandbox(&self, id: &str) -> Result<proto::PodSandboxStatus, RuntimeError> {
        let request =
            proto::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = self.runtime.clone().pod_sandbox_status(quick(request)).await;
        let status = status.map_err(failed)?.into_inner().status;
        status.ok_or_else(|| RuntimeError::no_sandbox(id))
    }

    pub(super) async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        Ok(decode(self.raw_sandbox(id).await?))
    }

    /// A sandbox's configuration, as far as containers in it need it.
    pub(super) async fn sandbox_config(
        &self,
        sandbox: &SandboxId,
    ) -> Result<proto::PodSandboxConfig, RuntimeError> {
        let status = self.raw_sandbox(&sandbox.0).await?;
        let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
        let security = proto::LinuxSandboxSecurityContext {
            namespace_options: options,
            ..proto::LinuxSandboxSecurityContext::default()
        };
        Ok(proto::PodSandboxConfig {
            metadata: status.metadata,
            log_directory: status.annotations.get(LOG_DIRECTORY).cloned().unwrap_or_default(),
            labels: status.labels,
            annotations: status.annotations,
            linux: Some(proto::LinuxPodSandboxConfig {
                security_context: Some(security),
                ..proto::LinuxPodSandboxConfig::default()
            }),
            ..proto::PodSandboxConfig::default()
        })
    }
}

fn encode(config: SandboxConfig) -> proto::PodSandboxConfig {
    let linux = linux(&config);
    let metadata = config.metadata;
    let log_directory = config.log_directory.display().to_string();
    let mut annotations: std::collections::HashMap<_, _> = config.annotations.into_iter().collect();
    annotations.insert(LOG_DIRECTORY.to_owned(), log_directory.clone());
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            attempt: metadata.attempt,
        }),
        hostname: if config.host_namespaces.network { String::new() } else { config.hostname },
        log_directory,
        dns_config: Some(proto::DnsConfig {
            servers: config.dns.servers,
            searches: config.dns.searches,
            options: config.dns.options,
        }),
        port_mappings: config
            .port_mappings
            .into_iter()
            .map(|port| proto::PortMapping {
                protocol: match port.protocol {
                    Protocol::Tcp => proto::Protocol::Tcp,
                    Protocol::Udp => proto::Protocol::Udp,
                    Protocol::Sctp => proto::Protocol::Sctp,
                }
                .into(),
                container_port: port.container_port.into(),
                host_port: port.host_port.into(),
                host_ip: port.host_ip,
            })
            .collect(),
        labels: config.labels.into_iter().collect(),
        annotations,
        linux: Some(linux),
        windows: None,
    }
}

fn linux(config: &SandboxConfig) -> proto::LinuxPodSandboxConfig {
    let security = &config.security;
    let number = |value: Option<i64>| value.map(|value| proto::Int64Value { value });
    proto::LinuxPodSandboxConfig {
        security_context: Some(proto::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(config)),
            run_as_user: number(security.run_as_user),
            // CRI refuses a group without a user.
            run_as_group: number(security.run_as_group.filter(|_| security.run_as_user.is_some())),
            supplemental_groups: security.supplemental_groups.clone().unwrap_or_default(),
            ..proto::LinuxSandboxSecurityContext::default()
        }),
        sysctls: config.sysctls.clone().into_iter().collect(),
        ..proto::LinuxPodSandboxConfig::default()
    }
}

fn namespaces(config: &SandboxConfig) -> proto::NamespaceOption {
    let shared = &config.host_namespaces;
    let mode = |host: bool| -> i32 {
        if host { proto::NamespaceMode::Node } else { proto::NamespaceMode::Pod }.into()
    };
    proto::NamespaceOption {
        network: mode(shared.network),
        pid: match (shared.pid, shared.share_process) {
            (true, _) => proto::NamespaceMode::Node,
            (false, true) => proto::NamespaceMode::Pod,
            (false, false) => proto::NamespaceMode::Container,
        }
        .into(),
        ipc: mode(shared.ipc),
        ..proto::NamespaceOption::default()
    }
}

fn decode(status: proto::PodSandboxStatus) -> SandboxStatus {
    let metadata = status.metadata.unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let further = network.additional_ips.into_iter().map(|ip| ip.ip);
    let ready = status.state == i32::from(proto::PodSandboxState::SandboxReady);
    SandboxStatus {
        id: SandboxId(status.id),
        metadata: SandboxMetadata {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            attempt: metadata.attempt,
        },
        state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ips: std::iter::once(network.ip).chain(further).filter_map(|ip| ip.parse().ok()).collect(),
        labels: status.labels.into_iter().collect(),
        // What was added for our own use was not asked for.
        annotations: status
            .annotations
            .into_iter()
            .filter(|(key, _)| key != LOG_DIRECTORY)
            .collect(),
    }
}

/// A time in nanoseconds; zero and less is none.
pub(super) fn time(nanoseconds: i64) -> Option<Timestamp> {
    let time = (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()));
    time.and_then(Result::ok)
}
