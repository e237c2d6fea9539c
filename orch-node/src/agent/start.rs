//! Carrying out a plan: sandboxes and containers come into being.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_manager.go` (`SyncPod`),
//! `kuberuntime_container.go` (`startContainer`).

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::Container;

use super::{
    config,
    env::{self, EnvSources},
    hooks,
    images::ImagePuller,
    plan::{Observed, Plan},
    spec::{self, Role},
    stop,
    worker::PodWorker,
};
use crate::{
    downward::PodFields,
    runtime::{ContainerState, ContainerStatus, ImageError, RuntimeError, labels},
};

/// After something that the pod waits for was not there.
const RETRY: Duration = Duration::from_secs(2);
/// After an image that could not be had: the back-off decides when it is really tried.
const IMAGE_RETRY: Duration = Duration::from_secs(10);

/// Why a container was not started, and when to try again.
struct NotStarted {
    reason: String,
    message: String,
    again: Duration,
}

impl NotStarted {
    fn new(reason: &str, message: impl Into<String>, again: Duration) -> Self {
        Self { reason: reason.into(), message: message.into(), again }
    }
}

impl PodWorker {
    /// Does what the plan says. `None` if something was achieved and it is worth looking again at
    /// once, otherwise when to try again.
    pub(super) async fn execute(
        &mut self,
        plan: &Plan,
        observed: &Observed,
    ) -> Result<Option<Duration>, RuntimeError> {
        let pod = self.pod.clone();
        if let Some(attempt) = plan.create_sandbox {
            if plan.kill_pod {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                self.context.events.of_pod(&pod).normal(None, "SandboxChanged", text);
                stop::kill_pod(self, &pod, observed, spec::grace_period_s(&pod)).await?;
            }
            return self.create_sandbox(attempt).await;
        }
        for kill in &plan.kill {
            stop::kill_container(self, &pod, kill, observed).await?;
        }
        if !plan.kill.is_empty() {
            return Ok(None);
        }
        let mut wait: Option<Duration> = None;
        let mut started = false;
        for (role, name) in &plan.start {
            let containers = &mut spec::all_containers(&pod);
            let Some((_, container)) = containers.find(|(_, c)| c.name == *name) else { continue };
            match self.start_container(*role, container, observed).await? {
                Ok(()) => {
                    self.waiting.remove(name);
                    started = true;
                }
                Err(not) => {
                    self.waiting.insert(name.clone(), (not.reason, not.message));
                    wait = Some(wait.map_or(not.again, |w| w.min(not.again)));
                }
            }
        }
        // Looking again at once after a start would only meet the same back-off of the others.
        Ok(if started && wait.is_none() { None } else { wait })
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<Option<Duration>, RuntimeError> {
        let pod = self.pod.clone();
        let events = self.context.events.of_pod(&pod);
        if let Err(wait) = self.mount().await {
            return Ok(Some(wait));
        }
        let address = match self.pod_address() {
            Ok(address) => address,
            Err(error) => {
                events.warn(None, "FailedCreatePodSandBox", &error);
                return Ok(Some(RETRY));
            }
        };
        let config = config::sandbox(&self.context, &pod, attempt, address);
        if let Some(folders) = &self.context.options.folders
            && self.context.info.has_files
        {
            let made = crate::volume::make_dir(config.log_directory.clone(), 0o755).await;
            if let Err(error) = made {
                events.warn(None, "FailedCreatePodSandBox", &error.to_string());
                tracing::warn!(logs = %folders.logs.display(), %error, "no log folder");
                return Ok(Some(RETRY));
            }
        }
        match self.context.runtime.run_sandbox(config).await {
            Ok(_) => Ok(None),
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                events.warn(None, "FailedCreatePodSandBox", &text);
                Ok(Some(RETRY))
            }
        }
    }

    fn pod_address(&self) -> Result<Option<IpAddr>, String> {
        if spec::spec(&self.pod).host_network == Some(true) || self.context.info.assigns_addresses {
            return Ok(None);
        }
        match &self.context.options.pod_addresses {
            Some(addresses) => {
                addresses.allocate(spec::uid(&self.pod)).map(Some).map_err(|e| e.to_string())
            }
            None => Ok(self.context.host_ips().first().copied()),
        }
    }

