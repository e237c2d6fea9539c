//! Garbage collection: what is owned goes with its owners.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/garbagecollector`.

mod collect;
mod graph;
mod monitor;

use std::{collections::HashMap, sync::Arc, time::Duration};

use orch_core::{ResourceType, informer::Informers};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use self::{collect::Collector, graph::Graph, monitor::Monitor};
use crate::{context::Context, manager::Runnable, namespace::ResourceTypes, queue::WorkQueue};

/// How many objects are looked at at the same time.
///
/// Source: `--concurrent-gc-syncs`.
const WORKERS: usize = 20;

/// How often kinds that came or went are noticed.
const RESYNC: Duration = Duration::from_secs(30);

/// The garbage collector over objects of all kinds that `types` gives, except events.
///
/// Deletes what has no owner left (background), what keeps an owner from going (foreground), and
/// frees what an owner leaves behind (orphan). An owner that is not known is asked for, by name and
/// uid, before anything is deleted for its absence.
pub fn garbage_collector(informers: &Informers, types: Arc<dyn ResourceTypes>) -> Runnable {
    let context = Context::new(informers, "garbage-collector-controller");
    Runnable::new("garbage-collector-controller", move |stop| run(context, types, stop))
}

/// The graph, and what is to be looked at because of its changes.
struct Shared {
    context: Context,
    graph: Mutex<Graph>,
    queue: WorkQueue<graph::Todo>,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<graph::Todo>) {
        let todos = change(&mut self.graph.lock());
        todos.into_iter().for_each(|todo| self.queue.add(todo));
    }
}

async fn run(context: Context, types: Arc<dyn ResourceTypes>, stop: CancellationToken) {
    let shared = Arc::new(Shared {
        context,
        graph: Mutex::new(Graph::default()),
        queue: WorkQueue::default(),
    });
    let mut monitors = Monitors { shared: shared.clone(), running: HashMap::new() };
    if stop.run_until_cancelled(monitors.first(&*types)).await.is_none() {
        return;
    }
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let collector = Collector { shared: shared.clone() };
        workers.spawn(collector.work());
    }
    loop {
        let sleep = shared.context.environment().clock.sleep(RESYNC);
        if stop.run_until_cancelled(sleep).await.is_none() {
            break;
        }
        monitors.refresh(&*types).await;
    }
    shared.queue.close();
    while workers.join_next().await.is_some() {}
}

/// The tasks that follow each kind.
struct Monitors {
    shared: Arc<Shared>,
    running: HashMap<ResourceType, Running>,
}

struct Running {
    task: JoinHandle<()>,
    synced: watch::Receiver<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitors {
    /// Starts to follow all kinds, and waits until their objects are known: an owner that is only
    /// not known yet must not be taken for one that is gone.
    async fn first(&mut self, types: &dyn ResourceTypes) {
        while !self.refresh(types).await {
            self.shared.context.environment().clock.sleep(Duration::from_secs(1)).await;
        }
        let synced: Vec<_> = self.running.values().map(|monitor| monitor.synced.clone()).collect();
        for mut synced in synced {
            // An error means that the monitor is gone; then there is nothing to wait for.
            let _gone = synced.wait_for(|synced| *synced).await;
        }
    }

    /// Follows what is new, and stops following what is gone.
    async fn refresh(&mut self, types: &dyn ResourceTypes) -> bool {
        let types = match types.resource_types().await {
            Ok(types) => types,
            Err(error) => {
                tracing::debug!(%error, "the kinds are not known");
                return false;
            }
        };
        let types: Vec<ResourceType> =
            types.into_iter().filter(|resource| resource.plural != "events").collect();
        self.shared.graph.lock().set_types(&types);
        self.running.retain(|resource, _| types.contains(resource));
        for resource in types {
            let shared = &self.shared;
            self.running.entry(resource).or_insert_with_key(|resource| {
                let (synced, receiver) = watch::channel(false);
                let monitor = Monitor::new(shared.clone(), resource.clone(), synced);
                Running { task: tokio::spawn(monitor.run()), synced: receiver }
            });
        }
        true
    }
}
