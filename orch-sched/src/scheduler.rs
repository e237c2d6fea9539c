//! The scheduler: takes pods from the queue, finds them nodes, binds them.
//!
//! Source: `pkg/scheduler/schedule_one.go`.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{
        Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
        Service,
    },
    policy::v1::PodDisruptionBudget,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use orch_core::{
    Client, Environment,
    event::{EventRecorder, EventType, Reporter, reference_to},
    informer::Informers,
};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::Cache,
    configuration::{ExtenderConfiguration, SchedulerConfiguration},
    error::BuildError,
    extender::{Extender, ExtenderTransport, Http},
    framework::{Explanation, Profiles},
    metrics::Metrics,
    planner::{PlanError, Planner},
    plugin::Plugin,
    pod_groups::PodGroups,
    pod_info::PodInfo,
    profile::{PluginEntry, Profile, Registry},
    queue::{Backoff, Queue, QueueLengths},
    recording::{Line, Recorder, VERSION},
    waiting::WaitingPods,
    what_if::{Changes, Outcome},
};

mod binding;
mod cycle;
mod eviction;
mod extended;
mod failure;
mod group;
mod handlers;

/// How many pods may be on their way to their node at the same time.
const BINDING_MAX: usize = 256;

/// Assembles a [`Scheduler`].
#[derive(Debug)]
pub struct SchedulerBuilder {
    informers: Informers,
    profiles: Vec<Profile>,
    added: Vec<Added>,
    waiting: WaitingPods,
    backoff: Backoff,
    extenders: Vec<ExtenderConfiguration>,
    transport: Option<Arc<dyn ExtenderTransport>>,
    recorder: Option<Recorder>,
}

#[derive(Debug)]
struct Added {
    plugin: Arc<dyn Plugin>,
    /// Enabled in every profile with this weight; `None` leaves it to profiles that name it.
    weight: Option<i64>,
}

impl SchedulerBuilder {
    /// Adds a profile. Without any there is [`Profile::default`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Adds the profiles of a configuration file, and takes over what it says about the queue.
    #[must_use]
    pub fn configuration(mut self, configuration: &SchedulerConfiguration) -> Self {
        self.profiles.extend(configuration.profiles.iter().cloned());
        let (min, max) = (configuration.pod_initial_backoff, configuration.pod_max_backoff);
        self.backoff = Backoff { min, max };
        self.extenders.extend(configuration.extenders.iter().cloned());
        self
    }