    /// Makes the pod's volumes ready, or says by an event why they are not.
    async fn mount(&self) -> Result<(), Duration> {
        let (host_ips, allocatable) = (self.context.host_ips(), self.context.allocatable());
        let fields = PodFields {
            pod: &self.pod,
            pod_ips: &[],
            host_ips: &host_ips,
            allocatable: &allocatable,
        };
        let Err((volume, error)) = self.context.volumes.prepare(&self.pod, fields).await else {
            return Ok(());
        };
        let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
        self.context.events.of_pod(&self.pod).warn(None, "FailedMount", &text);
        Err(RETRY)
    }

    async fn start_container(
        &mut self,
        role: Role,
        container: &Container,
        observed: &Observed,
    ) -> Result<Result<(), NotStarted>, RuntimeError> {
        let latest = observed.latest(&container.name);
        if let Some(not) = latest.and_then(|latest| self.backs_off(container, latest)) {
            return Ok(Err(not));
        }
        let image = match self.image(container).await {
            Ok(image) => image,
            Err(error) => {
                let not = NotStarted::new(error.reason(), error.to_string(), IMAGE_RETRY);
                return Ok(Err(not));
            }
        };
        let attempt = self.next_attempt(container, latest);
        let config = match self.container_config(role, container, observed, attempt, image).await {
            Ok(config) => config,
            Err(why) => {
                let events = self.context.events.of_pod(&self.pod);
                events.warn(Some(&container.name), "Failed", &format!("Error: {why}"));
                return Ok(Err(NotStarted::new("CreateContainerConfigError", why, IMAGE_RETRY)));
            }
        };
        self.clear_away(container, observed).await?;
        self.create_and_start(container, observed, config).await
    }

    /// Whether a container that has ended must wait before it runs again; notes the restart if
    /// not.
    fn backs_off(&mut self, container: &Container, latest: &ContainerStatus) -> Option<NotStarted> {
        if latest.state != ContainerState::Exited {
            return None;
        }
        let (name, now) = (container.name.clone(), self.now());
        let ended = latest.finished_at.unwrap_or(latest.created_at);
        let Some((delay, left)) = self.restarts.remaining(&name, ended, now) else {
            self.restarts.next(name, ended, now);
            return None;
        };
        let pod = spec::full_name(&self.pod);
        let events = self.context.events.of_pod(&self.pod);
        let text = format!("Back-off restarting failed container {name} in pod {pod}");
        let is_new = self.waiting.get(&name).is_none_or(|w| w.0 != "CrashLoopBackOff");
        if is_new {
            events.warn(Some(&name), "BackOff", &text);
        }
        let seconds = config::go_duration(delay);
        let message = format!("back-off {seconds} restarting failed container={name} pod={pod}");
        Some(NotStarted::new("CrashLoopBackOff", message, left))
    }

    async fn image(
        &mut self,
        container: &Container,
    ) -> Result<crate::runtime::ImageInfo, ImageError> {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let mut puller = ImagePuller {
            runtime: &*context.runtime,
            client: &context.client,
            environment: &context.environment,
            events: context.events.of_pod(&pod),
            backoff: &mut self.pulls,
        };
        puller.ensure(&pod, container).await
    }

    fn next_attempt(&self, container: &Container, latest: Option<&ContainerStatus>) -> u32 {
        let ran = |c: &ContainerStatus| {
            if c.state == ContainerState::Created { c.attempt } else { c.attempt + 1 }
        };
        let seen = latest.map_or(0, ran);
        let status = spec::status(&self.pod);
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let written = lists.into_iter().flatten().flatten().find(|s| s.name == container.name);
        let written = written.map_or(0, |s| {
            let ran = s.container_id.is_some();
            u32::try_from(s.restart_count).unwrap_or_default() + u32::from(ran)
        });
        if latest.is_some() { seen } else { written }
    }

