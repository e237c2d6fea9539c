//! Containers.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{SeccompProfile, SecurityContext};

use super::{CriRuntime, failed, proto, quick, sandbox::time, unless_gone};
use crate::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Containers, Mount,
    MountPropagation, ResourceLimits, RuntimeError, SandboxId,
};

/// What the runtime needs beyond the grace period to stop a container.
const STOP_MARGIN: Duration = Duration::from_secs(30);
const CPU_PERIOD_US: i64 = 100_000;
const CPU_QUOTA_MIN_US: i64 = 1_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

/// Source: `pkg/securitycontext/util.go`.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[async_trait]
impl Containers for CriRuntime {
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let sandbox_config = self.sandbox_config(sandbox).await?;
        let linux = sandbox_config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let namespaces = linux.and_then(|s| s.namespace_options.clone());
        let request = proto::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(encode(config, namespaces)),
            sandbox_config: Some(sandbox_config),
        };
        let created = self.runtime.clone().create_container(quick(request)).await;
        Ok(ContainerId(created.map_err(failed)?.into_inner().container_id))
    }

    async fn start_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let request = proto::StartContainerRequest { container_id: container.0.clone() };
        match self.runtime.clone().start_container(quick(request)).await.map_err(failed) {
            Ok(_) => Ok(()),
            // The runtime's words tell which program could not be executed.
            Err(RuntimeError::Refused(message)) => Err(RuntimeError::Start(message)),
            Err(error) => Err(error),
        }
    }

    async fn stop_container(
        &self,
        container: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = proto::StopContainerRequest { container_id: container.0.clone(), timeout };
        let mut request = tonic::Request::new(request);
        request.set_timeout(grace + STOP_MARGIN);
        let stopped = self.runtime.clone().stop_container(request).await;
        unless_gone(stopped.map(drop).map_err(failed))
    }

    async fn remove_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let request = proto::RemoveContainerRequest { container_id: container.0.clone() };
        let removed = self.runtime.clone().remove_container(quick(request)).await;
        unless_gone(removed.map(drop).map_err(failed))
    }

    async fn reopen_log(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let request = proto::ReopenContainerLogRequest { container_id: container.0.clone() };
        self.runtime.clone().reopen_container_log(quick(request)).await.map_err(failed)?;
        Ok(())
    }
}

impl CriRuntime {
    pub(super) async fn container_status(
        &self,
        id: &str,
        sandbox: String,
    ) -> Result<ContainerStatus, RuntimeError> {
        let request = proto::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let status = self.runtime.clone().container_status(quick(request)).await;
        let status = status.map_err(failed)?.into_inner().status;
        Ok(decode(status.ok_or_else(|| RuntimeError::no_container(id))?, sandbox))
    }
}

fn encode(
    config: ContainerConfig,
    namespaces: Option<proto::NamespaceOption>,
) -> proto::ContainerConfig {
    let linux = proto::LinuxContainerConfig {
        resources: Some(resources(&config.resources)),
        security_context: Some(security(&config, namespaces)),
    };
    let image = if config.image_id.is_empty() { config.image.clone() } else { config.image_id };
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: config.name, attempt: config.attempt }),
        image: Some(proto::ImageSpec {
            image,
            user_specified_image: config.image,
            ..proto::ImageSpec::default()
        }),
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.env.into_iter().map(|(key, value)| proto::KeyValue { key, value }).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_path: config.log_path.display().to_string(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(linux),
        ..proto::ContainerConfig::default()
    }
}

fn mount(mount: &Mount) -> proto::Mount {
    proto::Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.read_only,
        propagation: match mount.propagation {
            MountPropagation::Private => proto::MountPropagation::PropagationPrivate,
            MountPropagation::HostToContainer => {
                proto::MountPropagation::PropagationHostToContainer
            }
            MountPropagation::Bidirectional => proto::MountPropagation::PropagationBidirectional,
        }
        .into(),
        ..proto::Mount::default()
    }
}

