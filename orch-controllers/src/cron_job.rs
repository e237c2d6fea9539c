//! CronJobs: Jobs that start by the clock.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/cronjob`.
//! Differs: a schedule without a time zone is in UTC, not in the zone of the process.

mod history;
mod start;
mod timing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    core::v1::ObjectReference,
};
use orch_core::{
    ClientError, Key,
    client::{DeleteOptions, Propagation},
    informer::{Change, Informer, Informers},
};

use crate::{
    Action, Controller, ReconcileError, Reconciler,
    context::{Context, EventType},
    ownership,
    reconciler::Reconciled,
};

/// The controller of CronJobs.
pub fn cron_job(informers: &Informers) -> Controller {
    let context = Context::new(informers, "cronjob-controller");
    let (crons, jobs) = (context.informer::<CronJob>(), context.informer::<Job>());
    ownership::index_by_controller(&jobs);
    let builder = context.builder();
    let (queue, told) = (builder.queue().clone(), context.clone());
    builder
        .watches::<CronJob>(move |change| {
            let key = Key::of(&change.object().metadata);
            match rescheduled(&told, change) {
                None => return vec![key],
                // What the new schedule would have started in the past is not made up for.
                Some(Ok(wait)) => queue.add_after(key, wait),
                Some(Err(())) => {}
            }
            Vec::new()
        })
        .owns::<CronJob, Job>()
        .build(CronJobReconciler { context, crons, jobs })
}

/// If the change is one of the schedule: how long until it is due next.
fn rescheduled(context: &Context, change: &Change<CronJob>) -> Option<Result<Duration, ()>> {
    let Change::Updated { old, new } = change else { return None };
    let (old, spec) = (&old.spec, &new.spec);
    if (&old.schedule, &old.time_zone) == (&spec.schedule, &spec.time_zone) {
        return None;
    }
    let Ok(schedule) = timing::schedule(spec) else {
        let message = format!("unparseable schedule for cronjob: {}", spec.schedule);
        context.event(&**new, EventType::Warning, "UnParseableCronJobSchedule", message);
        return Some(Err(()));
    };
    Some(timing::until_next(new, spec, context.now(), &schedule).ok_or(()))
}

struct CronJobReconciler {
    context: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

/// One look at one CronJob.
struct Run<'a> {
    context: &'a Context,
    key: Key,
    cron: CronJob,
    spec: CronJobSpec,
    /// The status as it is to become.
    status: CronJobStatus,
    jobs: Vec<Arc<Job>>,
}

#[async_trait]
impl Reconciler for CronJobReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(cron) = self.crons.get(&key) else { return Ok(Action::Done) };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let mut run = Run {
            context: &self.context,
            jobs: self.jobs.by_index(ownership::BY_CONTROLLER, uid),
            key,
            spec: cron.spec.clone(),
            status: cron.status.clone().unwrap_or_default(),
            cron: Arc::unwrap_or_clone(cron),
        };
        // Boxed: it holds the CronJob and a Job.
        Box::pin(run.all()).await
    }
}

impl Run<'_> {
    async fn all(&mut self) -> Reconciled {
        self.remove_old_jobs().await;
        let result = self.sync().await;
        self.write_status().await?;
        Ok(result?.map_or(Action::Done, Action::RequeueAfter))
    }

    /// Brings the status up to date and starts what is due. Gives how long until the next start.
    async fn sync(&mut self) -> Result<Option<Duration>, ReconcileError> {
        self.note_jobs().await?;
        self.forget_missing_jobs().await?;
        if self.cron.metadata.deletion_timestamp.is_some() || !self.has_known_zone() {
            return Ok(None);
        }
        if self.spec.suspend == Some(true) {
            return Ok(None);
        }
        self.start_what_is_due().await
    }

    fn event(&self, kind: EventType, reason: &str, message: &str) {
        self.context.event(&self.cron, kind, reason, message);
    }

    fn normal(&self, reason: &str, message: &str) {
        self.event(EventType::Normal, reason, message);
    }

    fn warn(&self, reason: &str, message: &str) {
        self.event(EventType::Warning, reason, message);
    }

    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, uid: Option<&String>) -> bool {
        self.active().iter().any(|active| active.uid.as_ref() == uid)
    }

    fn forget(&mut self, uid: Option<&String>) {
        let mut active = self.status.active.take().unwrap_or_default();
        active.retain(|active| active.uid.as_ref() != uid);
        self.status.active = (!active.is_empty()).then_some(active);
    }

    async fn live_job(&self, name: &str) -> Result<Option<Arc<Job>>, ClientError> {
        self.context.resources::<Job>(&self.key.namespace).get_opt(name).await
    }

    /// Deletes a job with its pods; `false` if that failed, which an event tells.
    async fn delete(&mut self, job: &Job) -> bool {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            uid: job.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        let jobs = self.context.resources::<Job>(&self.key.namespace);
        if let Err(error) = jobs.delete(name, options).await {
            self.warn("FailedDelete", &format!("Deleted job: {error}"));
            return false;
        }
        self.forget(job.metadata.uid.as_ref());
        self.normal("SuccessfulDelete", &format!("Deleted job {name}"));
        true
    }

    async fn write_status(&self) -> Result<(), ClientError> {
        if self.cron.status.as_ref().unwrap_or(&CronJobStatus::default()) == &self.status {
            return Ok(());
        }
        let updated = CronJob { status: Some(self.status.clone()), ..self.cron.clone() };
        let crons = self.context.resources::<CronJob>(&self.key.namespace);
        crons.update_status(&updated).await.map(drop)
    }
}
