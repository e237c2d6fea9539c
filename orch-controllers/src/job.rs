//! Jobs: pods that run to their end, so many times.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job`.

mod creation;
mod failure_policy;
mod indexes;
mod orphans;
mod per_index;
mod settled;
mod status;
mod success_policy;
mod tracking;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobStatus},
    core::v1::Pod,
};
use orch_core::{
    ClientError, Key,
    informer::{Change, Informer, Informers},
};

use self::settled::{Ends, Settled};
use crate::{
    Action, Controller, Expectations, Reconciler,
    context::Context,
    dependents::{self, PodSource},
    ownership::{self, Claim},
    pods::{self, Labels},
    reconciler::Reconciled,
};

/// Keeps a pod until its job has counted it.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";

const MANAGER: &str = "kubernetes.io/job-controller";

/// The controller of Jobs.
pub fn job(informers: &Informers) -> Controller {
    let context = Context::new(informers, "job-controller");
    let (jobs, pods) = (context.informer::<Job>(), context.informer::<Pod>());
    ownership::index_by_controller(&pods);
    orphans::index(&pods);
    settled::index(&pods);
    let expectations = Arc::new(Expectations::default());
    let source = PodSource {
        owners: jobs.clone(),
        expectations: expectations.clone(),
        selects: |job: &Job, labels| selects(job, labels),
    };
    let settled = Arc::new(Settled::default());
    let (forgets, ended, settles) = (expectations.clone(), settled.clone(), settled.clone());
    context
        .builder()
        .watches::<Job>(move |change| {
            let key = Key::of(&change.object().metadata);
            if dependents::is_over(change) {
                forgets.forget(&key);
            }
            if matches!(change, Change::Deleted(_)) {
                ended.forget(&key);
            }
            vec![key]
        })
        .watches::<Pod>(move |change| {
            settles.notice(change);
            let mut keys = source.keys(change);
            keys.extend(orphans::uncontrolled(change.object()));
            keys
        })
        .build(JobReconciler { context, jobs, pods, expectations, settled })
}

fn selects(job: &Job, labels: Option<&Labels>) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    pods::are_selected(selector, labels)
}

struct JobReconciler {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
    settled: Arc<Settled>,
}

/// One look at one job.
struct Run<'a> {
    context: &'a Context,
    expectations: &'a Expectations,
    key: Key,
    job: Job,
    spec: JobSpec,
    /// The status as the cluster has it.
    stored: JobStatus,
    /// The status as it is to become.
    status: JobStatus,
    /// The pods that the job has to do with still.
    pods: Vec<Arc<Pod>>,
    /// How the others ended.
    ends: Ends,
    /// Whether everything that was done before is among them.
    all_seen: bool,
}

#[async_trait]
impl Reconciler for JobReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let job = self.jobs.get(&key);
        orphans::release(&self.context, &self.pods, &key, job.as_deref()).await?;
        let Some(job) = job else { return Ok(Action::Done) };
        let Some(spec) = job.spec.clone() else { return Ok(Action::Done) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(Action::Done);
        }
        if let Some(pause) = self.expectations.pause(&key, &job.metadata, self.pods.position()) {
            return Ok(Action::RequeueAfter(pause));
        }
        // Asked before the pods are looked at: what shows up in between is not among them.
        let all_seen = self.expectations.satisfied(&key);
        let claim = Claim {
            owners: self.context.resources(&key.namespace),
            dependents: self.context.resources(&key.namespace),
            informer: &self.pods,
            owner: &*job,
            adopts: pods::is_active,
            finalizer: Some(TRACKING),
        };
        let selected = |pod: &Pod| selects(&job, pod.metadata.labels.as_ref());
        let pods = claim.among(settled::UNSETTLED, selected).await?;
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let settled = self.settled.take(&key, uid, &self.pods);
        if let Err(error) = claim.release_others(&settled, selected).await {
            self.settled.put_back(&key, &settled);
            return Err(error.into());
        }
        let ends = self.settled.ends(&key, uid);
        let stored = job.status.clone().unwrap_or_default();
        let mut run = Run {
            context: &self.context,
            expectations: &self.expectations,
            key,
            spec,
            status: stored.clone(),
            stored,
            job: Arc::unwrap_or_clone(job),
            pods,
            ends,
            all_seen,
        };
        // Boxed: it holds the job twice.
        Box::pin(run.sync()).await
    }
}

impl Run<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Whether a pod is only replaced once it is over, and not as soon as it is on its way out.
    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_terminating(pod) && !self.replaces_only_failed(),
        }
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect()
    }

    fn terminating(&self) -> usize {
        let going = |pod: &&Arc<Pod>| pods::is_terminating(pod) && !pods::is_terminal(pod);
        self.pods.iter().filter(going).count()
    }

    async fn sync(&mut self) -> Reconciled {
        if status::is_finished(&self.stored) {
            // What was adopted after the end, or whose finalizer could not be removed before it.
            self.release_pods().await?;
            return Ok(Action::Done);
        }
        let suspended = self.spec.suspend == Some(true);
        if self.status.start_time.is_none() && !suspended {
            self.status.start_time = Some(self.context.time());
        }
        let counts = self.count();
        let mut next = self.judge(&counts);
        let mut error = None;
        let going = self.job.metadata.deletion_timestamp.is_some();
        let may_manage = self.all_seen && !going;
        let mut active = self.active().len();
        if status::is_ending(&self.status) || (may_manage && suspended) {
            let pods = self.active();
            active = 0;
            error = self.delete(&pods).await.err();
        } else if may_manage {
            match self.manage(&counts).await {
                Ok((now_active, wait)) => {
                    active = now_active;
                    next = [next, wait].into_iter().flatten().min();
                }
                Err(failed) => error = Some(failed),
            }
        }
        if !status::is_ending(&self.status) {
            self.note_suspension(suspended);
        }
        self.status.active = number(active);
        self.status.ready = Some(i32::try_from(self.ready()).unwrap_or(i32::MAX));
        self.status.terminating = Some(i32::try_from(self.terminating()).unwrap_or(i32::MAX));
        self.track(active).await?;
        if let Some(error) = error {
            return Err(error.into());
        }
        let next = next.map_or(Action::Done, Action::RequeueAfter);
        Ok(self.expectations.or_expiry(&self.key, next))
    }

    fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod)).count()
    }

    async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), ClientError> {
        if pods.is_empty() {
            return Ok(());
        }
        self.control().delete(pods).await
    }

    fn control(&self) -> pods::PodControl<'_, Job> {
        pods::PodControl {
            context: self.context,
            expectations: self.expectations,
            owner: &self.job,
            voice: pods::Voice::Common,
        }
    }

    /// Writes the status if it differs from what the cluster has.
    async fn write_status(&mut self) -> Result<(), ClientError> {
        if self.status == self.stored {
            return Ok(());
        }
        self.job.status = Some(self.status.clone());
        let resources = self.context.resources::<Job>(&self.key.namespace);
        let answer = resources.update_status(&self.job).await;
        let Some(written) = self.expectations.written(&self.key, answer)? else { return Ok(()) };
        self.job.metadata = written.metadata.clone();
        self.stored = self.status.clone();
        Ok(())
    }
}

fn number(count: usize) -> Option<i32> {
    i32::try_from(count).ok().filter(|count| *count != 0)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
