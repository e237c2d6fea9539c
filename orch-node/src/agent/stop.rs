//! Stopping containers and pods.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`killContainer`,
//! `killContainersWithSyncResult`).

use std::{path::PathBuf, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::{
    Context, hooks,
    plan::{Kill, Observed},
    spec::{self, ProbeKind, Role},
    worker::PodWorker,
};
use crate::runtime::{ContainerId, ContainerStatus, RuntimeError};

/// What is left of a grace period at least once a hook has used it up.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// One container to be stopped.
struct Victim<'a> {
    id: &'a ContainerId,
    container: &'a Container,
    message: String,
    grace: Duration,
}

impl PodWorker {
    /// Runs the preStop hook, then stops the container, both within the grace period.
    async fn stop(
        &self,
        pod: &Pod,
        victim: Victim<'_>,
        address: Option<std::net::IpAddr>,
    ) -> Result<(), RuntimeError> {
        let events = self.context.events.of_pod(pod);
        let name = Some(victim.container.name.as_str());
        let is_first = self.pre_stopped.lock().insert(victim.id.clone());
        let started = Instant::now();
        if is_first {
            events.normal(name, "Killing", &victim.message);
            let hook = victim.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
            if let Some(hook) = hook {
                let run = hooks::run(&self.context, victim.container, victim.id, address, hook);
                let late = |_| Err("the grace period is over".into());
                let done = tokio::time::timeout(victim.grace, run).await.unwrap_or_else(late);
                if let Err(error) = done {
                    events.warn(name, "FailedPreStopHook", &format!("PreStopHook failed: {error}"));
                }
            }
        }
        let left = victim.grace.saturating_sub(started.elapsed());
        let left = if victim.grace > GRACE_MIN { left.max(GRACE_MIN) } else { left };
        self.context.runtime.stop_container(victim.id, left).await
    }
}

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or_default())
}

/// Where the pod is reached.
fn address(worker: &PodWorker, observed: &Observed) -> Option<std::net::IpAddr> {
    let own = observed.ready_sandbox().and_then(|s| s.ips.first().copied());
    own.or_else(|| worker.context.host_ips().first().copied())
}

/// Stops one container, so that it can start anew.
pub(super) async fn kill_container(
    worker: &PodWorker,
    pod: &Pod,
    kill: &Kill,
    observed: &Observed,
) -> Result<(), RuntimeError> {
    let containers = &mut spec::all_containers(pod);
    let Some((_, container)) = containers.find(|(_, c)| c.name == kill.name) else {
        return worker.context.runtime.stop_container(&kill.id, seconds(1)).await;
    };
    let probe = kill.probe.and_then(|kind: ProbeKind| kind.of(container));
    let own = probe.and_then(|p| p.termination_grace_period_seconds);
    let grace = own.unwrap_or_else(|| spec::grace_period_s(pod));
    let victim =
        Victim { id: &kill.id, container, message: kill.message.clone(), grace: seconds(grace) };
    worker.stop(pod, victim, address(worker, observed)).await
}

/// Stops all containers of a pod, the main ones at once and then the sidecars from the last to the
/// first, and its sandboxes.
pub(super) async fn kill_pod(
    worker: &PodWorker,
    pod: &Pod,
    observed: &Observed,
    grace_s: i64,
) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + seconds(grace_s);
    let address = address(worker, observed);
    let running = |name: &str| -> Vec<&ContainerStatus> {
        observed.containers.iter().filter(|c| c.name == name && c.is_running()).collect()
    };
    let stop = |status: &'_ ContainerStatus, container: &'_ Container| {
        let grace = deadline.saturating_duration_since(Instant::now()).max(seconds(1));
        let message = format!("Stopping container {}", container.name);
        let id = status.id.clone();
        let container = container.clone();
        async move {
            let victim = Victim { id: &id, container: &container, message, grace };
            worker.stop(pod, victim, address).await
        }
    };
    let mut first = Vec::new();
    let mut sidecars = Vec::new();
    for (role, container) in spec::all_containers(pod) {
        for status in running(&container.name) {
            if role == Role::Sidecar {
                sidecars.push((status, container));
            } else {
                first.push(stop(status, container));
            }
        }
    }
    try_join_all(first).await?;
    for (status, container) in sidecars.into_iter().rev() {
        stop(status, container).await?;
    }
    for sandbox in &observed.sandboxes {
        worker.context.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// The folder of a pod's logs.
pub(super) fn log_directory(context: &Context, namespace: &str, name: &str, uid: &str) -> PathBuf {
    let folders = context.options.folders.as_ref();
    let logs = folders.map(|f| f.logs.clone()).unwrap_or_default();
    logs.join(format!("{namespace}_{name}_{uid}"))
}

/// Removes a pod's logs.
pub(super) async fn remove_logs(context: &Context, namespace: &str, name: &str, uid: &str) {
    if !context.info.has_files || context.options.folders.is_none() || uid.is_empty() {
        return;
    }
    let dir = log_directory(context, namespace, name, uid);
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a pod's logs stay behind");
        }
        _ => {}
    }
}
