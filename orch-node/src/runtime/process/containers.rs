//! Containers of processes.

use std::{path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::{io::AsyncReadExt as _, process::Command, sync::watch};

use super::{Container, ProcessRuntime, merged, volume_variable};
use crate::{
    runtime::{ContainerConfig, ContainerId, Containers, Mount, RuntimeError, SandboxId, labels},
    shim::{
        WORD,
        record::{
            self, CONFIG, ContainerRecord, MountRecord, ProcessRecord, STATE, SandboxRecord,
            StateRecord, VERSION, micros,
        },
    },
};

/// Where programs are looked for if the container does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a shim says about the start is at most so long.
const REPORT_MAX: u64 = 64 * 1024;

fn user_id(id: Option<i64>) -> Result<Option<u32>, RuntimeError> {
    id.map(u32::try_from)
        .transpose()
        .map_err(|_| RuntimeError::InvalidArgument("a user or group id is out of range".into()))
}

impl ProcessRuntime {
    /// The program and its arguments: the container's own, or the image's executable.
    fn command(&self, config: &ContainerConfig) -> Result<Vec<String>, RuntimeError> {
        let mut command = config.command.clone();
        if command.is_empty() {
            let missing = || RuntimeError::NotFound { kind: "image", id: config.image.clone() };
            let path = self.entry_point(&config.image).ok_or_else(missing)?;
            command.push(path.to_string_lossy().into_owned());
        }
        command.extend(config.args.iter().cloned());
        Ok(command)
    }

    fn variables(
        &self,
        sandbox: &SandboxRecord,
        config: &ContainerConfig,
    ) -> Vec<(String, String)> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let basics =
            [("PATH", PATH), ("HOME", "/"), ("HOSTNAME", sandbox.hostname.as_str())].map(own);
        let mut variables: Vec<_> = basics.into_iter().collect();
        if config.tty {
            variables.push(own(("TERM", "xterm")));
        }
        if !self.0.options.mounts {
            let named = config.mounts.iter().filter(|m| !m.volume.is_empty());
            let variable = |m: &Mount| {
                (volume_variable(&m.volume), m.host_path.to_string_lossy().into_owned())
            };
            variables.extend(named.map(variable));
            let message = config.annotations.get(labels::TERMINATION_MESSAGE_FILE);
            variables.extend(message.map(|file| own(("ORCH_TERMINATION_LOG", file))));
        }
        merged(variables.into_iter().chain(config.env.iter().cloned()))
    }

    fn mounts(&self, sandbox: &SandboxRecord, config: &ContainerConfig) -> Vec<MountRecord> {
        if !self.0.options.mounts {
            return Vec::new();
        }
        let mut mounts: Vec<MountRecord> = config
            .mounts
            .iter()
            .map(|m| MountRecord {
                host_path: m.host_path.clone(),
                container_path: m.container_path.clone(),
                read_only: m.read_only,
            })
            .collect();
        if let Some(file) = &sandbox.resolv_conf {
            // Often a symbolic link, which nothing can be mounted on.
            let target = std::fs::canonicalize("/etc/resolv.conf");
            mounts.push(MountRecord {
                host_path: file.clone(),
                container_path: target.unwrap_or_else(|_| "/etc/resolv.conf".into()),
                read_only: false,
            });
        }
        // What is mounted below another mount point comes after it.
        mounts.sort_by_key(|m| m.container_path.components().count());
        mounts
    }

    fn record(
        &self,
        sandbox: &SandboxRecord,
        config: ContainerConfig,
    ) -> Result<ContainerRecord, RuntimeError> {
        let id = format!("{:016x}", self.0.environment.random.next_u64());
        let groups = config.supplemental_groups.iter().map(|&g| user_id(Some(g)));
        let groups = groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        Ok(ContainerRecord {
            version: VERSION,
            socket: Some(self.0.sockets.join(&id)),
            id,
            sandbox: sandbox.id.clone(),
            pod_uid: sandbox.uid.clone(),
            created_at: micros(self.0.environment.clock.now()),
            log_path: sandbox.log_directory.join(&config.log_path),
            command: self.command(&config)?,
            env: self.variables(sandbox, &config),
            mounts: self.mounts(sandbox, &config),
            user: user_id(config.security.run_as_user)?,
            group: user_id(config.security.run_as_group)?,
            groups,
            memory_limit_bytes: config.resources.memory_limit_bytes,
            oom_score_adj: config.resources.oom_score_adj,
            name: config.name,
            attempt: config.attempt,
            image: config.image,
            image_id: config.image_id,
            labels: config.labels,
            annotations: config.annotations,
            working_dir: config.working_dir,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            tty: config.tty,
        })
    }

    /// Starts the shim and gives what it says about the start.
    async fn start_shim(&self, folder: PathBuf) -> std::io::Result<String> {
        let mut command = Command::new(&self.0.shim);
        command.arg(WORD).arg("run").arg(&folder).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.process_group(0);
        let mut child = command.spawn()?;
        let mut report = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(REPORT_MAX).read_to_string(&mut report).await?;
        }
        // The shim outlives this call; while this process lives, somebody must collect it.
        tokio::spawn(async move { child.wait().await });
        Ok(report)
    }

    fn running_process(&self, id: &ContainerId) -> Option<(ProcessRecord, watch::Receiver<bool>)> {
        let known = self.0.known.lock();
        let container = known.containers.get(id)?;
        let state = container.state.as_ref().filter(|s| s.finished_at.is_none())?;
        Some((state.process?, container.ended.subscribe()))
    }

    /// Starts in a task of its own, so that a caller that goes away does not leave a container
    /// that runs unknown.
    async fn start(self, id: ContainerId) -> Result<(), RuntimeError> {
        let folder = self.container_dir(&id);
        let io = |error| RuntimeError::Io(format!("cannot start container {id}"), error);
        let report = self.start_shim(folder.clone()).await.map_err(io)?;
        let state = record::read::<StateRecord>(&folder.join(STATE));
        let runs = state.as_ref().is_ok_and(|s| s.process.is_some());
        if let Ok(state) = state {
            let mut known = self.0.known.lock();
            if let Some(container) = known.containers.get_mut(&id) {
                container.ended.send_replace(state.finished_at.is_some());
                container.state = Some(state);
            }
        }
        self.changed(&id);
        if runs {
            self.follow(id);
            return Ok(());
        }
        let why = report.trim().strip_prefix("error ").unwrap_or("its shim did not start");
        Err(RuntimeError::Start(why.to_owned()))
    }
}

