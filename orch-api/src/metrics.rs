//! What a server tells of its work, in Prometheus' formats and under upstream's names.
//!
//! A request costs two looks at the clock and a few atomic additions; nothing takes a lock unless
//! a kind of request is seen for the first time. A server without [`Metrics`] pays nothing and has
//! no `/metrics`.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/metrics`, `pkg/admission/metrics`,
//! `pkg/storage/etcd3/metrics`.

mod encode;
mod families;
mod histogram;
mod process;
mod store;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use orch_core::metrics::{self, Registry};
use parking_lot::Mutex;

use families::Families;
use histogram::Histogram;
pub(crate) use store::MeteredStore;

/// Of requests, in seconds.
const REQUEST_BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Of admission, in seconds.
const ADMISSION_BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Of responses, in bytes.
const SIZE_BOUNDS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// The codes that are counted each on its own; others are counted as 0.
const CODES: [u16; 28] = [
    0, 101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409,
    410, 413, 415, 422, 429, 500, 501, 503, 504,
];

/// The metrics of one server. Cheap to clone; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    own: Arc<Own>,
}

/// The server's own series.
#[derive(Debug, Default)]
struct Own {
    requests: Families<8, RequestSeries>,
    /// Of those that read only, and of those that write.
    in_flight: [AtomicI64; 2],
    long_running: Families<7, AtomicI64>,
    watch_events: Families<3, AtomicU64>,
    admission_steps: Families<3, Histogram>,
    admission_plugins: Families<4, Histogram>,
    store: Families<3, StoreSeries>,
    /// How many objects of each resource were stored when they were last counted.
    objects: Mutex<Vec<([String; 2], u64)>>,
}

#[derive(Debug)]
struct RequestSeries {
    codes: [AtomicU64; CODES.len()],
    duration: Histogram,
    size: Histogram,
}

#[derive(Debug)]
struct StoreSeries {
    duration: Histogram,
    errors: AtomicU64,
}

/// What a request is called: verb, dry run, group, version, resource, subresource, scope.
pub(crate) type RequestLabels<'a> = [&'a str; 7];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that nothing has been counted in yet.
    pub fn new() -> Self {
        let own = Arc::new(Own::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(encode::Encoded(own.clone())));
        registry.register_collector(Box::new(process::Process));
        Self { registry: Arc::new(Mutex::new(registry)), own }
    }

    /// Adds the metrics of somebody else in this process, to be told at the same place.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// The metrics as text; without `open_metrics` in the older format that everybody reads.
    pub fn encode(&self, open_metrics: bool) -> String {
        let registry = self.registry.lock();
        if open_metrics { metrics::open_metrics(&registry) } else { metrics::plain(&registry) }
    }

    /// One that is at work, until what is returned is dropped.
    pub(crate) fn in_flight(&self, mutates: bool) -> impl Drop + use<> {
        self.own.in_flight[usize::from(mutates)].fetch_add(1, Relaxed);
        let own = self.own.clone();
        Leaves(Some(move || {
            own.in_flight[usize::from(mutates)].fetch_sub(1, Relaxed);
        }))
    }

    /// A watch or the like, until what is returned is dropped.
    pub(crate) fn long_running(&self, labels: RequestLabels<'_>) -> impl Drop + Send + use<> {
        let [verb, _, group, version, resource, subresource, scope] = labels;
        let labels = [verb, group, version, resource, subresource, scope, "apiserver"];
        let gauge = self.own.long_running.get(labels, AtomicI64::default);
        gauge.fetch_add(1, Relaxed);
        Leaves(Some(move || {
            gauge.fetch_sub(1, Relaxed);
        }))
    }

    /// A request that was answered.
    pub(crate) fn answered(
        &self,
        labels: RequestLabels<'_>,
        code: u16,
        took: Duration,
        bytes: Option<u64>,
    ) {
        let [verb, dry_run, group, version, resource, subresource, scope] = labels;
        let all = [verb, dry_run, group, version, resource, subresource, scope, "apiserver"];
        let series = self.own.requests.get(all, || RequestSeries {
            codes: std::array::from_fn(|_| AtomicU64::new(0)),
            duration: Histogram::new(&REQUEST_BOUNDS),
            size: Histogram::new(&SIZE_BOUNDS),
        });
        let at = CODES.binary_search(&code).unwrap_or(0);
        series.codes[at].fetch_add(1, Relaxed);
        series.duration.observe(took.as_secs_f64());
        if let Some(bytes) = bytes
            && matches!(verb, "GET" | "LIST")
        {
            series.size.observe(bytes as f64);
        }
    }

    /// The counter of what watchers of a resource are told.
    pub(crate) fn watch_events(&self, labels: [&str; 3]) -> Arc<AtomicU64> {
        self.own.watch_events.get(labels, AtomicU64::default)
    }

    /// A step of admission (`admit` or `validate`), or one plugin in it.
    pub(crate) fn admitted(
        &self,
        plugin: Option<&str>,
        step: &str,
        operation: &str,
        rejected: bool,
        took: Duration,
    ) {
        let rejected = if rejected { "true" } else { "false" };
        let new = || Histogram::new(&ADMISSION_BOUNDS);
        let histogram = match plugin {
            Some(name) => self.own.admission_plugins.get([name, operation, rejected, step], new),
            None => self.own.admission_steps.get([operation, rejected, step], new),
        };
        histogram.observe(took.as_secs_f64());
    }

    /// A call of the store.
    fn stored(&self, labels: [&str; 3], took: Duration, failed: bool) {
        let series = self.own.store.get(labels, || StoreSeries {
            duration: Histogram::new(&REQUEST_BOUNDS),
            errors: AtomicU64::new(0),
        });
        series.duration.observe(took.as_secs_f64());
        series.errors.fetch_add(u64::from(failed), Relaxed);
    }

    /// How many objects there are of each resource: group, plural, count.
    pub(crate) fn set_objects(&self, objects: Vec<([String; 2], u64)>) {
        *self.own.objects.lock() = objects;
    }
}

/// Does something when it is dropped.
struct Leaves<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Leaves<F> {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}
