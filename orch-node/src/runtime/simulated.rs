//! [`SimulatedRuntime`]: containers that only follow a script, on virtual time, without I/O.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use orch_core::Environment;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

mod script;

pub use script::{AnnotationScript, Behaviour, BehaviourFn, Load, Script, ScriptedExit, behaves};

use super::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, ContainerUsage, Containers,
    ExecOutput, ImageError, ImageInfo, ImagePull, Images, Inventory, LogLocation, Runtime,
    RuntimeError, RuntimeEventSender, RuntimeEvents, RuntimeInfo, SandboxConfig, SandboxId,
    SandboxState, SandboxStatus, Sandboxes, Stats, Streaming,
};
use crate::logs::{LogStream, format_entry};

/// How many events wait for a reader at most.
const EVENTS_MAX: usize = 1024;

#[derive(Clone)]
struct Sandbox {
    config: SandboxConfig,
    status: SandboxStatus,
}

struct Container {
    status: ContainerStatus,
    behaviour: Behaviour,
    started: Option<Instant>,
    ended: watch::Sender<bool>,
    output: String,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    containers: BTreeMap<ContainerId, Container>,
    images: BTreeMap<String, ImageInfo>,
    created: u64,
}

impl State {
    fn fork(&self) -> Self {
        let fork = |container: &Container| Container {
            status: container.status.clone(),
            behaviour: container.behaviour.clone(),
            started: container.started,
            ended: watch::Sender::new(*container.ended.borrow()),
            output: container.output.clone(),
        };
        let containers = self.containers.iter();
        Self {
            sandboxes: self.sandboxes.clone(),
            containers: containers.map(|(id, container)| (id.clone(), fork(container))).collect(),
            images: self.images.clone(),
            created: self.created,
        }
    }

    /// The running containers that end by themselves, and after how long from now.
    fn due(&self) -> impl Iterator<Item = (ContainerId, ScriptedExit)> {
        let running = self.containers.values().filter(|container| container.status.is_running());
        running.filter_map(|container| {
            let exit = container.behaviour.exit.clone()?;
            let after = exit.after.saturating_sub(container.started?.elapsed());
            Some((container.status.id.clone(), ScriptedExit { after, ..exit }))
        })
    }
}

struct Shared {
    environment: Environment,
    script: Arc<dyn Script>,
    events: RuntimeEventSender,
    state: Mutex<State>,
}

/// A runtime whose containers follow a [`Script`]: they start, run, become ready, end and fail as
/// it says, on the environment's clock. It touches neither network nor disk and needs no memory
/// but its containers' statuses, so that thousands run in one process. Cheap to clone; the clones
/// share everything.
///
/// Commands run by exec do nothing: they succeed while the container is ready by its script, and
/// fail with code 1 while it is not; probes of every kind are answered likewise.
#[derive(Clone)]
pub struct SimulatedRuntime(Arc<Shared>);

impl std::fmt::Debug for SimulatedRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.state.lock();
        write!(f, "SimulatedRuntime({} containers)", state.containers.len())
    }
}

impl SimulatedRuntime {
    /// A runtime that does what the pods' annotations say, see [`AnnotationScript`].
    pub fn new(environment: Environment) -> Self {
        Self::scripted(environment, AnnotationScript)
    }

    /// A runtime that follows a script.
    pub fn scripted(environment: Environment, script: impl Script) -> Self {
        Self(Arc::new(Shared {
            environment,
            script: Arc::new(script),
            events: RuntimeEventSender::new(EVENTS_MAX),
            state: Mutex::default(),
        }))
    }

    /// A runtime of its own that begins as this one is now: the same sandboxes and containers,
    /// which go on as their script says. Call it inside a runtime.
    #[must_use]
    pub fn fork(&self, environment: Environment) -> Self {
        let state = self.0.state.lock().fork();
        let due: Vec<(ContainerId, ScriptedExit)> = state.due().collect();
        let fork = Self(Arc::new(Shared {
            environment,
            script: self.0.script.clone(),
            events: RuntimeEventSender::new(EVENTS_MAX),
            state: Mutex::new(state),
        }));
        for (container, exit) in due {
            fork.0.end_after(container, exit);
        }
        fork
    }

