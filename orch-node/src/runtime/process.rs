//! [`ProcessRuntime`]: containers are processes on the host.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use orch_core::Environment;
use parking_lot::Mutex;
use tokio::{io::unix::AsyncFd, sync::watch};

mod containers;
mod images;
mod sandboxes;
mod streams;
mod usage;

use super::{
    ContainerId, ContainerState, ContainerStatus, Runtime, RuntimeError, RuntimeEventSender,
    SandboxId,
};
use crate::shim::record::{
    self, CONFIG, ContainerRecord, STATE, SandboxRecord, StateRecord, VERSION, timestamp,
};

/// What the process runtime is told.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The folder that holds the state of sandboxes and containers. A runtime that is opened on
    /// the same folder again adopts what runs.
    pub root: PathBuf,
    /// Image names to executables, for containers without a command of their own. A name without
    /// a tag stands for every tag. Default: none.
    pub images: BTreeMap<String, PathBuf>,
    /// A folder whose executables are images too: `example.org/team/app:v1` is its file `app`.
    /// Default: none.
    pub image_folder: Option<PathBuf>,
    /// The executable that calls [`crate::shim::main_if_requested`]. Default: this process's own.
    pub shim: Option<PathBuf>,
    /// Whether volumes and files are mounted at their paths, in a mount namespace per container.
    /// Needs the right to (`CAP_SYS_ADMIN`). Default: if the process has it.
    pub mounts: bool,
}

/// Whether the process may make mount namespaces. Root inside a container often may not.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_SYS_ADMIN) != 0)
}

impl ProcessOptions {
    /// The defaults, with this state folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            images: BTreeMap::new(),
            image_folder: None,
            shim: None,
            mounts: nix::unistd::Uid::effective().is_root() && may_mount(),
        }
    }
}

/// A container as this process knows it.
#[derive(Debug)]
struct Container {
    record: ContainerRecord,
    state: Option<StateRecord>,
    /// True once it has ended.
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Known {
    sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    containers: BTreeMap<ContainerId, Container>,
}

#[derive(Debug)]
struct Shared {
    options: ProcessOptions,
    shim: PathBuf,
    sockets: PathBuf,
    environment: Environment,
    events: RuntimeEventSender,
    known: Mutex<Known>,
}

/// Runs containers as processes of the host, without a daemon and **without isolation**: they see
/// the host's files, network and processes, and run as the user that the agent runs as unless
/// `runAsUser` says otherwise (which needs root). It is for development, tests and trusted
/// workloads.
///
/// - **Images are names.** A container's `command` and `args` run on the host. Without a command
///   the image must be one of [`ProcessOptions::images`].
/// - **Addresses.** The agent gives each pod an address of its own out of the loopback network;
///   nothing stops a process from listening on all addresses, and then two pods that use one port
///   are in each other's way.
/// - **Volumes** are bind-mounted at their paths inside a mount namespace per container when the
///   process is root. Mount points that the host lacks are created on it. Without root the folders
///   are only told of, in `ORCH_VOLUME_<NAME>`, and the file for the termination message in
///   `ORCH_TERMINATION_LOG`.
/// - **Memory limits** are enforced through cgroups (version 1 or 2) where those can be written,
///   which takes root; otherwise they are not. CPU limits are not enforced.
/// - **What they use** is read from `/proc`: the processes of a container's session, and memory that
///   no file stands behind. A process that begins a session of its own is not counted.
/// - **Shims.** Each container has a process beside it that writes its log and keeps its exit
///   code, so that containers outlive the agent. The executable must call
///   [`crate::shim::main_if_requested`].
///
/// Cheap to clone; the clones share everything. Two runtimes must not use one folder at a time.
#[derive(Clone, Debug)]
pub struct ProcessRuntime(Arc<Shared>);

/// Paths of sockets are limited to 107 bytes by the system.
const SOCKET_PATH_MAX: usize = 107;
const ID_LENGTH: usize = 16;

/// A folder for sockets, short enough.
fn sockets_dir(root: &Path) -> PathBuf {
    let own = root.join("sockets");
    if own.as_os_str().len() + 1 + ID_LENGTH <= SOCKET_PATH_MAX {
        return own;
    }
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in root.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    std::env::temp_dir().join(format!("orch-{hash:016x}"))
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// All state folders below one.
fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(of)?;
    entries.map(|entry| entry.map(|e| e.path())).collect()
}

impl ProcessRuntime {
    /// Opens the state folder, creating it if need be, and adopts what runs. Call it inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] if the folder cannot be used. A broken state folder of one container
    /// is left alone and logged.
    pub fn open(options: ProcessOptions, environment: Environment) -> Result<Self, RuntimeError> {
        let io = |path: &Path| {
            let text = format!("cannot use the folder {}", path.display());
            move |error| RuntimeError::Io(text, error)
        };
        let options = ProcessOptions {
            root: std::path::absolute(&options.root).map_err(io(&options.root))?,
            ..options
        };
        let sockets = sockets_dir(&options.root);
        for folder in [&options.root, &sockets] {
            make_private_dir(folder).map_err(io(folder))?;
        }
        // Files of volumes lie elsewhere; what is in here is nobody else's business.
        for name in ["sandboxes", "containers"] {
            let folder = options.root.join(name);
            make_private_dir(&folder).map_err(io(&folder))?;
        }
        let shim = match options.shim.clone() {
            Some(shim) => shim,
            None => std::env::current_exe().map_err(io(Path::new("/proc/self/exe")))?,
        };
        let events = RuntimeEventSender::new(1024);
        let known = Mutex::default();
        let root = options.root.clone();
        let runtime = Self(Arc::new(Shared { options, shim, sockets, environment, events, known }));
        runtime.load().map_err(io(&root))?;
        Ok(runtime)
    }

