//! What the controllers of a process do, in numbers, under upstream's names.
//!
//! Source: `k8s.io/component-base/metrics/prometheus/workqueue` and
//! `.../prometheus/clientgo/leaderelection`.

use std::{sync::Arc, time::Duration};

use orch_core::metrics::{Registry, open_metrics};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::queue::{QueueItem, QueueMetrics, WorkQueue};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: String,
}

type ByName<M> = Family<Name, M>;
type Durations = Family<Name, Histogram, fn() -> Histogram>;
type UnderWay = Box<dyn Fn() -> (Duration, Duration) + Send + Sync>;

fn from_a_microsecond() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 10.0, 10))
}

/// The numbers of the queues and the elections of a process. Cheap to clone; clones count together.
/// A [`Manager`](crate::Manager) fills it with [`Manager::measured`](crate::Manager::measured).
///
/// | metric | of what |
/// |---|---|
/// | `workqueue_depth`, `workqueue_adds_total`, `workqueue_retries_total` | items that wait, were added, were added with back-off |
/// | `workqueue_queue_duration_seconds`, `workqueue_work_duration_seconds` | how long items waited and were worked on |
/// | `workqueue_unfinished_work_seconds`, `workqueue_longest_running_processor_seconds` | how long what is in work has been so, in all and at most |
/// | `leader_election_master_status` | 1 while this process leads, 0 while another may |
///
/// The label `name` is the controller's, or the lease's.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    depth: ByName<Gauge>,
    adds: ByName<Counter>,
    waited: Durations,
    worked: Durations,
    retries: ByName<Counter>,
    leads: ByName<Gauge>,
    queues: Mutex<Vec<(Name, UnderWay)>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} queues)", self.0.queues.lock().len())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Inner {
            depth: Family::default(),
            adds: Family::default(),
            waited: Family::new_with_constructor(from_a_microsecond),
            worked: Family::new_with_constructor(from_a_microsecond),
            retries: Family::default(),
            leads: Family::default(),
            queues: Mutex::default(),
        }))
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts what happens in a queue from now on, under a name. A queue is counted by the first
    /// that asks for it.
    pub fn count<T: QueueItem>(&self, name: &str, queue: &WorkQueue<T>) {
        let of = Name { name: name.to_owned() };
        let inner = &self.0;
        let counts = QueueCounts {
            depth: inner.depth.get_or_create_owned(&of),
            adds: inner.adds.get_or_create_owned(&of),
            waited: inner.waited.get_or_create_owned(&of),
            worked: inner.worked.get_or_create_owned(&of),
            retries: inner.retries.get_or_create_owned(&of),
        };
        if queue.measure(Arc::new(counts)) {
            let queue = queue.clone();
            inner.queues.lock().push((of, Box::new(move || queue.under_way())));
        }
    }

    /// This process leads by that lease, or does not.
    pub fn leads(&self, lease: &str, leads: bool) {
        let of = Name { name: lease.to_owned() };
        self.0.leads.get_or_create(&of).set(i64::from(leads));
    }

    /// Lets a registry encode these numbers.
    pub fn register(&self, registry: &mut Registry) {
        let inner = &self.0;
        registry.register(
            "leader_election_master_status",
            "Whether the process leads by the lease of that name: 0 is backup, 1 is master",
            inner.leads.clone(),
        );
        let registry = registry.sub_registry_with_prefix("workqueue");
        registry.register("depth", "Current depth of workqueue", inner.depth.clone());
        registry.register("adds", "Adds handled by workqueue", inner.adds.clone());
        registry.register(
            "queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            inner.waited.clone(),
        );
        registry.register(
            "work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            inner.worked.clone(),
        );
        registry.register("retries", "Retries handled by workqueue", inner.retries.clone());
        registry.register_collector(Box::new(InWork(self.clone())));
    }

    /// All numbers in the text format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        open_metrics(&registry)
    }
}

/// What is in work when somebody asks.
#[derive(Debug)]
struct InWork(Metrics);

impl Collector for InWork {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let told: Vec<(Name, (Duration, Duration))> = {
            let queues = self.0.0.queues.lock();
            queues.iter().map(|(name, under_way)| (name.clone(), under_way())).collect()
        };
        let help = "For how many seconds items have been in work that still are, in all";
        let name = "unfinished_work_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, (all, _)) in &told {
            ConstGauge::new(all.as_secs_f64()).encode(family.encode_family(name)?)?;
        }
        let help = "For how many seconds the longest of them has been in work";
        let name = "longest_running_processor_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, (_, longest)) in &told {
            ConstGauge::new(longest.as_secs_f64()).encode(family.encode_family(name)?)?;
        }
        Ok(())
    }
}

struct QueueCounts {
    depth: Gauge,
    adds: Counter,
    waited: Histogram,
    worked: Histogram,
    retries: Counter,
}

impl QueueMetrics for QueueCounts {
    fn added(&self, depth: usize) {
        self.adds.inc();
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    fn taken(&self, depth: usize, waited: Duration) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.waited.observe(waited.as_secs_f64());
    }

    fn finished(&self, worked: Duration) {
        self.worked.observe(worked.as_secs_f64());
    }

    fn retried(&self) {
        self.retries.inc();
    }
}
