//! Containers as data.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::SecurityContext;

use super::sandbox::SandboxId;

/// The runtime's own name for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether mounts made inside appear outside and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountPropagation {
    /// Neither. The default.
    #[default]
    Private,
    /// `HostToContainer`.
    HostToContainer,
    /// `Bidirectional`.
    Bidirectional,
}

/// A file or folder of the host that appears inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name; empty for files that the agent provides (the termination log, hosts).
    pub volume: String,
    /// Where it appears, absolute.
    pub container_path: PathBuf,
    /// Where it is, absolute.
    pub host_path: PathBuf,
    /// Whether it cannot be written inside.
    pub read_only: bool,
    /// Mount propagation.
    pub propagation: MountPropagation,
}

/// What a container may use. `None` is unlimited, or the runtime's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Thousandths of a CPU that it may use at most.
    pub cpu_limit_millis: Option<i64>,
    /// Thousandths of a CPU that it is weighted by when CPUs are short.
    pub cpu_request_millis: Option<i64>,
    /// Bytes of memory beyond which it is killed.
    pub memory_limit_bytes: Option<i64>,
    /// How readily the kernel kills it, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Sizes of huge pages to bytes, for example `2Mi`.
    pub huge_pages_bytes: BTreeMap<String, i64>,
}

/// What a container is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerConfig {
    /// Its name in the pod's spec.
    pub name: String,
    /// Counts the pod's containers of this name, from zero.
    pub attempt: u32,
    /// The image as the pod's spec names it.
    pub image: String,
    /// The image's id, as [`super::ImageInfo::id`] has it.
    pub image_id: String,
    /// Replaces the image's entry point. Empty leaves it.
    pub command: Vec<String>,
    /// Replaces the image's command. Empty leaves it.
    pub args: Vec<String>,
    /// Working directory; empty is the image's.
    pub working_dir: String,
    /// Environment in order, names unique.
    pub env: Vec<(String, String)>,
    /// Files and folders of the host.
    pub mounts: Vec<Mount>,
    /// Given back unchanged with its status: [`super::labels`].
    pub labels: BTreeMap<String, String>,
    /// Given back unchanged with its status: [`super::labels`].
    pub annotations: BTreeMap<String, String>,
    /// The log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether standard input closes after the first attachment.
    pub stdin_once: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What it may use.
    pub resources: ResourceLimits,
    /// The container's security context, with what the pod's adds to it merged in.
    pub security: SecurityContext,
    /// Further groups of its processes (`supplementalGroups`, `fsGroup`).
    pub supplemental_groups: Vec<i64>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Ended, by itself or not.
    Exited,
    /// The runtime has lost track of it.
    Unknown,
}

/// What a container is.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// Its name in the pod's spec.
    pub name: String,
    /// Counts the pod's containers of this name, from zero.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code once it ended; 128 and the signal's number when a signal ended it.
    pub exit_code: i32,
    /// A word on why it ended (`OOMKilled`), empty if there is none but the exit code.
    pub reason: String,
    /// A sentence on why it ended, or could not start.
    pub message: String,
    /// The image as configured.
    pub image: String,
    /// The id of the image that it really runs.
    pub image_id: String,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
    /// The log file, absolute; empty if there is none.
    pub log_path: PathBuf,
}

impl ContainerStatus {
    /// A label's value, empty if it is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == ContainerState::Running
    }
}
