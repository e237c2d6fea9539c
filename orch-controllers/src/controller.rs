//! A reconciler, its queue, and what feeds it.

use std::{borrow::Cow, fmt, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers, Watchable},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    manager::Runnable,
    ownership,
    queue::{QueueMetrics, RateLimits, WorkQueue},
    reconciler::{Action, Reconciler, SharedReconciler},
};

/// How many keys of a controller are reconciled at the same time, unless told otherwise.
///
/// Source: `--concurrent-deployment-syncs` and its like, all 5 by default.
pub const WORKERS_DEFAULT: usize = 5;

type Synced = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Describes a controller: what it is for, what it owns, what else concerns it.
///
/// Every source is an informer shared with the other controllers of the process. Sources feed the
/// queue from the moment they are added; keys wait there until the controller runs.
///
/// ```no_run
/// use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
/// use orch_controllers::{Action, Controller};
/// use orch_core::{Key, informer::Informers};
///
/// # async fn demo(informers: Informers) {
/// let controller = Controller::builder("replica-counter", &informers)
///     .watches_own::<ReplicaSet>()
///     .owns::<ReplicaSet, Pod>()
///     .workers(2)
///     .build(|key: Key| async move {
///         println!("{key} or one of its pods changed");
///         Ok(Action::Done)
///     });
/// controller.run(tokio_util::sync::CancellationToken::new()).await;
/// # }
/// ```
pub struct ControllerBuilder {
    name: Cow<'static, str>,
    informers: Informers,
    queue: WorkQueue,
    workers: usize,
    synced: Vec<Synced>,
}

impl fmt::Debug for ControllerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControllerBuilder({})", self.name)
    }
}

impl ControllerBuilder {
    fn source<K: Watchable>(&mut self) -> Informer<K> {
        let informer = self.informers.of::<K>();
        let copy = informer.clone();
        self.synced.push(Box::new(move || async move { copy.synced().await }.boxed()));
        informer
    }

    /// Waits for this kind before the controller works, although no change of it leads to a key:
    /// the reconciler only reads it.
    #[must_use]
    pub fn reads<K: Watchable>(mut self) -> Self {
        self.source::<K>();
        self
    }

    /// Every change of an object of this kind leads to its own key.
    #[must_use]
    pub fn watches_own<K: Watchable>(self) -> Self {
        self.watches::<K>(|change| vec![Key::of(change.object().metadata())])
    }

    /// Changes of this kind that satisfy the predicate lead to the object's own key.
    #[must_use]
    pub fn watches_own_if<K: Watchable>(
        self,
        predicate: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.watches::<K>(move |change| {
            if predicate(change) { vec![Key::of(change.object().metadata())] } else { Vec::new() }
        })
    }

    /// Every change of a `C` leads to the key of the `K` that controls it, before and after.
    #[must_use]
    pub fn owns<K: Watchable, C: Watchable>(self) -> Self {
        self.watches::<C>(|change| {
            let mut keys: Vec<Key> = controller_key::<K>(change.object().metadata());
            if let Change::Updated { old, .. } = change {
                for key in controller_key::<K>(old.metadata()) {
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            keys
        })
    }

    /// Every change of this kind leads to the keys that the mapping gives. The mapping must be
    /// quick and must not block: it runs in the task that follows the cluster.
    #[must_use]
    pub fn watches<K: Watchable>(
        mut self,
        mapping: impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        self.source::<K>().on_change(move |change| {
            mapping(change).into_iter().for_each(|key| queue.add(key));
        });
        self
    }

    /// How many keys are reconciled at the same time. Default [`WORKERS_DEFAULT`], at least 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The queue that the sources feed. A reconciler may keep it to add keys by itself.
    pub fn queue(&self) -> &WorkQueue {
        &self.queue
    }

    /// The controller, with who does the work.
    pub fn build(self, reconciler: impl Reconciler) -> Controller {
        Controller {
            name: self.name,
            queue: self.queue,
            workers: self.workers,
            synced: self.synced,
            reconciler: Arc::new(reconciler),
        }
    }
}

fn controller_key<K: Watchable>(meta: &ObjectMeta) -> Vec<Key> {
    let owner = ownership::controller_of(meta)
        .filter(|owner| owner.kind == K::KIND && owner.api_version == <K as Resource>::API_VERSION);
    let namespace = meta.namespace.clone().unwrap_or_default();
    owner.map(|owner| Key::new(namespace, owner.name.clone())).into_iter().collect()
}

/// A reconciler with its queue, ready to run.
pub struct Controller {
    name: Cow<'static, str>,
    queue: WorkQueue,
    workers: usize,
    synced: Vec<Synced>,
    reconciler: SharedReconciler,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({})", self.name)
    }
}

impl Controller {
    /// Begins to describe a controller. The name stands in logs, metrics and the manager.
    pub fn builder(name: impl Into<Cow<'static, str>>, informers: &Informers) -> ControllerBuilder {
        Self::limited(name, informers, RateLimits::default(), None)
    }

    /// The same with other limits for failed keys, and with metrics.
    pub fn limited(
        name: impl Into<Cow<'static, str>>,
        informers: &Informers,
        limits: RateLimits,
        metrics: Option<Arc<dyn QueueMetrics>>,
    ) -> ControllerBuilder {
        let queue = match metrics {
            Some(metrics) => WorkQueue::measured(limits, metrics),
            None => WorkQueue::new(limits),
        };
        ControllerBuilder {
            name: name.into(),
            informers: informers.clone(),
            queue,
            workers: WORKERS_DEFAULT,
            synced: Vec::new(),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Works until `stop` is cancelled: waits for the first lists of its sources, then reconciles.
    /// Once cancelled, it takes no further key and lets those in work come to their end.
    /// Dropping the future instead drops those too, which reconcilers must bear.
    pub async fn run(self, stop: CancellationToken) {
        for synced in self.synced {
            if stop.run_until_cancelled(synced()).await.is_none() {
                return;
            }
        }
        tracing::debug!(controller = %self.name, "started");
        let mut workers = JoinSet::new();
        for _ in 0..self.workers {
            workers.spawn(work(self.name.clone(), self.queue.clone(), self.reconciler.clone()));
        }
        stop.cancelled().await;
        self.queue.close();
        while workers.join_next().await.is_some() {}
        tracing::debug!(controller = %self.name, "stopped");
    }
}

async fn work(name: Cow<'static, str>, queue: WorkQueue, reconciler: SharedReconciler) {
    while let Some(work) = queue.get().await {
        let key = work.item();
        match reconciler.reconcile(key.clone()).await {
            Ok(Action::Done) => queue.forget(key),
            Ok(Action::RequeueAfter(delay)) => {
                queue.forget(key);
                queue.add_after(key.clone(), delay);
            }
            Err(error) if error.is_conflict() => {
                tracing::debug!(controller = %name, %key, %error, "outdated, tried again");
                queue.add_rate_limited(key.clone());
            }
            Err(error) => {
                let retries = queue.retries(key);
                tracing::warn!(controller = %name, %key, retries, %error, "will be tried again");
                queue.add_rate_limited(key.clone());
            }
        }
    }
}

impl From<Controller> for Runnable {
    fn from(controller: Controller) -> Self {
        let (name, queue) = (controller.name.clone(), controller.queue.clone());
        Runnable::new(name, move |stop| controller.run(stop)).queue(queue)
    }
}