    async fn container_config(
        &self,
        role: Role,
        container: &Container,
        observed: &Observed,
        attempt: u32,
        image: crate::runtime::ImageInfo,
    ) -> Result<crate::runtime::ContainerConfig, String> {
        let context = &self.context;
        let (host_ips, allocatable) = (context.host_ips(), context.allocatable());
        let host_network = spec::spec(&self.pod).host_network == Some(true);
        let sandbox_ips = observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let pod_ips = if host_network { host_ips.clone() } else { sandbox_ips };
        let fields = PodFields {
            pod: &self.pod,
            pod_ips: &pod_ips,
            host_ips: &host_ips,
            allocatable: &allocatable,
        };
        context.services.synced().await;
        let namespace = spec::namespace(&self.pod);
        let mut services = context.services.list_in(namespace);
        if namespace != "default" {
            services.extend(context.services.get(&orch_core::Key::new("default", "kubernetes")));
        }
        let mut sources = EnvSources::new(&context.client, namespace);
        let env = env::environment(&mut sources, container, &fields, &services).await?;
        let volumes = context.volumes.prepare(&self.pod, fields).await;
        let volumes = volumes.map_err(|(name, error)| format!("volume \"{name}\": {error}"))?;
        config::container(config::ContainerInput {
            context,
            pod: &self.pod,
            role,
            container,
            attempt,
            image,
            env,
            volumes: &volumes,
            pod_ips: &pod_ips,
        })
        .await
    }

    /// Removes attempts that were never started and all but the last ended one.
    async fn clear_away(
        &self,
        container: &Container,
        observed: &Observed,
    ) -> Result<(), RuntimeError> {
        let mut ended = 0;
        for status in observed.containers.iter().filter(|c| c.name == container.name) {
            let keep = status.is_running() || {
                ended += u32::from(status.state != ContainerState::Created);
                status.state != ContainerState::Created && ended <= 1
            };
            if !keep {
                self.context.runtime.remove_container(&status.id).await?;
                if !status.log_path.as_os_str().is_empty() {
                    // A log that stays behind goes with the pod's folder.
                    let _gone_with_the_pod = tokio::fs::remove_file(&status.log_path).await;
                }
            }
        }
        Ok(())
    }

    async fn create_and_start(
        &mut self,
        container: &Container,
        observed: &Observed,
        config: crate::runtime::ContainerConfig,
    ) -> Result<Result<(), NotStarted>, RuntimeError> {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let events = context.events.of_pod(&pod);
        let name = Some(container.name.as_str());
        let Some(sandbox) = observed.ready_sandbox() else { return Ok(Ok(())) };
        let has_mounts = config.mounts.iter().any(|m| !m.volume.is_empty());
        let id = match context.runtime.create_container(&sandbox.id, config).await {
            Ok(id) => id,
            Err(error) => {
                events.warn(name, "Failed", &format!("Error: {error}"));
                return Ok(Err(NotStarted::new(
                    "CreateContainerError",
                    error.to_string(),
                    IMAGE_RETRY,
                )));
            }
        };
        events.normal(name, "Created", "Container created");
        if has_mounts && !context.info.mounts_volumes {
            let text = "Volumes are not mounted at their paths by this runtime; the variables \
                        ORCH_VOLUME_<NAME> hold the folders";
            events.warn(name, "VolumesNotMounted", text);
        }
        if let Err(error) = context.runtime.start_container(&id).await {
            events.warn(name, "Failed", &format!("Error: {error}"));
            return Ok(Err(NotStarted::new("RunContainerError", error.to_string(), RETRY)));
        }
        events.normal(name, "Started", "Container started");
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(Ok(())) };
        let address = sandbox.ips.first().copied().or_else(|| context.host_ips().first().copied());
        if let Err(error) = hooks::run(&context, container, &id, address, hook).await {
            events.warn(name, "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
            let kill = super::plan::Kill {
                id,
                name: container.name.clone(),
                message: "FailedPostStartHook".into(),
                probe: None,
            };
            stop::kill_container(self, &pod, &kill, observed).await?;
            return Ok(Err(NotStarted::new("PostStartHookError", error, RETRY)));
        }
        Ok(Ok(()))
    }
}

impl PodWorker {
    /// The annotation of a container, empty if it is missing.
    pub(super) fn annotation<'a>(status: &'a ContainerStatus, name: &str) -> &'a str {
        status.annotations.get(name).map_or("", String::as_str)
    }

    pub(super) fn termination_policy_is_fallback(status: &ContainerStatus) -> bool {
        Self::annotation(status, labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError"
    }
}
