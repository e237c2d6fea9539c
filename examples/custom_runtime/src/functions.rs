//! A runtime whose images are async functions: a container is a task of this process.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture, stream};
use orch::{
    core::Environment,
    node::runtime::{
        ContainerConfig, ContainerId, ContainerState, ContainerStatus, Containers, ExecOutput,
        ImageError, ImageInfo, ImagePull, Images, Inventory, LogLocation, Runtime, RuntimeError,
        RuntimeEvent, RuntimeEvents, RuntimeInfo, SandboxConfig, SandboxId, SandboxState,
        SandboxStatus, Sandboxes, Stats, Streaming, labels,
    },
};
use tokio::{
    sync::{Mutex, broadcast},
    task::AbortHandle,
};

/// What an image does: its environment in, its output and exit code out.
pub(crate) type Function =
    Arc<dyn Fn(Vec<(String, String)>) -> BoxFuture<'static, Exit> + Send + Sync>;

/// How a function ended.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    /// The exit code.
    pub code: i32,
    /// What it has to say.
    pub output: String,
}

struct Container {
    status: ContainerStatus,
    env: Vec<(String, String)>,
    output: String,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, SandboxStatus>,
    containers: BTreeMap<ContainerId, Container>,
    created: u64,
}

/// Runs functions by image name.
pub(crate) struct FunctionRuntime {
    functions: BTreeMap<String, Function>,
    environment: Environment,
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    own: Weak<Self>,
}

impl fmt::Debug for FunctionRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionRuntime({:?})", self.functions.keys())
    }
}

impl FunctionRuntime {
    /// A runtime that knows these images.
    pub(crate) fn new(
        environment: Environment,
        functions: BTreeMap<String, Function>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            functions,
            environment,
            state: Mutex::default(),
            events: broadcast::Sender::new(256),
            own: own.clone(),
        })
    }

    fn tell(&self, pod_uid: &str) {
        // Nobody may be listening.
        let _no_listener = self.events.send(RuntimeEvent::PodChanged { pod_uid: pod_uid.into() });
    }

    async fn end(&self, id: &ContainerId, exit: Exit) {
        let mut state = self.state.lock().await;
        let Some(container) = state.containers.get_mut(id) else { return };
        if container.status.state != ContainerState::Exited {
            container.status.state = ContainerState::Exited;
            container.status.exit_code = exit.code;
            container.status.finished_at = Some(self.environment.clock.now());
            container.output = exit.output;
            self.tell(container.status.label(labels::POD_UID));
        }
    }
}

#[async_trait]
impl Sandboxes for FunctionRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let mut state = self.state.lock().await;
        state.created += 1;
        let id = SandboxId(format!("sandbox-{}", state.created));
        let ip = config.address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let status = SandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: SandboxState::Ready,
            created_at: self.environment.clock.now(),
            ips: vec![ip],
            labels: config.labels,
            annotations: config.annotations,
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().await;
        if let Some(status) = state.sandboxes.get_mut(sandbox) {
            status.state = SandboxState::NotReady;
        }
        let inside = state.containers.values().filter(|c| c.status.sandbox == *sandbox);
        let inside: Vec<ContainerId> = inside.map(|c| c.status.id.clone()).collect();
        drop(state);
        for container in inside {
            self.stop_container(&container, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(sandbox).await?;
        let mut state = self.state.lock().await;
        state.containers.retain(|_, container| container.status.sandbox != *sandbox);
        state.sandboxes.remove(sandbox);
        Ok(())
    }
}

#[async_trait]
impl Containers for FunctionRuntime {
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let mut state = self.state.lock().await;
        if !state.sandboxes.contains_key(sandbox) {
            return Err(RuntimeError::no_sandbox(sandbox));
        }
        state.created += 1;
        let id = ContainerId(format!("function-{}", state.created));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: config.name,
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: self.environment.clock.now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image,
            image_id: config.image_id,
            labels: config.labels,
            annotations: config.annotations,
            log_path: config.log_path,
        };
        let container = Container { status, env: config.env, output: String::new(), task: None };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().await;
        let container =
            state.containers.get_mut(id).ok_or_else(|| RuntimeError::no_container(id))?;
        let function = self.functions.get(&container.status.image);
        let function = function.ok_or_else(|| RuntimeError::Start("no such function".into()))?;
        let running = function(container.env.clone());
        container.status.state = ContainerState::Running;
        container.status.started_at = Some(self.environment.clock.now());
        let (own, own_id) = (self.own.clone(), id.clone());
        let task = tokio::spawn(async move {
            let exit = running.await;
            if let Some(runtime) = own.upgrade() {
                runtime.end(&own_id, exit).await;
            }
        });
        container.task = Some(task.abort_handle());
        self.tell(container.status.label(labels::POD_UID));
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _: Duration) -> Result<(), RuntimeError> {
        let task = self.state.lock().await.containers.get_mut(id).and_then(|c| c.task.take());
        if let Some(task) = task {
            task.abort();
            self.end(id, Exit { code: 137, output: String::new() }).await;
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.stop_container(id, Duration::ZERO).await?;
        self.state.lock().await.containers.remove(id);
        Ok(())
    }
}

#[async_trait]
impl Inventory for FunctionRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo { name: "functions".into(), version: "1".into(), ..RuntimeInfo::default() })
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let state = self.state.lock().await;
        let of_pod = |s: &&SandboxStatus| pod_uid.is_none_or(|uid| s.metadata.uid == uid);
        Ok(state.sandboxes.values().rev().filter(of_pod).cloned().collect())
    }

    async fn containers(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let state = self.state.lock().await;
        let all = state.containers.values().map(|c| &c.status);
        let mut found: Vec<ContainerStatus> = all
            .filter(|c| pod_uid.is_none_or(|uid| c.label(labels::POD_UID) == uid))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.attempt.cmp(&a.attempt)));
        Ok(found)
    }

    fn events(&self) -> RuntimeEvents {
        let events = self.events.subscribe();
        stream::unfold(events, |mut events| async move {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => RuntimeEvent::Lost,
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((event, events))
        })
        .boxed()
    }

    async fn log_location(&self, container: &ContainerStatus) -> Result<LogLocation, RuntimeError> {
        let state = self.state.lock().await;
        let output = state.containers.get(&container.id).map(|c| c.output.clone());
        let output = output.ok_or_else(|| RuntimeError::no_container(&container.id))?;
        let time = container.finished_at.unwrap_or(container.created_at);
        let lines = output.lines().map(|line| format!("{time:.9} stdout F {line}\n"));
        Ok(LogLocation::Text(lines.collect::<String>().into()))
    }
}

#[async_trait]
impl Images for FunctionRuntime {
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError> {
        let known = self.functions.contains_key(image);
        Ok(known.then(|| ImageInfo { id: image.to_owned(), ..ImageInfo::default() }))
    }

    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError> {
        let why = "no function of that name".to_owned();
        self.image(&pull.image).await?.ok_or(ImageError::Pull { image: pull.image, why })
    }
}

#[async_trait]
impl Streaming for FunctionRuntime {
    async fn exec_sync(
        &self,
        _: &ContainerId,
        _: &[String],
        _: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        Err(RuntimeError::NotSupported("exec into a function"))
    }
}

impl Stats for FunctionRuntime {}

impl Runtime for FunctionRuntime {}
