//! What goes on for a while: objects that come and go, and pods that are deleted one by one.
//!
//! Source: `test/integration/scheduler_perf/executor.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use orch_core::{
    Client, ResourceType, Target,
    client::{DeleteOptions, Write},
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, interval},
};

use crate::{Error, objects::Objects, template::Template};

/// So many times a second.
pub(crate) struct Pace(Option<Interval>);

impl Pace {
    pub(crate) fn new(per_second: Option<f64>) -> Self {
        Self(per_second.map(|count| interval(Duration::from_secs_f64(1.0 / count))))
    }

    pub(crate) async fn next(&mut self) {
        if let Some(interval) = &mut self.0 {
            interval.tick().await;
        }
    }
}

pub(crate) fn pod(namespace: &str, name: &str) -> Target {
    Target::object(ResourceType::of::<Pod>(), Some(namespace), name)
}

async fn delete(objects: &Objects, target: Target) -> Result<(), Error> {
    objects.client().write(Write::Delete(target, DeleteOptions::default())).await?;
    Ok(())
}

/// Deletes pods, so many in a second.
pub(crate) async fn delete_pods(
    objects: Objects,
    pods: Vec<Target>,
    per_second: Option<f64>,
) -> Result<(), Error> {
    let mut pace = Pace::new(per_second);
    for target in pods {
        pace.next().await;
        delete(&objects, target).await?;
    }
    Ok(())
}

/// Deletes each pod that is scheduled, and creates another one for it, until the time is over.
pub(crate) async fn replace_scheduled(
    objects: &Objects,
    namespace: &str,
    template: Option<&str>,
    mut scheduled: mpsc::Receiver<String>,
    end: Instant,
) -> Result<(), Error> {
    let mut count = 0;
    while let Ok(Some(name)) = tokio::time::timeout_at(end, scheduled.recv()).await {
        let options = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
        objects.client().write(Write::Delete(pod(namespace, &name), options)).await?;
        objects.pods(namespace, 1, template, None).await?;
        count += 1;
    }
    if count == 0 {
        return Err("no pod at all was scheduled in the time that the step goes on".into());
    }
    Ok(())
}

/// Objects of all templates that are created again and again.
pub(crate) struct Churn {
    objects: Objects,
    namespace: String,
    templates: Vec<Template>,
    every: Duration,
}

impl Churn {
    pub(crate) fn new(
        objects: Objects,
        namespace: String,
        templates: Vec<Template>,
        every_ms: u64,
    ) -> Self {
        Self { objects, namespace, templates, every: Duration::from_millis(every_ms) }
    }

    async fn make(&self, template: &Template) -> Result<Target, Error> {
        self.objects.any(Some(&self.namespace), template.render(0, 1)?).await
    }

    /// Creates one object of each template at a time, so often.
    pub(crate) async fn create(self, times: u64) -> Result<(), Error> {
        self.objects.namespace(&self.namespace, None).await?;
        let mut ticks = interval(self.every);
        for _ in 0..times {
            ticks.tick().await;
            for template in &self.templates {
                self.make(template).await?;
            }
        }
        Ok(())
    }

    /// Creates objects of each template until there are so many, then deletes these, and so on.
    pub(crate) async fn recreate(self, number: u64) -> Result<(), Error> {
        self.objects.namespace(&self.namespace, None).await?;
        let mut ticks = interval(self.every);
        let number = number.max(1) as usize;
        let mut made: Vec<Vec<Option<Target>>> = vec![vec![None; number]; self.templates.len()];
        for place in (0..number).cycle() {
            ticks.tick().await;
            for (template, made) in self.templates.iter().zip(&mut made) {
                made[place] = match made[place].take() {
                    Some(target) => {
                        delete(&self.objects, target).await?;
                        None
                    }
                    None => Some(self.make(template).await?),
                };
            }
        }
        Ok(())
    }
}