    /// Everything that runs is gone, as when a machine loses its power. Images stay.
    pub fn lose_power(&self) {
        let mut state = self.0.state.lock();
        state.sandboxes.clear();
        for container in std::mem::take(&mut state.containers).into_values() {
            container.ended.send_replace(true);
        }
    }

    /// Ends a running container now, as if by itself. Does nothing if it does not run.
    pub fn exit(&self, container: &ContainerId, code: i32, reason: &str) {
        self.0.finish(container, code, reason);
    }
}

impl Shared {
    fn pod_uid(&self, container: &ContainerId) -> Option<String> {
        let state = self.state.lock();
        let sandbox = &state.containers.get(container)?.status.sandbox;
        Some(state.sandboxes.get(sandbox)?.config.metadata.uid.clone())
    }

    fn changed(&self, container: &ContainerId) {
        if let Some(uid) = self.pod_uid(container) {
            self.events.pod_changed(&uid);
        }
    }

    fn finish(&self, id: &ContainerId, code: i32, reason: &str) {
        let now = self.environment.clock.now();
        {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if container.status.state != ContainerState::Running {
                return;
            }
            container.status.state = ContainerState::Exited;
            container.status.finished_at = Some(now);
            container.status.exit_code = code;
            reason.clone_into(&mut container.status.reason);
            container.ended.send_replace(true);
        }
        self.changed(id);
    }

    /// Lets a container end as its script says.
    fn end_after(self: &Arc<Self>, id: ContainerId, exit: ScriptedExit) {
        let shared = Arc::downgrade(self);
        let timer = self.environment.clock.sleep(exit.after);
        // Ends with the timer at the latest, and does nothing once the runtime is gone.
        tokio::spawn(async move {
            timer.await;
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.finish(&id, exit.code, &exit.reason);
            }
        });
    }

    fn mark_started(&self, id: &ContainerId, now: Timestamp) -> Result<Behaviour, RuntimeError> {
        let mut state = self.state.lock();
        let container =
            state.containers.get_mut(id).ok_or_else(|| RuntimeError::no_container(&id.0))?;
        if container.status.state != ContainerState::Created {
            return Err(RuntimeError::InvalidArgument(format!(
                "container {id} was started before"
            )));
        }
        let behaviour = container.behaviour.clone();
        container.status.started_at = Some(now);
        if let Some(error) = &behaviour.start_error {
            container.status.state = ContainerState::Exited;
            container.status.finished_at = Some(now);
            container.status.exit_code = 128;
            container.status.reason = "StartError".into();
            error.clone_into(&mut container.status.message);
            return Err(RuntimeError::Start(error.clone()));
        }
        container.status.state = ContainerState::Running;
        container.started = Some(Instant::now());
        for line in behaviour.output.lines() {
            let mut entry = Vec::new();
            format_entry(&mut entry, now, LogStream::Stdout, false, line.as_bytes());
            container.output.push_str(&String::from_utf8_lossy(&entry));
        }
        Ok(behaviour)
    }

    /// Whether the container is ready by its script; `None` if it does not run.
    fn is_ready(&self, id: &ContainerId) -> Option<bool> {
        let state = self.state.lock();
        let container = state.containers.get(id)?;
        let started = container.started.filter(|_| container.status.is_running())?;
        Some(container.behaviour.ready_after.is_some_and(|after| started.elapsed() >= after))
    }

    fn stop_sandbox(&self, id: &SandboxId) -> Option<String> {
        let (was, running): (SandboxState, Vec<ContainerId>) = {
            let mut state = self.state.lock();
            let sandbox = state.sandboxes.get_mut(id)?;
            let was = std::mem::replace(&mut sandbox.status.state, SandboxState::NotReady);
            let inside = |c: &&Container| c.status.sandbox == *id && c.status.is_running();
            let running = state.containers.values().filter(inside).map(|c| c.status.id.clone());
            (was, running.collect())
        };
        for container in running {
            self.finish(&container, 137, "");
        }
        let uid = self.state.lock().sandboxes.get(id)?.config.metadata.uid.clone();
        // Stopping twice changes nothing: who stops again at every change must come to an end.
        if was == SandboxState::Ready {
            self.events.pod_changed(&uid);
        }
        Some(uid)
    }
}

