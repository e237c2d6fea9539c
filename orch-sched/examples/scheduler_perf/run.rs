//! The steps of a workload, one after the other.

use std::{path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use orch_api::{ApiServer, Bootstrap, auth::UserInfo};
use orch_core::{
    Environment, ResourceType, Target,
    client::{DeleteOptions, Write},
    informer::Informers,
};
use orch_sched::Scheduler;
use orch_store::MemoryStore;
use tokio::time::{Instant, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error,
    config::{CreatePods, LabelSelection, Op, TestCase, Workload},
    devices,
    metrics::{Pods, throughput},
    objects::Objects,
    template::Template,
};

/// How fast a churn goes on if it does not say.
const CHURN_INTERVAL_MS: u64 = 500;

struct Run<'a> {
    case: &'a TestCase,
    workload: &'a Workload,
    objects: Objects,
    informers: Informers,
    pods: Pods,
    /// What goes on beside the steps until the workload ends.
    beside: TaskTracker,
    cancel: CancellationToken,
    /// What is being measured: a name, which pods, and since when.
    measured: Option<(String, LabelSelection, Instant)>,
    /// How many steps have created pods: each has a namespace of its own.
    pod_steps: usize,
    lines: Vec<String>,
}

/// Runs a workload on a cluster of its own. Gives the lines to print.
pub(crate) async fn workload(
    folder: &Path,
    case: &TestCase,
    workload: &Workload,
) -> Result<Vec<String>, Error> {
    if let Some(path) = &case.scheduler_config_path {
        return Err(format!("{path}: scheduler configuration files are not read yet").into());
    }
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    server.bootstrap(&Bootstrap::default()).await?;
    let client = server.client(UserInfo::master("scheduler_perf"));
    let resources = server.newest_resource_types().await?;
    let informers =
        Informers::new(server.client(UserInfo::master("scheduler")), Environment::system());
    let pods = Pods::follow(&informers.of::<Pod>());
    let scheduler = Scheduler::builder(&informers).build()?;
    let features = workload.params.get("numNodeDeclaredFeatures").and_then(|n| n.as_u64());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(scheduler.run(cancel.clone()));
    let beside = TaskTracker::new();
    if case.has_devices() {
        let client = server.client(UserInfo::master("controllers"));
        let manager = devices::controllers(&Informers::new(client, Environment::system()))?;
        beside.spawn(manager.run(cancel.clone()));
    }
    let mut run = Run {
        case,
        workload,
        objects: Objects::new(client, folder, resources).declaring(features.unwrap_or(0)),
        informers,
        pods,
        beside,
        cancel: cancel.clone(),
        measured: None,
        pod_steps: 0,
        lines: vec![format!("{}/{}", case.name, workload.name)],
    };
    let mut outcome = Ok(());
    for op in &case.workload_template {
        outcome = run.step(op).await;
        if outcome.is_err() {
            break;
        }
    }
    cancel.cancel();
    run.beside.close();
    run.beside.wait().await;
    running.await?;
    outcome.map(|()| run.lines)
}