    /// Carries requests to all extenders, instead of HTTP.
    #[must_use]
    pub fn extender_transport(mut self, transport: Arc<dyn ExtenderTransport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Adds a plugin and enables it in every profile, after the others, with a weight of 1.
    #[must_use]
    pub fn plugin(self, plugin: impl Plugin) -> Self {
        self.weighted_plugin(plugin, 1)
    }

    /// Adds a plugin and enables it in every profile, after the others.
    #[must_use]
    pub fn weighted_plugin(mut self, plugin: impl Plugin, weight: i64) -> Self {
        self.added.push(Added { plugin: Arc::new(plugin), weight: Some(weight) });
        self
    }

    /// Makes a plugin known, for profiles that name it.
    #[must_use]
    pub fn register(mut self, plugin: impl Plugin) -> Self {
        self.added.push(Added { plugin: Arc::new(plugin), weight: None });
        self
    }

    /// Where plugins that hold pods back let them go; give the same to those plugins.
    #[must_use]
    pub fn waiting_pods(mut self, waiting: WaitingPods) -> Self {
        self.waiting = waiting;
        self
    }

    /// Writes down what the scheduler sees and decides, for a [`Replay`](crate::Replay). Answers of
    /// extenders are not in it.
    #[must_use]
    pub fn record(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Puts the scheduler together. Starts the informers that it needs, so call it inside a tokio
    /// runtime; nothing is scheduled before [`Scheduler::run`].
    ///
    /// # Errors
    /// [`BuildError`] if the profiles or plugins do not fit together.
    pub fn build(self) -> Result<Scheduler, BuildError> {
        let groups = PodGroups::default();
        let mut registry =
            Registry::new(self.informers.clone()).sharing(groups.clone(), self.waiting.clone());
        let mut profiles = self.profiles;
        if profiles.is_empty() {
            profiles.push(Profile::default());
        }
        for Added { plugin, weight } in self.added {
            if let Some(weight) = weight {
                let entry = PluginEntry { name: plugin.name().to_owned(), weight };
                profiles.iter_mut().for_each(|profile| profile.plugins.push(entry.clone()));
            }
            registry.register(plugin)?;
        }
        let managed = self.extenders.iter().flat_map(|extender| &extender.managed_resources);
        let ignored = managed.filter(|resource| resource.ignored_by_scheduler);
        for resource in ignored {
            for profile in &mut profiles {
                let fit = &mut profile.arguments.node_resources_fit;
                fit.ignored_resources.push(resource.name.clone());
            }
        }
        let extender = |configuration: ExtenderConfiguration| {
            let transport = self.transport.clone();
            let transport = transport.unwrap_or_else(|| Arc::new(Http::new(&configuration)));
            Extender::new(configuration, transport)
        };
        let extenders: Arc<[Extender]> = self.extenders.into_iter().map(extender).collect();
        let names: Vec<String> = profiles.iter().map(|p| p.scheduler_name.clone()).collect();
        let profiles = Arc::new(registry.build(&profiles, &extenders)?);
        let cache = Cache::telling(groups.clone(), self.recorder.clone());
        let cache = cache.following(registry.devices());
        let client = self.informers.client().clone();
        let environment = self.informers.environment().clone();
        let recorder = |name: String| {
            let reporter = Reporter { series: true, ..Reporter::new(&name) };
            (name, EventRecorder::start(client.clone(), environment.clone(), reporter))
        };
        let shared = Arc::new(Shared {
            recorders: names.into_iter().map(recorder).collect(),
            queue: Queue::new(profiles.clone(), self.backoff),
            cache: Mutex::new(cache),
            groups,
            waiting: self.waiting,
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            profiles,
            client,
            environment,
        });
        if let Some(recorder) = &self.recorder {
            let profiles = shared.profiles.plugins();
            recorder.write(&Line::Recording { version: VERSION, profiles });
            recorder.follow(&self.informers);
        }
        handlers::follow(&self.informers, &shared);
        Ok(Scheduler { shared, informers: self.informers })
    }
}

/// What the cycles, the bindings and the informers' handlers share.
#[derive(Debug)]
struct Shared {
    client: Arc<dyn Client>,
    environment: Environment,
    profiles: Arc<Profiles>,
    queue: Queue,
    cache: Mutex<Cache>,
    groups: PodGroups,
    /// By scheduler name: events carry the name of the profile.
    recorders: HashMap<String, EventRecorder>,
    waiting: WaitingPods,
    metrics: Metrics,
    tasks: TaskTracker,
    /// Cancelled when pods that are held back or wait for volumes are to be let go of.
    stopping: CancellationToken,
}

impl Shared {
    /// Reports something about a pod, in the name of its profile.
    fn record(&self, pod: &PodInfo, kind: EventType, reason: &str, action: &str, message: &str) {
        if let Some(recorder) = self.recorders.get(pod.scheduler_name()) {
            recorder.record(&reference_to(&**pod.pod()), kind, reason, action, message);
        }
    }
}

/// Answers questions about what a scheduler knows and would do. Costs as much as there are nodes,
/// and does not hold the scheduler up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Insight {
    shared: Arc<Shared>,
}

impl Insight {
    /// The scheduler's state, to plan with: what happens to it does not happen to the cluster.
    ///
    /// # Errors
    /// [`PlanError::Fault`] if there is no profile.
    pub fn planner(&self) -> Result<Planner, PlanError> {
        let cache = self.shared.cache.lock().fork();
        let random = self.shared.environment.random.clone();
        let planner = Planner::of_scheduler(self.shared.profiles.fork(), cache, random);
        planner.ok_or_else(|| PlanError::Fault("the scheduler has no profile".into()))
    }