#[async_trait]
impl Sandboxes for SimulatedRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let now = self.0.environment.clock.now();
        let uid = config.metadata.uid.clone();
        let id = {
            let mut state = self.0.state.lock();
            let taken = |s: &Sandbox| s.config.metadata == config.metadata;
            if state.sandboxes.values().any(taken) {
                let text = format!("sandbox {:?} exists already", config.metadata);
                return Err(RuntimeError::Refused(text));
            }
            state.created += 1;
            let id = SandboxId(format!("sandbox-{:08x}", state.created));
            let status = SandboxStatus {
                id: id.clone(),
                metadata: config.metadata.clone(),
                state: SandboxState::Ready,
                created_at: now,
                ips: config.address.into_iter().collect(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            };
            state.sandboxes.insert(id.clone(), Sandbox { config, status });
            id
        };
        self.0.events.pod_changed(&uid);
        Ok(id)
    }

    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.0.stop_sandbox(sandbox);
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let Some(uid) = self.0.stop_sandbox(sandbox) else { return Ok(()) };
        {
            let mut state = self.0.state.lock();
            state.sandboxes.remove(sandbox);
            state.containers.retain(|_, c| c.status.sandbox != *sandbox);
        }
        self.0.events.pod_changed(&uid);
        Ok(())
    }
}

#[async_trait]
impl Containers for SimulatedRuntime {
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let now = self.0.environment.clock.now();
        let mut state = self.0.state.lock();
        let parent =
            state.sandboxes.get(sandbox).ok_or_else(|| RuntimeError::no_sandbox(&sandbox.0))?;
        if parent.status.state != SandboxState::Ready {
            return Err(RuntimeError::Refused(format!("sandbox {sandbox} is not ready")));
        }
        let behaviour = self.0.script.behaviour(&parent.config, &config);
        state.created += 1;
        let id = ContainerId(format!("container-{:08x}", state.created));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: config.name,
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: now,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image,
            image_id: config.image_id,
            labels: config.labels,
            annotations: config.annotations,
            log_path: PathBuf::new(),
        };
        let ended = watch::Sender::new(false);
        let container =
            Container { status, behaviour, started: None, ended, output: String::new() };
        state.containers.insert(id.clone(), container);
        drop(state);
        self.0.changed(&id);
        Ok(id)
    }

    async fn start_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let clock = &self.0.environment.clock;
        let delay = {
            let state = self.0.state.lock();
            let known = state.containers.get(container);
            known.ok_or_else(|| RuntimeError::no_container(&container.0))?.behaviour.start_delay
        };
        if !delay.is_zero() {
            clock.sleep(delay).await;
        }
        let behaviour = self.0.mark_started(container, clock.now());
        self.0.changed(container);
        if let Some(exit) = behaviour?.exit {
            self.0.end_after(container.clone(), exit);
        }
        Ok(())
    }

    async fn stop_container(
        &self,
        container: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let (mut ended, delay) = {
            let state = self.0.state.lock();
            let Some(known) = state.containers.get(container) else { return Ok(()) };
            if !known.status.is_running() {
                return Ok(());
            }
            (known.ended.subscribe(), known.behaviour.stop_delay)
        };
        let killed = delay > grace;
        tokio::select! {
            biased;
            () = self.0.environment.clock.sleep(delay.min(grace)) => {
                self.0.finish(container, if killed { 137 } else { 143 }, "");
            }
            _ = ended.wait_for(|ended| *ended) => {}
        }
        Ok(())
    }

    async fn remove_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        self.0.finish(container, 137, "");
        let uid = self.0.pod_uid(container);
        self.0.state.lock().containers.remove(container);
        if let Some(uid) = uid {
            self.0.events.pod_changed(&uid);
        }
        Ok(())
    }
}

