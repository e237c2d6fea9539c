//! The worker of one pod: looks, acts, writes the status, waits.
//!
//! Source: `pkg/kubelet/pod_workers.go`, `pkg/kubelet/kubelet.go` (`SyncPod`,
//! `SyncTerminatingPod`, `SyncTerminatedPod`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orch_core::{Resources, backoff::Backoff, client::DeleteOptions};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    Context,
    admission::Rejection,
    node,
    plan::{Observed, plan},
    probes::Probes,
    rotate, spec,
    status::{StatusInput, Why, pod_status},
    stop,
};
use crate::{
    downward::PodFields,
    runtime::{ContainerId, RuntimeError},
};

/// After a step that failed for a reason that may pass.
const RETRY: Duration = Duration::from_secs(2);
/// A pod's worker does at most so many things in a row before it looks at its pod again.
const STEPS_MAX: usize = 64;
/// So often a status write that lost against another is tried again at once.
const WRITE_TRIES: usize = 4;
/// How many times rarer a pod is looked at for which nothing can be due that is not told.
const SELDOM: u32 = 60;

/// The pod as the cluster has it now.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) pod: Arc<Pod>,
    /// Whether it is gone from the cluster.
    pub(super) removed: bool,
}

impl Desired {
    fn is_ending(&self) -> bool {
        self.removed || spec::is_terminating(&self.pod)
    }

    fn grace_s(&self) -> i64 {
        spec::grace_period_s(&self.pod)
    }
}

/// One pod's worker. Dropping [`PodWorker::run`] at any await is safe: what was begun is found in
/// the runtime again.
pub(super) struct PodWorker {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) probes: Probes,
    pub(super) restarts: Backoff<String>,
    pub(super) pulls: Backoff<String>,
    /// Why containers wait, by name.
    pub(super) waiting: HashMap<String, Why>,
    /// Termination messages by container id.
    pub(super) messages: HashMap<String, String>,
    /// Containers whose preStop hook has run.
    pub(super) pre_stopped: Mutex<BTreeSet<ContainerId>>,
    desired: watch::Receiver<Desired>,
    changed: Arc<Notify>,
    failure: Option<Why>,
    /// Whether the failure is that the node refused the pod.
    rejected: bool,
    written: Option<PodStatus>,
    /// Whether the newest status could not be written.
    unwritten: bool,
    admitted: bool,
}

impl PodWorker {
    pub(super) fn new(
        context: Arc<Context>,
        desired: watch::Receiver<Desired>,
        changed: Arc<Notify>,
    ) -> Self {
        let backoff = || Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let pod = desired.borrow().pod.clone();
        Self {
            probes: Probes::new(changed.clone()),
            restarts: backoff(),
            pulls: Backoff::new(Duration::from_secs(10), Duration::from_secs(300)),
            waiting: HashMap::new(),
            messages: HashMap::new(),
            pre_stopped: Mutex::default(),
            failure: None,
            rejected: false,
            written: None,
            unwritten: false,
            admitted: false,
            context,
            pod,
            desired,
            changed,
        }
    }

