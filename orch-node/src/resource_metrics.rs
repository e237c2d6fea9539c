//! `metrics.k8s.io/v1beta1`: what nodes and pods use, for `kubectl top` and autoscalers.
//!
//! [`ResourceMetrics`] measures nodes every 15 s through [`UsageSource`] and answers from the two
//! newest measurements. It is a tower `Service`: serve it in process behind an API server that has an
//! APIService for the group version ([`ResourceMetrics::api_service`]), or on a socket.
//!
//! Whoever stands before it decides who may ask; it authorizes nobody itself.
//!
//! Source: `sigs.k8s.io/metrics-server/pkg/{api,scraper,storage}`.

mod answers;
mod rates;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Ready, join_all, ready};
use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::api::core::v1::{Node, Pod};
use orch_core::{
    Environment,
    informer::{Informer, Informers},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::usage::UsageSource;

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// The version.
pub const VERSION: &str = "v1beta1";

/// How nodes are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsOptions {
    /// How often. Default: 15 s, at least 1 s.
    pub resolution: Duration,
    /// How long a node may take to answer. Default: 10 s.
    pub timeout: Duration,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { resolution: Duration::from_secs(15), timeout: Duration::from_secs(10) }
    }
}

/// Measures nodes and tells what they use. Cheap to clone; the clones share everything.
#[derive(Clone, Debug)]
pub struct ResourceMetrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    environment: Environment,
    options: MetricsOptions,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    sources: Vec<Arc<dyn UsageSource>>,
    measured: Mutex<BTreeMap<String, rates::Measured>>,
}

impl ResourceMetrics {
    /// Metrics of the nodes that the sources measure. Call it inside a tokio runtime.
    pub fn new(
        informers: &Informers,
        sources: Vec<Arc<dyn UsageSource>>,
        options: MetricsOptions,
    ) -> Self {
        let resolution = options.resolution.max(Duration::from_secs(1));
        Self(Arc::new(Shared {
            environment: informers.environment().clone(),
            options: MetricsOptions { resolution, ..options },
            pods: informers.of(),
            nodes: informers.of(),
            sources,
            measured: Mutex::default(),
        }))
    }

    /// Measures until it is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let clock = self.0.environment.clock.clone();
        loop {
            self.measure().await;
            tokio::select! {
                () = clock.sleep(self.0.options.resolution) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Measures every node once.
    pub async fn measure(&self) {
        join_all(self.0.sources.iter().map(|source| self.0.measure(&**source))).await;
    }

    /// The APIService by which an API server finds this one behind a Service of this name, which
    /// need not exist where the server reaches it in process.
    pub fn api_service(namespace: &str, name: &str) -> Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{VERSION}.{GROUP}")},
            "spec": {
                "group": GROUP, "version": VERSION,
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": {"namespace": namespace, "name": name},
            },
        })
    }
}

impl Shared {
    /// A node that does not answer keeps its metrics no longer than one that is gone.
    async fn measure(&self, source: &dyn UsageSource) {
        let sample = tokio::select! {
            sample = source.sample() => sample.map_err(|error| error.to_string()),
            () = self.environment.clock.sleep(self.options.timeout) => Err("timed out".to_owned()),
        };
        let name = source.node_name();
        match sample {
            Ok(sample) => {
                let mut measured = self.measured.lock();
                let before = measured.remove(name);
                let next = rates::Measured::next(before, sample, self.options.resolution);
                measured.insert(name.to_owned(), next);
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "the node could not be measured");
                self.measured.lock().remove(name);
            }
        }
    }
}

impl<B> Service<Request<B>> for ResourceMetrics {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.0.answer(request.method(), request.uri())))
    }
}