/// Source: `pkg/kubelet/cm/helpers_linux.go`, `MilliCPUToShares` and `MilliCPUToQuota`.
fn resources(limits: &ResourceLimits) -> proto::LinuxContainerResources {
    let shares = limits.cpu_request_millis.map_or(CPU_SHARES_MIN, |millis| {
        millis.saturating_mul(1024).div_euclid(1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
    });
    let quota = limits.cpu_limit_millis.filter(|millis| *millis > 0).map_or(0, |millis| {
        millis.saturating_mul(CPU_PERIOD_US).div_euclid(1000).max(CPU_QUOTA_MIN_US)
    });
    let pages = limits.huge_pages_bytes.iter().map(|(size, bytes)| proto::HugepageLimit {
        page_size: format!("{}B", size.trim_end_matches('i')),
        limit: u64::try_from(*bytes).unwrap_or(0),
    });
    proto::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota,
        cpu_shares: shares,
        memory_limit_in_bytes: limits.memory_limit_bytes.unwrap_or(0),
        oom_score_adj: limits.oom_score_adj.into(),
        hugepage_limits: pages.collect(),
        ..proto::LinuxContainerResources::default()
    }
}

fn security(
    config: &ContainerConfig,
    namespaces: Option<proto::NamespaceOption>,
) -> proto::LinuxContainerSecurityContext {
    let context = &config.security;
    let privileged = context.privileged.unwrap_or(false);
    let unmasked = privileged || context.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| -> Vec<String> {
        if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let number = |value: Option<i64>| value.map(|value| proto::Int64Value { value });
    proto::LinuxContainerSecurityContext {
        capabilities: capabilities(context),
        privileged,
        namespace_options: namespaces,
        run_as_user: number(context.run_as_user),
        // CRI refuses a group without a user.
        run_as_group: number(context.run_as_group.filter(|_| context.run_as_user.is_some())),
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: config.supplemental_groups.clone(),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READ_ONLY_PATHS),
        seccomp: context.seccomp_profile.as_ref().map(seccomp),
        ..proto::LinuxContainerSecurityContext::default()
    }
}

fn capabilities(context: &SecurityContext) -> Option<proto::Capability> {
    let wanted = context.capabilities.as_ref()?;
    Some(proto::Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
        ..proto::Capability::default()
    })
}

fn seccomp(profile: &SeccompProfile) -> proto::SecurityProfile {
    use proto::security_profile::ProfileType;
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    proto::SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

fn decode(status: proto::ContainerStatus, sandbox: String) -> ContainerStatus {
    let metadata = status.metadata.unwrap_or_default();
    ContainerStatus {
        id: ContainerId(status.id),
        sandbox: SandboxId(sandbox),
        name: metadata.name,
        attempt: metadata.attempt,
        state: match proto::ContainerState::try_from(status.state) {
            Ok(proto::ContainerState::ContainerCreated) => ContainerState::Created,
            Ok(proto::ContainerState::ContainerRunning) => ContainerState::Running,
            Ok(proto::ContainerState::ContainerExited) => ContainerState::Exited,
            _ => ContainerState::Unknown,
        },
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.unwrap_or_default().image,
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        log_path: status.log_path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_becomes_shares_and_quota_as_upstream_converts_it() {
        let check = |request: Option<i64>, limit: Option<i64>, shares: i64, quota: i64| {
            let limits = ResourceLimits {
                cpu_request_millis: request,
                cpu_limit_millis: limit,
                ..ResourceLimits::default()
            };
            let encoded = resources(&limits);
            assert_eq!((encoded.cpu_shares, encoded.cpu_quota), (shares, quota));
        };
        check(None, None, 2, 0);
        check(Some(100), Some(200), 102, 20_000);
        check(Some(1000), Some(1), 1024, 1_000);
        check(Some(i64::MAX), Some(0), 262_144, 0);
    }

    #[test]
    fn privileged_containers_see_all_of_proc() {
        let mut config = ContainerConfig::default();
        assert_eq!(security(&config, None).masked_paths.len(), MASKED_PATHS.len());
        config.security.privileged = Some(true);
        assert!(security(&config, None).masked_paths.is_empty());
    }
}
