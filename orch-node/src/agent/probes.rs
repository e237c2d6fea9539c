//! Probes that go on while containers run.
//!
//! Source: `pkg/kubelet/prober/worker.go`, `prober_manager.go`.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    Context,
    plan::{Observed, ProbeResults},
    prober::{self, Outcome, ProbeTarget},
    spec::{self, ProbeKind},
};
use crate::runtime::{ContainerId, ContainerStatus};

type Key = (ContainerId, ProbeKind);

/// The probes of one pod's running containers. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Probes {
    results: Arc<Mutex<HashMap<Key, bool>>>,
    tasks: HashMap<Key, Task>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ProbeResults for Probes {
    fn result(&self, container: &ContainerId, kind: ProbeKind) -> Option<bool> {
        self.results.lock().get(&(container.clone(), kind)).copied()
    }
}

impl Probes {
    /// `changed` is told whenever a result changes.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self { results: Arc::default(), tasks: HashMap::new(), changed }
    }

    /// Starts and ends probes so that exactly the running containers are probed; of a pod that is
    /// terminating only readiness is.
    pub(crate) fn reconcile(&mut self, context: &Arc<Context>, pod: &Arc<Pod>, seen: &Observed) {
        let terminating = spec::is_terminating(pod);
        let address = seen.ready_sandbox().and_then(|s| s.ips.first().copied());
        let address = address.or_else(|| context.host_ips().first().copied());
        let mut wanted = Vec::new();
        for (_, container) in spec::all_containers(pod) {
            let Some(status) = seen.latest(&container.name).filter(|s| s.is_running()) else {
                continue;
            };
            for kind in ProbeKind::ALL {
                let Some(probe) = kind.of(container) else { continue };
                if !terminating || kind == ProbeKind::Readiness {
                    wanted.push(((status.id.clone(), kind), container, probe, status));
                }
            }
        }
        self.tasks.retain(|key, _| wanted.iter().any(|(k, ..)| k == key));
        let is_running =
            |id: &ContainerId| seen.containers.iter().any(|c| c.id == *id && c.is_running());
        self.results.lock().retain(|(id, _), _| is_running(id));
        for (key, container, probe, status) in wanted {
            if !self.tasks.contains_key(&key) {
                let task = self.start(context, pod, container, probe, status, key.1, address);
                self.tasks.insert(key, task);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, which has them all apart")]
    fn start(
        &self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        container: &Container,
        probe: &Probe,
        status: &ContainerStatus,
        kind: ProbeKind,
        address: Option<IpAddr>,
    ) -> Task {
        let key = (status.id.clone(), kind);
        let initial = match kind {
            ProbeKind::Startup => was(pod, status, |s| s.started == Some(true)).then_some(true),
            ProbeKind::Liveness => Some(true),
            ProbeKind::Readiness => Some(was(pod, status, |s| s.ready)),
        };
        if let Some(initial) = initial {
            self.results.lock().insert(key.clone(), initial);
        }
        let worker = ProbeWorker {
            context: context.clone(),
            pod: pod.clone(),
            container: container.clone(),
            probe: probe.clone(),
            key,
            started_at: status.started_at.unwrap_or(status.created_at),
            address,
            results: self.results.clone(),
            changed: self.changed.clone(),
        };
        Task(tokio::spawn(worker.run()).abort_handle())
    }
}

/// What the pod's written status says of this very container: a restarted agent goes on from it.
fn was(
    pod: &Pod,
    status: &ContainerStatus,
    what: impl Fn(&k8s_openapi::api::core::v1::ContainerStatus) -> bool,
) -> bool {
    let written = spec::status(pod);
    let lists = [&written.container_statuses, &written.init_container_statuses];
    lists.into_iter().flatten().flatten().any(|s| {
        let id = s.container_id.as_deref().and_then(|id| id.split_once("://"));
        id.is_some_and(|(_, id)| id == status.id.0) && what(s)
    })
}

struct ProbeWorker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    probe: Probe,
    key: Key,
    started_at: jiff::Timestamp,
    address: Option<IpAddr>,
    results: Arc<Mutex<HashMap<Key, bool>>>,
    changed: Arc<Notify>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let given = value.and_then(|v| u64::try_from(v).ok()).filter(|&v| v > 0);
    Duration::from_secs(given.unwrap_or(default))
}

impl ProbeWorker {
    async fn run(self) {
        let clock = &self.context.environment.clock;
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let age = Duration::try_from(clock.now().duration_since(self.started_at));
        let wait = delay.saturating_sub(age.unwrap_or_default());
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
        let period = seconds(self.probe.period_seconds, 10);
        let mut run = (None, 0);
        loop {
            if self.may_probe() {
                let outcome = self.probe_once().await;
                run = self.take(outcome, run);
                let startup_passed =
                    self.key.1 == ProbeKind::Startup && self.current() == Some(true);
                if startup_passed {
                    return;
                }
            }
            clock.sleep(period).await;
        }
    }

    fn current(&self) -> Option<bool> {
        self.results.lock().get(&self.key).copied()
    }

    /// Liveness and readiness wait until the container has started up.
    fn may_probe(&self) -> bool {
        let startup = (self.key.0.clone(), ProbeKind::Startup);
        self.key.1 == ProbeKind::Startup
            || self.container.startup_probe.is_none()
            || self.results.lock().get(&startup) == Some(&true)
    }

    /// Probes, again at once up to three times when the probe itself cannot be made.
    async fn probe_once(&self) -> Outcome {
        let target = ProbeTarget {
            runtime: &*self.context.runtime,
            container_id: &self.key.0,
            container: &self.container,
            address: self.address,
        };
        let mut outcome = prober::probe(target, &self.probe).await;
        for _ in 0..2 {
            if !matches!(outcome, Outcome::Error(_)) {
                break;
            }
            outcome = prober::probe(target, &self.probe).await;
        }
        outcome
    }

    /// Counts equal outcomes in a row and sets the result when a threshold is reached.
    fn take(&self, outcome: Outcome, run: (Option<bool>, i32)) -> (Option<bool>, i32) {
        let title = self.key.1.title();
        let events = self.context.events.of_pod(&self.pod);
        let name = Some(self.container.name.as_str());
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(text) => {
                events.warn(name, "Unhealthy", &format!("{title} probe failed: {text}"));
                false
            }
            Outcome::Error(text) => {
                let text = format!("{title} probe errored and resulted in unknown state: {text}");
                events.warn(name, "Unhealthy", &text);
                return run;
            }
        };
        let count = if run.0 == Some(success) { run.1.saturating_add(1) } else { 1 };
        let threshold = if success {
            self.probe.success_threshold.unwrap_or(1)
        } else {
            self.probe.failure_threshold.unwrap_or(3)
        };
        if count >= threshold.max(1) {
            let before = self.results.lock().insert(self.key.clone(), success);
            if before != Some(success) {
                self.changed.notify_one();
            }
        }
        (Some(success), count)
    }
}