impl Run<'_> {
    async fn step(&mut self, op: &Op) -> Result<(), Error> {
        let workload = self.workload;
        match op {
            Op::CreateNodes {
                count,
                node_template_path,
                node_allocatable_strategy,
                label_node_prepare_strategy,
            } => {
                let (count, template) =
                    (count.resolve(workload, 1)?, node_template_path.as_deref());
                let allocatable = node_allocatable_strategy.as_ref();
                let labels = label_node_prepare_strategy.as_ref();
                self.objects.nodes(count, template, allocatable, labels).await?;
                self.informers.of::<Node>().synced().await;
            }
            Op::CreateNamespaces { count, prefix, namespace_template_path } => {
                let template = namespace_template_path.as_deref();
                let template = template.map(|path| self.objects.template(path)).transpose()?;
                for index in 0..count.resolve(workload, 1)? {
                    let name = format!("{prefix}-{index}");
                    self.objects.namespace(&name, template.as_ref()).await?;
                }
            }
            Op::CreatePods(step) => self.create_pods(step, None).await?,
            Op::CreatePodSets { count, namespace_prefix, create_pods_op } => {
                for index in 0..count.resolve(workload, 1)? {
                    let namespace = format!("{namespace_prefix}-{index}");
                    self.create_pods(create_pods_op, Some(namespace)).await?;
                }
            }
            Op::CreateAny { count, namespace, template_path } => {
                let template = self.objects.template(template_path)?;
                self.ensure(namespace.as_deref()).await?;
                let count = count.resolve(workload, 1)?;
                for index in 0..count {
                    self.objects.any(namespace.as_deref(), template.render(index, count)?).await?;
                }
            }
            Op::UpdateAny { count, namespace, template_path, update_per_second, subresources } => {
                let template = self.objects.template(template_path)?;
                let mut pace = Pace::new(*update_per_second);
                let count = count.resolve(workload, 1)?;
                for index in 0..count {
                    pace.next().await;
                    let object = template.render(index, count)?;
                    self.objects.update(namespace.as_deref(), object, subresources).await?;
                }
            }
            Op::DeletePods { pods, delete_pods_per_second, skip_wait_to_completion } => {
                let deleting =
                    delete_pods(self.objects.clone(), self.selected(pods), *delete_pods_per_second);
                if *skip_wait_to_completion {
                    self.beside.spawn(report(deleting));
                } else {
                    deleting.await?;
                }
            }
            Op::Churn { mode, number, template_paths, interval_milliseconds } => {
                let templates: Result<Vec<Template>, Error> =
                    template_paths.iter().map(|path| self.objects.template(path)).collect();
                let every = interval_milliseconds.unwrap_or(CHURN_INTERVAL_MS);
                let kept = match (mode.as_str(), number) {
                    ("create", _) => None,
                    ("recreate", number) => Some(number.unwrap_or(1)),
                    (other, _) => return Err(format!("{other:?} is no mode of a churn").into()),
                };
                let churning = churn(self.objects.clone(), templates?, kept, every);
                let cancel = self.cancel.clone();
                self.beside.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = report(churning) => {}
                    }
                });
            }
            Op::Barrier { pods, stage_requirement } => {
                let attempted = stage_requirement.as_deref() == Some("Attempted");
                self.pods.wait(pods, 0, attempted).await;
            }
            Op::StartCollectingMetrics { name, pods } => {
                let name = name.clone().unwrap_or_else(|| "pods".to_owned());
                self.measured = Some((name, pods.clone(), Instant::now()));
            }
            Op::StopCollectingMetrics => self.stop_measuring(),
            Op::CreateResourceDriver {
                driver_name,
                nodes,
                max_claims_per_node,
                max_claims_per_node_param,
            } => {
                let param = max_claims_per_node_param.as_deref();
                let per_node = workload.count(*max_claims_per_node, param)?;
                let start = Instant::now();
                let driver = (driver_name.as_str(), nodes.as_str(), per_node);
                let count = devices::publish(&self.objects, &self.informers, driver).await?;
                if self.measured.is_some() {
                    let took = start.elapsed().as_secs_f64();
                    let line = format!("{count} ResourceSlices published and seen in {took:.3} s");
                    self.lines.push(line);
                }
            }
            Op::AllocResourceClaims { namespace } => {
                let namespace = namespace.as_deref();
                devices::allocate(&self.objects, &self.informers, namespace).await?;
            }
        }
        Ok(())
    }

    async fn ensure(&self, namespace: Option<&str>) -> Result<(), Error> {
        match namespace {
            Some(namespace) => self.objects.namespace(namespace, None).await,
            None => Ok(()),
        }
    }

    async fn create_pods(&mut self, step: &CreatePods, set: Option<String>) -> Result<(), Error> {
        let count = step.count.resolve(self.workload, 1)?;
        self.pod_steps += 1;
        let namespace = set.or_else(|| step.namespace.clone());
        let namespace = namespace.unwrap_or_else(|| format!("namespace-{}", self.pod_steps));
        self.ensure(Some(&namespace)).await?;
        let only = LabelSelection { namespace: Some(namespace.clone()), ..Default::default() };
        if step.collect_metrics {
            self.measured = Some((namespace.clone(), only.clone(), Instant::now()));
        }
        let before = self.pods.count(&only);
        let default = self.case.default_pod_template_path.as_deref();
        let template = step.pod_template_path.as_deref().or(default);
        let volume = step.persistent_volume_template_path.as_deref();
        let volumes = volume.zip(step.persistent_volume_claim_template_path.as_deref());
        if let Some(duration) = step.steady_for(self.workload)? {
            let end = Instant::now() + duration;
            while Instant::now() < end {
                let seen = self.pods.count(&only);
                self.objects.pods(&namespace, count, template, volumes).await?;
                self.pods.wait(&only, seen + count as usize, false).await;
                delete_pods(self.objects.clone(), self.selected(&only), None).await?;
            }
        } else {
            self.objects.pods(&namespace, count, template, volumes).await?;
            if !step.skip_wait_to_completion {
                self.pods.wait(&only, before + count as usize, false).await;
            }
        }
        if step.collect_metrics && !step.skip_wait_to_completion {
            self.stop_measuring();
        }
        Ok(())
    }

    fn stop_measuring(&mut self) {
        if let Some((name, pods, start)) = self.measured.take() {
            let times = self.pods.scheduled_since(&pods, start);
            self.lines.extend(throughput(&name, &times, self.workload.threshold()));
        }
    }

    /// The pods of a selection that exist.
    fn selected(&self, selection: &LabelSelection) -> Vec<Target> {
        let namespace = selection.namespace.as_deref().unwrap_or_default();
        let pods = self.informers.of::<Pod>().list_in(namespace).into_iter().filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            let has = |(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value);
            selection.label_selector.iter().all(has)
        });
        let name = |pod: Arc<Pod>| pod.metadata.name.clone().unwrap_or_default();
        let target = |pod| Target::object(ResourceType::of::<Pod>(), Some(namespace), &name(pod));
        pods.map(target).collect()
    }
}