#[async_trait]
impl Containers for ProcessRuntime {
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let parent = self.0.known.lock().sandboxes.get(sandbox).cloned();
        let parent = parent.ok_or_else(|| RuntimeError::no_sandbox(&sandbox.0))?;
        if !parent.ready {
            return Err(RuntimeError::Refused(format!("sandbox {sandbox} is not ready")));
        }
        let record = self.record(&parent, config)?;
        let id = ContainerId(record.id.clone());
        let folder = self.container_dir(&id);
        let io = |error| RuntimeError::Io(format!("cannot use {}", folder.display()), error);
        std::fs::create_dir_all(&folder).map_err(io)?;
        record::write(&folder.join(CONFIG), &record).map_err(io)?;
        let container = Container { record, state: None, ended: watch::Sender::new(false) };
        self.0.known.lock().containers.insert(id.clone(), container);
        self.changed(&id);
        Ok(id)
    }

    async fn start_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        {
            let known = self.0.known.lock();
            let found = known.containers.get(container);
            let found = found.ok_or_else(|| RuntimeError::no_container(&container.0))?;
            if found.state.is_some() {
                let text = format!("container {container} was started before");
                return Err(RuntimeError::InvalidArgument(text));
            }
        }
        match tokio::spawn(self.clone().start(container.clone())).await {
            Ok(result) => result,
            Err(error) => Err(RuntimeError::Refused(format!("the start broke off: {error}"))),
        }
    }

    async fn stop_container(
        &self,
        container: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Some((process, mut ended)) = self.running_process(container) else { return Ok(()) };
        if !grace.is_zero() {
            process.signal_group(Signal::SIGTERM);
            if tokio::time::timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok() {
                return Ok(());
            }
        }
        process.signal_group(Signal::SIGKILL);
        // The sender goes only with the container itself.
        let _gone = ended.wait_for(|ended| *ended).await;
        Ok(())
    }

    async fn remove_container(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        self.stop_container(container, Duration::ZERO).await?;
        let folder = self.container_dir(container);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RuntimeError::Io(format!("cannot remove {}", folder.display()), error));
            }
            _ => {}
        }
        let gone = self.0.known.lock().containers.remove(container);
        if let Some(gone) = gone {
            self.0.events.pod_changed(&gone.record.pod_uid);
        }
        Ok(())
    }

    async fn reopen_log(&self, container: &ContainerId) -> Result<(), RuntimeError> {
        let known = self.0.known.lock();
        let found = known.containers.get(container);
        let found = found.ok_or_else(|| RuntimeError::no_container(&container.0))?;
        let running = found.state.as_ref().filter(|s| s.finished_at.is_none());
        if let Some(shim) = running.map(|s| s.shim).filter(ProcessRecord::is_alive) {
            let pid = nix::unistd::Pid::from_raw(shim.pid);
            let failed = |e: nix::Error| RuntimeError::Io("the log".into(), e.into());
            nix::sys::signal::kill(pid, Signal::SIGUSR1).map_err(failed)?;
        }
        Ok(())
    }
}