    /// The scheduler's numbers under upstream's names, in the text format of OpenMetrics.
    pub fn metrics(&self) -> String {
        let sizes = self.shared.cache.lock().sizes();
        self.shared.metrics.encode(self.shared.queue.lengths(), sizes)
    }

    /// Without binding: every node's verdict per plugin, and every score raw, normalized and
    /// weighted.
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails, or the pod cannot be understood.
    pub fn explain(&self, pod: &PodInfo) -> Result<Explanation, PlanError> {
        self.planner()?.explain(pod)
    }

    /// What would happen if the cluster changed so: where the pods of drained nodes go, how many
    /// more pods fit. Nothing is changed.
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails.
    pub fn what_if(&self, changes: &Changes) -> Result<Outcome, PlanError> {
        self.planner()?.what_if(changes)
    }
}

/// Places pods on nodes.
///
/// ```no_run
/// # use orch_core::informer::Informers;
/// # use orch_sched::{BuildError, Scheduler};
/// # use tokio_util::sync::CancellationToken;
/// # async fn demo(informers: Informers) -> Result<(), BuildError> {
/// let scheduler = Scheduler::builder(&informers).build()?;
/// scheduler.run(CancellationToken::new()).await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    informers: Informers,
}

impl Scheduler {
    /// A scheduler that sees the cluster through these informers, and writes through their client.
    pub fn builder(informers: &Informers) -> SchedulerBuilder {
        SchedulerBuilder {
            informers: informers.clone(),
            profiles: Vec::new(),
            added: Vec::new(),
            waiting: WaitingPods::default(),
            backoff: Backoff::default(),
            extenders: Vec::new(),
            transport: None,
            recorder: None,
        }
    }

    /// How many pods wait, and for what.
    pub fn queue_lengths(&self) -> QueueLengths {
        self.shared.queue.lengths()
    }

    /// A handle that tells how many pods wait, while the scheduler runs.
    pub fn queue_monitor(&self) -> impl Fn() -> QueueLengths + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.queue.lengths()
    }

    /// A handle that answers questions, while the scheduler runs.
    pub fn insight(&self) -> Insight {
        Insight { shared: self.shared.clone() }
    }

    /// What every plugin says about every node and every score, see [`Insight::explain`].
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails, or the pod cannot be understood.
    pub fn explain(&self, pod: &PodInfo) -> Result<Explanation, PlanError> {
        self.insight().explain(pod)
    }

    /// What would happen if the cluster changed so, see [`Insight::what_if`].
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails.
    pub fn what_if(&self, changes: &Changes) -> Result<Outcome, PlanError> {
        self.insight().what_if(changes)
    }

    /// Schedules until cancelled (or dropped). Bindings that are being posted then come to their
    /// end, and are waited for after a cancellation; pods that are held back or wait for volumes
    /// are let go of. The next scheduler takes them up, from the cluster's state alone.
    pub async fn run(self, cancel: CancellationToken) {
        let stopping = self.shared.stopping.clone().drop_guard();
        let synced = self.synced();
        let work = async {
            synced.await;
            cycle::run(&self.shared).await;
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
        drop(stopping);
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Everything that decisions are based on is known.
    async fn synced(&self) {
        let all = &self.informers;
        all.of::<Node>().synced().await;
        all.of::<Pod>().synced().await;
        all.of::<Namespace>().synced().await;
        all.of::<PodDisruptionBudget>().synced().await;
        all.of::<PersistentVolumeClaim>().synced().await;
        all.of::<PersistentVolume>().synced().await;
        all.of::<StorageClass>().synced().await;
        all.of::<CSINode>().synced().await;
        all.of::<CSIDriver>().synced().await;
        all.of::<CSIStorageCapacity>().synced().await;
        all.of::<VolumeAttachment>().synced().await;
        all.of::<ResourceClaim>().synced().await;
        all.of::<ResourceSlice>().synced().await;
        all.of::<DeviceClass>().synced().await;
        all.of::<Service>().synced().await;
        all.of::<ReplicationController>().synced().await;
        all.of::<ReplicaSet>().synced().await;
        all.of::<StatefulSet>().synced().await;
    }
}
