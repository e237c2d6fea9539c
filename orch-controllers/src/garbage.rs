//! Garbage collection: what is owned goes with its owners.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/garbagecollector`.

mod collect;
mod graph;
mod monitors;

use std::{sync::Arc, time::Duration};

use orch_core::{awaited::Awaited, informer::Informers};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{collect::Collector, graph::Graph, monitors::Monitors};
use crate::{context::Context, manager::Runnable, queue::WorkQueue, resource_types::ResourceTypes};

/// How many objects are looked at at the same time.
///
/// Source: `--concurrent-gc-syncs`.
const WORKERS: usize = 20;

/// How often kinds that came or went are noticed.
const RESYNC: Duration = Duration::from_secs(30);

/// The garbage collector over objects of all kinds that `types` gives, except events. Kinds may
/// come and go: they are asked for every 30 s.
///
/// Deletes what has no owner left (background), what keeps an owner from going (foreground), and
/// frees what an owner leaves behind (orphan). An owner that is not known is asked for, by name and
/// uid, before anything is deleted for its absence; as long as its kind is not served, nothing is.
pub fn garbage_collector(informers: &Informers, types: Arc<dyn ResourceTypes>) -> Runnable {
    let context = Context::new(informers, "garbage-collector-controller");
    Runnable::new("garbage-collector-controller", move |stop| run(context, types, stop))
}

/// The graph, and what is to be looked at because of its changes.
struct Shared {
    context: Context,
    graph: Mutex<Graph>,
    queue: WorkQueue<graph::Todo>,
    /// Whether the graph knows the objects of all kinds.
    settled: Awaited<bool>,
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
        settled: Awaited::new(false),
    });
    let mut monitors = Monitors::new(shared.clone());
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
        if stop.run_until_cancelled(sleep).await.is_none()
            || stop.run_until_cancelled(monitors.again(&*types)).await.is_none()
        {
            break;
        }
    }
    shared.settled.set(true);
    shared.queue.close();
    while workers.join_next().await.is_some() {}
}