#[async_trait]
impl Inventory for SimulatedRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let version = env!("CARGO_PKG_VERSION").into();
        let name = "simulated".into();
        Ok(RuntimeInfo {
            name,
            version,
            mounts_volumes: true,
            tells_events: true,
            ..RuntimeInfo::default()
        })
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let state = self.0.state.lock();
        let of_pod = |s: &&SandboxStatus| pod_uid.is_none_or(|uid| uid == s.metadata.uid);
        let mut found: Vec<_> =
            state.sandboxes.values().map(|s| &s.status).filter(of_pod).cloned().collect();
        found.sort_by(|a, b| {
            let uids = a.metadata.uid.cmp(&b.metadata.uid);
            uids.then(b.metadata.attempt.cmp(&a.metadata.attempt))
        });
        Ok(found)
    }

    async fn containers(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let state = self.0.state.lock();
        let of_pod = |c: &&Container| {
            let sandbox = state.sandboxes.get(&c.status.sandbox);
            pod_uid.is_none_or(|uid| sandbox.is_some_and(|s| s.config.metadata.uid == uid))
        };
        let mut found: Vec<_> =
            state.containers.values().filter(of_pod).map(|c| c.status.clone()).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.attempt.cmp(&a.attempt)));
        Ok(found)
    }

    fn events(&self) -> RuntimeEvents {
        self.0.events.subscribe()
    }

    async fn log_location(&self, container: &ContainerStatus) -> Result<LogLocation, RuntimeError> {
        let state = self.0.state.lock();
        let known = state.containers.get(&container.id);
        let known = known.ok_or_else(|| RuntimeError::no_container(&container.id.0))?;
        Ok(LogLocation::Text(known.output.as_str().into()))
    }
}

#[async_trait]
impl Images for SimulatedRuntime {
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError> {
        Ok(self.0.state.lock().images.get(image).cloned())
    }

    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError> {
        let delay = self.0.script.pull(&pull.image)?;
        if !delay.is_zero() {
            self.0.environment.clock.sleep(delay).await;
        }
        let info = ImageInfo {
            id: format!("simulated://{}", pull.image),
            tags: vec![pull.image.clone()],
            ..ImageInfo::default()
        };
        self.0.state.lock().images.insert(pull.image, info.clone());
        Ok(info)
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(self.0.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: &str) -> Result<(), ImageError> {
        self.0.state.lock().images.remove(image);
        Ok(())
    }
}

#[async_trait]
impl Streaming for SimulatedRuntime {
    async fn exec_sync(
        &self,
        container: &ContainerId,
        _command: &[String],
        _timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        let ready = self.0.is_ready(container);
        let ready = ready.ok_or_else(|| RuntimeError::no_container(&container.0))?;
        Ok(ExecOutput { exit_code: i32::from(!ready), ..ExecOutput::default() })
    }

    async fn answer_probe(&self, container: &ContainerId) -> Option<bool> {
        Some(self.0.is_ready(container).unwrap_or(false))
    }
}

#[async_trait]
impl Stats for SimulatedRuntime {
    async fn usages(&self) -> Result<Vec<(ContainerId, ContainerUsage)>, RuntimeError> {
        let now = Instant::now();
        let state = self.0.state.lock();
        let running = state.containers.iter().filter(|(_, one)| one.status.is_running());
        let usages = running.map(|(id, container)| {
            let since = container.started.map_or(Duration::ZERO, |started| now - started);
            let ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            let Load { cpu_milli, memory_bytes } = container.behaviour.load;
            let usage = ContainerUsage {
                cpu_ns: (ns / 1000).saturating_mul(cpu_milli),
                working_set_bytes: memory_bytes,
            };
            (id.clone(), usage)
        });
        Ok(usages.collect())
    }
}

impl Runtime for SimulatedRuntime {}
