//! What the scheduler does, in numbers, under upstream's names.
//!
//! Source: `pkg/scheduler/metrics/metrics.go`.

use std::time::Duration;

use orch_core::metrics::{Registry, open_metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::queue::QueueLengths;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    profile: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempts {
    attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueName {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheKind {
    r#type: &'static str,
}

type ByAttempt<M> = Family<Attempt, M, fn() -> M>;

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptResult {
    Scheduled,
    Unschedulable,
    Error,
}

impl AttemptResult {
    fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// Nodes and pods that the scheduler knows of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheSizes {
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) assumed: usize,
}

/// The numbers of one scheduler.
pub(crate) struct Metrics {
    registry: Registry,
    attempts: Family<Attempt, Counter>,
    durations: ByAttempt<Histogram>,
    tries: Histogram,
    waited: Family<Attempts, Histogram, fn() -> Histogram>,
    preemptions: Counter,
    victims: Histogram,
    pending: Family<QueueName, Gauge>,
    cache: Family<CacheKind, Gauge>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn from_a_millisecond() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn from_ten_milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("scheduler"),
            attempts: Family::default(),
            durations: Family::new_with_constructor(from_a_millisecond),
            tries: Histogram::new(exponential_buckets(1.0, 2.0, 5)),
            waited: Family::new_with_constructor(from_ten_milliseconds),
            preemptions: Counter::default(),
            victims: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            pending: Family::default(),
            cache: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "schedule_attempts",
            "Number of attempts to schedule pods, by the result",
            self.attempts.clone(),
        );
        registry.register(
            "scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds, with binding",
            self.durations.clone(),
        );
        registry.register(
            "pod_scheduling_attempts",
            "Number of attempts to successfully schedule a pod",
            self.tries.clone(),
        );
        registry.register(
            "pod_scheduling_sli_duration_seconds",
            "How long a pod waited from when it came until it was bound",
            self.waited.clone(),
        );
        registry.register(
            "preemption_attempts",
            "Total preemption attempts in the cluster so far",
            self.preemptions.clone(),
        );
        registry.register(
            "preemption_victims",
            "Number of selected preemption victims",
            self.victims.clone(),
        );
        registry.register("pending_pods", "Pods that wait, by the queue", self.pending.clone());
        registry.register("cache_size", "What the cache holds", self.cache.clone());
    }

    /// An attempt came to its end.
    pub(crate) fn attempted(&self, profile: &str, result: AttemptResult, took: Duration) {
        let attempt = Attempt { profile: profile.to_owned(), result: result.name() };
        self.attempts.get_or_create(&attempt).inc();
        self.durations.get_or_create(&attempt).observe(took.as_secs_f64());
    }

    /// A pod was bound that came so long ago.
    pub(crate) fn bound(&self, attempts: u32, waited: Duration) {
        self.tries.observe(f64::from(attempts));
        // Upstream tells the first fifteen apart.
        let attempts = Attempts { attempts: attempts.min(16) };
        self.waited.get_or_create(&attempts).observe(waited.as_secs_f64());
    }

    /// Room was looked for; so many pods must go.
    pub(crate) fn preempting(&self, victims: usize) {
        self.preemptions.inc();
        if victims > 0 {
            self.victims.observe(victims as f64);
        }
    }

    /// All numbers in the text format of OpenMetrics.
    pub(crate) fn encode(&self, queue: QueueLengths, cache: CacheSizes) -> String {
        let QueueLengths { active, backoff, unschedulable, gated } = queue;
        let queues = [
            ("active", active),
            ("backoff", backoff),
            ("unschedulable", unschedulable),
            ("gated", gated),
        ];
        for (queue, length) in queues {
            self.pending.get_or_create(&QueueName { queue }).set(length as i64);
        }
        let kinds = [("nodes", cache.nodes), ("pods", cache.pods), ("assumed_pods", cache.assumed)];
        for (r#type, size) in kinds {
            self.cache.get_or_create(&CacheKind { r#type }).set(size as i64);
        }
        open_metrics(&self.registry)
    }
}
