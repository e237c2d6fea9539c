//! Deletes finished Jobs when their time has come.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/ttlafterfinished`.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use orch_core::{
    Key,
    client::{DeleteOptions, Propagation},
    informer::Informers,
};

use crate::{Action, Controller, context::Context};

/// The controller that deletes Jobs `ttlSecondsAfterFinished` seconds after they finished.
pub fn ttl_after_finished(informers: &Informers) -> Controller {
    let context = Context::new(informers, "ttl-after-finished-controller");
    let jobs = context.informer::<Job>();
    context.builder().watches_own_if::<Job>(|change| expiry(change.object()).is_some()).build(
        move |key: Key| {
            let (context, job) = (context.clone(), jobs.get(&key));
            async move {
                let Some((job, at)) = job.and_then(|job| Some((job.clone(), expiry(&job)?))) else {
                    return Ok(Action::Done);
                };
                if let Ok(left) = Duration::try_from(at.duration_since(context.now()))
                    && !left.is_zero()
                {
                    return Ok(Action::RequeueAfter(left));
                }
                let options = DeleteOptions {
                    propagation: Some(Propagation::Foreground),
                    uid: job.metadata.uid.clone(),
                    resource_version: job.metadata.resource_version.clone(),
                    ..DeleteOptions::default()
                };
                match context.resources::<Job>(&key.namespace).delete(&key.name, options).await {
                    Err(error) if !error.is_not_found() => Err(error.into()),
                    _ => Ok(Action::Done),
                }
            }
        },
    )
}

/// When a job is to be deleted, if it is finished and has a time to live.
fn expiry(job: &Job) -> Option<jiff::Timestamp> {
    let ttl_s = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let finished = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let at = finished.last_transition_time.as_ref()?.0;
    at.checked_add(jiff::SignedDuration::from_secs(i64::from(ttl_s))).ok()
}