    /// Works until the pod is gone from cluster and machine.
    pub(super) async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.take(desired.pod.clone());
            let wait = if desired.removed {
                match self.end(&desired).await {
                    Ok(()) => return self.clean_up().await,
                    Err(error) => self.failed("the pod could not be stopped", &error),
                }
            } else if desired.is_ending() {
                self.terminate(&desired).await
            } else {
                self.sync_until_ending().await
            };
            let clock = self.context.environment.clock.clone();
            tokio::select! {
                biased;
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.changed.notified() => {}
                () = clock.sleep(wait) => {}
            }
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.environment.clock.now()
    }

    fn failed(&self, what: &str, error: &RuntimeError) -> Duration {
        tracing::warn!(pod = spec::full_name(&self.pod), %error, "{what}");
        RETRY
    }

    /// Takes over a newer version of the pod. The informer may lag behind our own writes.
    fn take(&mut self, pod: Arc<Pod>) {
        let revision = |pod: &Pod| -> Option<u64> {
            pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok())
        };
        if revision(&pod) < revision(&self.pod) {
            return;
        }
        if pod.status != self.pod.status {
            self.written = None;
        }
        self.pod = pod;
    }

    async fn sync_until_ending(&mut self) -> Duration {
        let mut desired = self.desired.clone();
        tokio::select! {
            biased;
            _ = desired.wait_for(Desired::is_ending) => Duration::ZERO,
            wait = self.sync() => wait,
        }
    }

    pub(super) async fn observe(&self) -> Result<Observed, RuntimeError> {
        let uid = Some(spec::uid(&self.pod));
        let runtime = &self.context.runtime;
        Ok(Observed {
            sandboxes: runtime.sandboxes(uid).await?,
            containers: runtime.containers(uid).await?,
        })
    }

    /// Brings the pod nearer to what it should be; gives when to look again.
    async fn sync(&mut self) -> Duration {
        match self.try_sync().await {
            Ok(wait) => wait.min(self.resync()),
            Err(error) => self.failed("the pod could not be looked at", &error),
        }
    }

    /// When to look again although nothing is known to have happened. With a runtime that tells
    /// everything, and no files that age, only what cannot be foreseen is left to find.
    fn resync(&self) -> Duration {
        let info = &self.context.info;
        let period = self.context.options.resync;
        let is_told = info.tells_events && !info.has_files && !self.unwritten;
        if is_told { period.saturating_mul(SELDOM) } else { period }
    }

    async fn try_sync(&mut self) -> Result<Duration, RuntimeError> {
        let mut observed = self.observe().await?;
        if spec::is_terminal(&self.pod) {
            if observed.sandboxes.is_empty() && observed.containers.is_empty() {
                // Of what left nothing behind there is nothing new to tell.
                self.release();
                return Ok(self.resync());
            }
            return self.settle(&observed).await;
        }
        if let Some(failure) = self.fails_now(&observed).await {
            self.failure = Some(failure);
            return self.settle(&observed).await;
        }
        for _ in 0..STEPS_MAX {
            self.note_messages(&observed).await;
            let (context, pod) = (self.context.clone(), self.pod.clone());
            self.probes.reconcile(&context, &pod, &observed);
            let plan = plan(&pod, &observed, &self.probes);
            let has_ended = plan.kill_pod && plan.create_sandbox.is_none();
            if has_ended {
                return self.settle(&observed).await;
            }
            self.publish(&observed, false).await;
            if plan.is_idle() {
                self.upkeep(&observed).await;
                return Ok(self.until_deadline());
            }
            let wait = self.execute(&plan, &observed).await?;
            observed = self.observe().await?;
            if let Some(wait) = wait {
                self.publish(&observed, false).await;
                return Ok(wait.min(self.until_deadline()));
            }
        }
        Ok(Duration::ZERO)
    }

    /// Whether the pod must not run at all: it does not fit, or its time is over.
    async fn fails_now(&mut self, observed: &Observed) -> Option<Why> {
        if !self.admitted {
            if observed.sandboxes.is_empty() {
                if let Some(rejection) = self.rejection().await {
                    let events = self.context.events.of_pod(&self.pod);
                    let text = rejection.message.trim_start_matches("Pod was rejected: ");
                    events.warn(None, &rejection.reason, text);
                    self.rejected = true;
                    return Some((rejection.reason, rejection.message));
                }
            } else {
                self.context.admitted.lock().keep(&self.pod);
            }
            self.admitted = true;
        }
        if self.until_deadline().is_zero() {
            let message = "Pod was active on the node longer than the specified deadline";
            let events = self.context.events.of_pod(&self.pod);
            events.normal(None, "DeadlineExceeded", message);
            return Some(("DeadlineExceeded".into(), message.into()));
        }
        None
    }

    /// Why the node cannot take the pod. What is known of the node may be older than what the
    /// scheduler has seen of it; it is read again before anything is refused.
    async fn rejection(&self) -> Option<Rejection> {
        let known = self.context.node.lock().clone();
        let first = self.context.admitted.lock().admit(&self.pod, &known).err()?;
        loop {
            match node::read(&self.context).await {
                Ok(node) => return self.context.admitted.lock().admit(&self.pod, &node).err(),
                Err(error) if error.is_not_found() => return Some(first),
                Err(error) => {
                    tracing::debug!(pod = spec::full_name(&self.pod), %error, "not judged yet");
                    self.context.environment.clock.sleep(RETRY).await;
                }
            }
        }
    }

    fn until_deadline(&self) -> Duration {
        let limit = spec::spec(&self.pod).active_deadline_seconds;
        let Some(limit) = limit.and_then(|s| u64::try_from(s).ok()) else { return Duration::MAX };
        let started = spec::status(&self.pod).start_time.as_ref().map(|t| t.0);
        let age = started.map(|at| self.now().duration_since(at)).unwrap_or_default();
        Duration::from_secs(limit).saturating_sub(Duration::try_from(age).unwrap_or_default())
    }

    /// The pod has ended by itself: stops what is left of it and keeps its last status.
    async fn settle(&mut self, observed: &Observed) -> Result<Duration, RuntimeError> {
        let pod = self.pod.clone();
        if observed.any_running() || observed.ready_sandbox().is_some() {
            stop::kill_pod(self, &pod, observed, spec::grace_period_s(&pod)).await?;
        }
        let observed = self.observe().await?;
        self.note_messages(&observed).await;
        let context = self.context.clone();
        self.probes.reconcile(&context, &pod, &observed);
        self.publish(&observed, true).await;
        self.release();
        Ok(self.resync())
    }

    fn release(&mut self) {
        let uid = spec::uid(&self.pod);
        self.context.admitted.lock().release(uid);
        if let Some(addresses) = &self.context.options.pod_addresses {
            addresses.release(uid);
        }
    }

    /// The pod was deleted: stops it within its grace period, then lets it go from the cluster.
    async fn terminate(&mut self, desired: &Desired) -> Duration {
        if let Err(error) = self.end(desired).await {
            return self.failed("the pod could not be stopped", &error);
        }
        if self.desired.has_changed().unwrap_or(false) {
            return Duration::ZERO;
        }
        let pods =
            Resources::<Pod>::namespaced(self.context.client.clone(), spec::namespace(&self.pod));
        let options = DeleteOptions {
            grace_period_s: Some(0),
            uid: self.pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        match pods.delete(spec::name(&self.pod), options).await {
            Ok(_) => self.context.options.resync,
            Err(error) if error.is_not_found() || error.is_conflict() => {
                self.context.options.resync
            }
            Err(error) => {
                tracing::warn!(pod = spec::full_name(&self.pod), %error, "it was not deleted");
                RETRY
            }
        }
    }

    /// Stops everything and writes the last status. Gives up early, with success, when the grace
    /// period is shortened: the caller starts over.
    async fn end(&mut self, desired: &Desired) -> Result<(), RuntimeError> {
        let observed = self.observe().await?;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        self.probes.reconcile(&context, &pod, &observed);
        if observed.any_running() && !desired.removed {
            self.publish(&observed, false).await;
        }
        let grace_s = desired.grace_s();
        let mut shortened = self.desired.clone();
        tokio::select! {
            biased;
            _ = shortened.wait_for(|d| d.grace_s() < grace_s) => return Ok(()),
            killed = stop::kill_pod(self, &pod, &observed, grace_s) => killed?,
        }
        let observed = self.observe().await?;
        self.note_messages(&observed).await;
        self.probes.reconcile(&context, &pod, &observed);
        if !desired.removed {
            self.publish(&observed, true).await;
        }
        self.release();
        Ok(())
    }

    /// Removes what the pod leaves on the machine.
    async fn clean_up(&mut self) {
        let uid = spec::uid(&self.pod).to_owned();
        while let Err(error) = self.remove_sandboxes().await {
            let wait = self.failed("the pod's sandboxes could not be removed", &error);
            self.context.environment.clock.sleep(wait).await;
        }
        self.context.volumes.remove(&uid).await;
        let (namespace, name) = (spec::namespace(&self.pod), spec::name(&self.pod));
        stop::remove_logs(&self.context, namespace, name, &uid).await;
    }

    async fn remove_sandboxes(&self) -> Result<(), RuntimeError> {
        for sandbox in self.context.runtime.sandboxes(Some(spec::uid(&self.pod))).await? {
            self.context.runtime.remove_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    /// Writes the status if it has changed. What cannot be written now is written by a later call.
    pub(super) async fn publish(&mut self, observed: &Observed, ending: bool) {
        let pods =
            Resources::<Pod>::namespaced(self.context.client.clone(), spec::namespace(&self.pod));
        self.unwritten = false;
        for _ in 0..WRITE_TRIES {
            let status = self.compute_status(observed, ending);
            let is_known = self.pod.status.as_ref() == Some(&status);
            if is_known || self.written.as_ref() == Some(&status) {
                return;
            }
            self.unwritten = true;
            let mut pod = (*self.pod).clone();
            pod.status = Some(status.clone());
            match pods.update_status(&pod).await {
                Ok(pod) => {
                    self.take(pod);
                    (self.written, self.unwritten) = (Some(status), false);
                    return;
                }
                Err(error) if error.is_conflict() => match pods.get(spec::name(&pod)).await {
                    Ok(newer) if spec::uid(&newer) == spec::uid(&pod) => self.take(newer),
                    _ => return,
                },
                Err(error) => {
                    if !error.is_not_found() {
                        let pod = spec::full_name(&pod);
                        tracing::warn!(pod, %error, "the pod's status was not written");
                    }
                    return;
                }
            }
        }
    }

    fn compute_status(&self, observed: &Observed, ending: bool) -> PodStatus {
        let host_ips = self.context.host_ips();
        let input = StatusInput {
            observed,
            probes: &self.probes,
            waiting: &self.waiting,
            messages: &self.messages,
            failure: self.failure.as_ref(),
            rejected: self.rejected,
            ending,
            host_ips: &host_ips,
            runtime_name: &self.context.info.name,
            now: self.now(),
        };
        pod_status(&self.pod, &input)
    }

    /// Brings the contents of config maps, secrets and tokens in volumes up to date, and rotates
    /// logs.
    async fn upkeep(&self, observed: &Observed) {
        if !self.context.info.has_files || !observed.any_running() {
            return;
        }
        rotate::rotate(&self.context, observed).await;
        let (host_ips, allocatable) = (self.context.host_ips(), self.context.allocatable());
        let fields = PodFields {
            pod: &self.pod,
            pod_ips: &[],
            host_ips: &host_ips,
            allocatable: &allocatable,
        };
        if let Err((volume, error)) = self.context.volumes.prepare(&self.pod, fields).await {
            let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
            self.context.events.of_pod(&self.pod).warn(None, "FailedMount", &text);
        }
    }
}