    fn load(&self) -> io::Result<()> {
        let root = &self.0.options.root;
        // A sandbox's `resolv.conf` lies beside its record.
        let is_record = |file: &PathBuf| file.extension().is_none_or(|end| end != "conf");
        for file in folders(&root.join("sandboxes"))?.into_iter().filter(is_record) {
            match record::read::<SandboxRecord>(&file) {
                Ok(found) if found.version == VERSION => {
                    let id = SandboxId(found.id.clone());
                    self.0.known.lock().sandboxes.insert(id, found);
                }
                _ => tracing::warn!(file = %file.display(), "not a sandbox's state"),
            }
        }
        let mut running = Vec::new();
        for folder in folders(&root.join("containers"))? {
            match record::read::<ContainerRecord>(&folder.join(CONFIG)) {
                Ok(found) if found.version == VERSION => {
                    let id = ContainerId(found.id.clone());
                    let state = record::read::<StateRecord>(&folder.join(STATE)).ok();
                    let runs = state.as_ref().is_some_and(|s| s.finished_at.is_none());
                    let ended = watch::Sender::new(state.is_some() && !runs);
                    let container = Container { record: found, state, ended };
                    self.0.known.lock().containers.insert(id.clone(), container);
                    if runs {
                        running.push(id);
                    }
                }
                _ => tracing::warn!(folder = %folder.display(), "not a container's state"),
            }
        }
        for id in running {
            self.follow(id);
        }
        Ok(())
    }

    fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.0.options.root.join("containers").join(&id.0)
    }

    fn sandbox_file(&self, id: &SandboxId) -> PathBuf {
        self.0.options.root.join("sandboxes").join(format!("{}.json", id.0))
    }

    fn changed(&self, container: &ContainerId) {
        let uid = {
            let known = self.0.known.lock();
            known.containers.get(container).map(|c| c.record.pod_uid.clone())
        };
        if let Some(uid) = uid {
            self.0.events.pod_changed(&uid);
        }
    }

    /// Waits in a task for the end of a container's shim and takes its last word.
    fn follow(&self, id: ContainerId) {
        let runtime = self.clone();
        tokio::spawn(async move {
            let shim = {
                let known = runtime.0.known.lock();
                let state = known.containers.get(&id).and_then(|c| c.state.as_ref());
                state.map(|s| s.shim)
            };
            if let Some(shim) = shim {
                wait_for_end(shim).await;
            }
            runtime.take_end(&id);
        });
    }

    /// The shim has ended: what it has left is the container's last state.
    fn take_end(&self, id: &ContainerId) {
        let is_known_to_run =
            |c: &Container| c.state.as_ref().is_some_and(|state| state.finished_at.is_none());
        if !self.0.known.lock().containers.get(id).is_some_and(is_known_to_run) {
            // The start saw the end already, and the folder may be on its way out.
            return;
        }
        let file = self.container_dir(id).join(STATE);
        let mut state = record::read::<StateRecord>(&file).unwrap_or_default();
        if state.finished_at.is_none() {
            // The shim was killed. Without it nobody reads the container's output.
            if let Some(process) = state.process {
                process.signal_group(nix::sys::signal::Signal::SIGKILL);
            }
            state.finished_at = Some(record::micros(self.0.environment.clock.now()));
            state.exit_code = 137;
            state.reason = "ContainerStatusUnknown".into();
            state.message = "the process that watched over the container was killed".into();
            if let Err(error) = record::write(&file, &state) {
                tracing::debug!(%error, "the container's end was not written");
            }
        }
        {
            let mut known = self.0.known.lock();
            let Some(container) = known.containers.get_mut(id) else { return };
            container.state = Some(state);
            container.ended.send_replace(true);
        }
        self.changed(id);
    }
}

/// Waits until a process has ended, whoever its parent is.
#[expect(deprecated, reason = "the safe constructor of AsyncFd; the descriptor is owned here")]
async fn wait_for_end(process: record::ProcessRecord) {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // The id may have gone to another process before it was opened.
    if !process.is_alive() {
        return;
    }
    if let Ok(fd) = AsyncFd::with_interest(fd, tokio::io::Interest::READABLE) {
        let _ended = fd.readable().await;
    }
}

fn status(container: &Container) -> ContainerStatus {
    let (record, state) = (&container.record, container.state.clone());
    let state_of = match &state {
        None => ContainerState::Created,
        Some(s) if s.finished_at.is_none() => ContainerState::Running,
        Some(_) => ContainerState::Exited,
    };
    let state = state.unwrap_or_default();
    ContainerStatus {
        id: ContainerId(record.id.clone()),
        sandbox: SandboxId(record.sandbox.clone()),
        name: record.name.clone(),
        attempt: record.attempt,
        state: state_of,
        created_at: timestamp(record.created_at),
        started_at: (state_of != ContainerState::Created).then(|| timestamp(state.started_at)),
        finished_at: state.finished_at.map(timestamp),
        exit_code: state.exit_code,
        reason: state.reason,
        message: state.message,
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        labels: record.labels.clone(),
        annotations: record.annotations.clone(),
        log_path: record.log_path.clone(),
    }
}

/// The environment variable that tells of a volume that is not mounted.
fn volume_variable(volume: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("ORCH_VOLUME_{}", volume.chars().map(word).collect::<String>())
}

/// Later values replace earlier ones; the order of first appearance stays.
fn merged(variables: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut positions = HashMap::new();
    let mut merged: Vec<(String, String)> = Vec::new();
    for (name, value) in variables {
        match positions.get(&name) {
            Some(&at) => merged[at] = (name, value),
            None => {
                positions.insert(name.clone(), merged.len());
                merged.push((name, value));
            }
        }
    }
    merged
}

impl Runtime for ProcessRuntime {}