async fn delete_pods(
    objects: Objects,
    pods: Vec<Target>,
    per_second: Option<f64>,
) -> Result<(), Error> {
    let mut pace = Pace::new(per_second);
    for target in pods {
        pace.next().await;
        let options = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
        objects.client().write(Write::Delete(target, options)).await?;
    }
    Ok(())
}

/// Creates objects again and again; with `kept`, only so many of each are there at a time.
async fn churn(
    objects: Objects,
    templates: Vec<Template>,
    kept: Option<u64>,
    every_ms: u64,
) -> Result<(), Error> {
    objects.namespace("churn", None).await?;
    let mut ticks = interval(Duration::from_millis(every_ms));
    let mut made = Vec::new();
    for index in 0.. {
        for template in &templates {
            ticks.tick().await;
            made.push(objects.any(Some("churn"), template.render(index, 1)?).await?);
        }
        if kept.is_some_and(|kept| index % kept == kept - 1) {
            for target in made.drain(..) {
                ticks.tick().await;
                let options = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
                objects.client().write(Write::Delete(target, options)).await?;
            }
        }
    }
    Ok(())
}

/// What goes wrong beside the steps is told, and does not end them.
async fn report(work: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = work.await {
        eprintln!("beside the workload: {error}");
    }
}

/// So many times a second.
struct Pace(Option<tokio::time::Interval>);

impl Pace {
    fn new(per_second: Option<f64>) -> Self {
        Self(per_second.map(|count| interval(Duration::from_secs_f64(1.0 / count))))
    }

    async fn next(&mut self) {
        if let Some(interval) = &mut self.0 {
            interval.tick().await;
        }
    }
}
