//! The steps of a workload, one after the other.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use orch_api::{ApiServer, ApiVersions, Bootstrap, ServerOptions, auth::UserInfo};
use orch_core::{Environment, Target, informer::Informers};
use orch_sched::Scheduler;
use orch_store::MemoryStore;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error,
    beside::{self, Churn, Pace, delete_pods},
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
    /// Which step runs: pods have its number in their namespace where the file names none.
    number: usize,
    /// How many pods of each namespace nobody has waited for yet.
    awaited: BTreeMap<String, usize>,
    began: Instant,
    lines: Vec<String>,
}

/// Runs a workload on a cluster of its own. Gives the lines to print.
pub(crate) async fn workload(
    folder: &Path,
    case: &TestCase,
    workload: &Workload,
) -> Result<Vec<String>, Error> {
    let mut options = ServerOptions::default();
    if case.has_devices() {
        // Templates of devices are in several versions.
        options.api_versions = ApiVersions::All;
    }
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).options(options).build();
    server.bootstrap(&Bootstrap::default()).await?;
    let client = server.client(UserInfo::master("scheduler_perf"));
    let resources = server.newest_resource_types().await?;
    let informers =
        Informers::new(server.client(UserInfo::master("scheduler")), Environment::system());
    let pods = Pods::follow(&informers.of::<Pod>());
    let mut scheduler = Scheduler::builder(&informers);
    if let Some(path) = &case.scheduler_config_path {
        let text = std::fs::read_to_string(folder.join(path));
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        scheduler = scheduler.configuration(&text.parse()?);
    }
    let scheduler = scheduler.build()?;
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
        number: 0,
        awaited: BTreeMap::new(),
        began: Instant::now(),
        lines: vec![format!("{}/{}", case.name, workload.name)],
    };
    let mut outcome = Ok(());
    for (number, op) in case.workload_template.iter().enumerate() {
        // Some workloads take their time, as they say how many objects change in a second.
        let (at, of) = (run.began.elapsed().as_secs_f64(), case.workload_template.len());
        eprintln!("{at:8.3} s: step {} of {of}, {}", number + 1, op.code());
        run.number = number;
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
                    self.go_beside(deleting);
                } else {
                    deleting.await?;
                }
            }
            Op::Churn { mode, number, template_paths, interval_milliseconds, namespace } => {
                let templates: Result<Vec<Template>, Error> =
                    template_paths.iter().map(|path| self.objects.template(path)).collect();
                let every = interval_milliseconds.unwrap_or(CHURN_INTERVAL_MS);
                let namespace = self.namespace_or_own(namespace.as_deref());
                let churn = Churn::new(self.objects.clone(), namespace, templates?, every);
                let churning = match mode.as_str() {
                    "create" => churn.create(number.unwrap_or(u64::MAX)).left_future(),
                    "recreate" => churn.recreate(number.unwrap_or(1)).right_future(),
                    other => return Err(format!("{other:?} is no mode of a churn").into()),
                };
                self.go_beside(churning);
            }
            Op::Barrier { pods, stage_requirement } => {
                self.barrier(pods, stage_requirement.as_deref() == Some("Attempted")).await?;
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

    /// Goes on beside the steps until the last of them has ended. What goes wrong is told, and does
    /// not end them.
    fn go_beside(&self, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.beside.spawn(async move {
            if let Some(Err(error)) = cancel.run_until_cancelled(work).await {
                eprintln!("beside the workload: {error}");
            }
        });
    }

    async fn ensure(&self, namespace: Option<&str>) -> Result<(), Error> {
        match namespace {
            Some(namespace) => self.objects.namespace(namespace, None).await,
            None => Ok(()),
        }
    }

    async fn create_pods(&mut self, step: &CreatePods, set: Option<String>) -> Result<(), Error> {
        let count = step.count.resolve(self.workload, 1)?;
        let namespace = set.unwrap_or_else(|| self.namespace_or_own(step.namespace.as_deref()));
        self.ensure(Some(&namespace)).await?;
        if step.collect_metrics {
            let only = LabelSelection { namespace: Some(namespace.clone()), ..Default::default() };
            self.measured = Some((namespace.clone(), only, Instant::now()));
        }
        let before = self.pods.count(&namespace);
        let default = self.case.default_pod_template_path.as_deref();
        let template = step.pod_template_path.as_deref().or(default);
        let volume = step.persistent_volume_template_path.as_deref();
        let volumes = volume.zip(step.persistent_volume_claim_template_path.as_deref());
        if let Some(duration) = step.steady_for(self.workload)? {
            let scheduled = self.pods.scheduled(&namespace, count as usize);
            let end = Instant::now() + duration;
            self.objects.pods(&namespace, count, template, volumes).await?;
            let objects = &self.objects;
            beside::replace_scheduled(objects, &namespace, template, scheduled, end).await?;
        } else {
            self.objects.pods(&namespace, count, template, volumes).await?;
            if step.skip_wait_to_completion {
                *self.awaited.entry(namespace).or_default() += count as usize;
                return Ok(());
            }
            let all = before + count as usize;
            self.pods.wait(&namespace, &BTreeMap::new(), all, false).await;
        }
        if step.collect_metrics {
            self.stop_measuring();
        }
        Ok(())
    }

    /// The namespace that a step names, or its own.
    fn namespace_or_own(&self, named: Option<&str>) -> String {
        named.map_or_else(|| format!("namespace-{}", self.number), str::to_owned)
    }

    /// Waits for pods of steps that nobody has waited for.
    async fn barrier(&mut self, pods: &LabelSelection, attempted: bool) -> Result<(), Error> {
        let named: Vec<&String> = pods.namespaces.iter().chain(&pods.namespace).collect();
        if let Some(unknown) = named.iter().find(|name| !self.awaited.contains_key(**name)) {
            return Err(
                format!("no step before has pods in namespace {unknown} to wait for").into()
            );
        }
        let is_waited_for = |name: &String| named.is_empty() || named.contains(&name);
        for (namespace, count) in self.awaited.iter().filter(|(name, _)| is_waited_for(name)) {
            self.pods.wait(namespace, &pods.label_selector, *count, attempted).await;
        }
        if !attempted {
            self.awaited.retain(|name, _| !is_waited_for(name));
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
        pods.map(|pod| beside::pod(namespace, &name(pod))).collect()
    }
}
