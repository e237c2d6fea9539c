//! A whole cluster inside a test.
//!
//! [`cluster`] gives an isolated cluster with a `kube::Client`: the real API server with its
//! admission, defaults and validation, the standard controllers, the scheduler, and simulated nodes
//! if asked. There are no ports, no files and no global state, so that any number of them run side
//! by side, and dropping one stops everything in it.
//!
//! On a paused runtime of one thread (`#[tokio::test(start_paused = true)]`) time is virtual: it
//! moves only when everything else has been done, so that a test of a five-minute back-off takes
//! no time, and one seed is one history.
//!
//! ```
//! use std::time::Duration;
//!
//! use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
//! use kube::{Api, api::PostParams};
//! use orch::testing::{self, conditions};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = testing::cluster().nodes(3).await;
//! let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
//! let web = serde_json::from_value(json!({
//!     "metadata": {"name": "web"},
//!     "spec": {
//!         "replicas": 2,
//!         "selector": {"matchLabels": {"app": "web"}},
//!         "template": {
//!             "metadata": {"labels": {"app": "web"}},
//!             "spec": {"containers": [{"name": "web", "image": "web:1"}]},
//!         },
//!     },
//! }))?;
//! deployments.create(&PostParams::default(), &web).await?;
//! cluster.expect(&deployments, "web").to("be available", conditions::is_available).await;
//!
//! let pods: Api<Pod> = Api::default_namespaced(cluster.client());
//! deployments.delete("web", &Default::default()).await?;
//! cluster.expect_all(&pods).to("be gone", |pods| pods.is_empty()).await;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/testing-operators.md` in the repository tests an operator with three bugs in it, and says
//! how to move here from mocks and from environments of binaries.
//!
//! What containers do, when they become ready, with which code they end and after how long, is said
//! by their pods' annotations: see [`AnnotationScript`](orch_node::runtime::simulated).
//!
//! What goes wrong on the way between a component and the cluster is told to its [`Faults`]: calls
//! that fail, answers that are lost, watches that stand still.
//!
//! # One seed, one history
//!
//! On a paused clock everything of the cluster's own happens in an order that the seed decides. So
//! does what a controller of `kube::runtime` does, if it has the cluster's
//! [`ordered_client`](TestCluster::ordered_client), or that of its [`Faults`] (components of
//! `orch::sim` always have one), and as many reconciliations at a time as it likes (its default). The jitter of `kube::runtime`'s back-offs comes from the seed, too: from the
//! thread's generator of the crate `fastrand`, which is seeded as a cluster starts.
//!
//! What a test must leave out for that, because nothing can lead it from outside:
//!
//! - `kube::runtime::events::Recorder` names events by the machine's clock and writes it into them.
//! - `controller::Config::concurrency`, where more wait than are let through: whose turn it is comes
//!   out of a hash map. So do the orders of a reflector's `Store::state` and of any `HashMap`.
//! - `tokio::select!` without `biased`, and tasks on more than one thread.
//! - Clusters on one thread share the jitter and its turns: they are one history together.
//!
//! [`written`](TestCluster::written) has the history for whoever wants to compare.
//!
//! When an expectation is not met in time the test panics with what was seen instead, and a cluster
//! that is dropped by a panic prints its [`timeline`](TestCluster::timeline).

pub mod conditions;
mod difference;
mod expectation;
mod faults;
mod history;
mod node;
mod order;
mod setup;
mod timeline;
pub mod traffic;

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use kube::{Api, Resource};
use orch_store::{Event, MemoryStore, Revision, StoreError};
use serde::de::DeserializeOwned;

pub use difference::{ClusterDiff, Difference};
pub use expectation::{Expectation, ExpectationOfAll};
pub use faults::{Faults, Planned};
pub use node::TestNode;
pub use orch_core::testing::{Fault, FaultRates, Verb};
pub use order::{Order, OrderLayer, in_order};
pub use setup::{Setup, cluster};
pub use timeline::Timeline;

pub(crate) use difference::only_beats;
pub(crate) use timeline::told;

pub use crate::sim::link::{Calls, Held};

use crate::{Cluster, sim::View};
use history::History;

/// How much of the timeline a cluster prints when its test fails.
const PRINTED_LINES: usize = 200;
/// For how long nothing may change until a cluster counts as idle.
const QUIET: Duration = Duration::from_secs(30);

/// A cluster of a test. It is a [`Cluster`] that remembers everything that happened in it.
pub struct TestCluster {
    cluster: Cluster,
    store: Arc<MemoryStore>,
    history: History,
    nodes: Vec<TestNode>,
    setup: Setup,
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestCluster(seed {}, revision {})", self.seed(), self.revision())
    }
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl TestCluster {
    /// The seed of everything random in it.
    pub fn seed(&self) -> u64 {
        self.setup.seed
    }

    /// The newest revision of its store.
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// Expects something of one object, which need not exist yet.
    pub fn expect<K>(&self, api: &Api<K>, name: impl Into<String>) -> Expectation<'_, K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    {
        Expectation::new(self, api.clone(), name.into())
    }

    /// Expects something of all objects that an `Api` reaches: those of a namespace, or of all.
    pub fn expect_all<K>(&self, api: &Api<K>) -> ExpectationOfAll<'_, K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    {
        ExpectationOfAll::new(self, api.clone())
    }

    /// A connection to this cluster that fails as it is told to, for a component under test. Each
    /// call makes another one.
    pub fn faults(&self) -> Faults {
        Faults::between(self.client(), !self.seed())
    }

    /// A node, so that something befalls it.
    ///
    /// # Panics
    /// If there is no such node. They are named `node-1` and so on ([`Setup::nodes`]).
    pub fn node(&self, name: &str) -> TestNode {
        let number = name.strip_prefix("node-").and_then(|number| number.parse::<usize>().ok());
        let node = number.and_then(|number| self.nodes.get(number.checked_sub(1)?));
        node.unwrap_or_else(|| panic!("there is no node {name:?}, but {}", self.nodes.len()))
            .clone()
    }

    /// Lets time pass: whatever is due until then happens, in its order. On a runtime whose clock is
    /// not paused this takes as long as it says.
    pub async fn advance(&self, duration: Duration) {
        self.cluster.environment().clock.sleep(duration).await;
    }

    /// Lets time pass until the cluster has come to rest: for thirty seconds nothing has been
    /// written but leases, events and nodes' heartbeats. Gives how long that took.
    ///
    /// # Panics
    /// If that has not happened within a day: something in the cluster never comes to rest. The
    /// message says what was written last.
    pub async fn settle(&self) -> Duration {
        self.history.settle(&self.cluster.environment().clock, QUIET).await
    }

    /// The cluster as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if that has been forgotten ([`Setup::forget_history`]),
    /// [`StoreError::Future`] if it is not there yet.
    pub async fn at(&self, revision: Revision) -> Result<View, StoreError> {
        self.history.at(revision).await
    }

    /// What differs between two revisions, object by object and field by field.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub async fn diff(&self, from: Revision, to: Revision) -> Result<ClusterDiff, StoreError> {
        Ok(ClusterDiff::between(&self.at(from).await?, &self.at(to).await?))
    }

    /// The first revision at which `holds` does not hold, if it holds at the first revision that is
    /// remembered and not at the newest; found in as many looks as the number of revisions has
    /// binary digits. `None` if it holds at the newest one.
    ///
    /// Where it fails, holds again and fails again, one of the failures is found.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub async fn bisect(
        &self,
        holds: impl FnMut(&View) -> bool,
    ) -> Result<Option<Revision>, StoreError> {
        self.history.bisect(holds).await
    }

    /// What happened so far, line by line.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if its beginning has been forgotten.
    pub async fn timeline(&self) -> Result<Timeline, StoreError> {
        self.history.timeline().await
    }

    /// Everything that was ever written, revision by revision, with its key and its stored bytes:
    /// what two runs from one seed have in common, to the last byte.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if its beginning has been forgotten.
    pub async fn written(&self) -> Result<Vec<Event>, StoreError> {
        self.history.events("/").await
    }

    /// A client whose requests arrive in an order that depends on nothing but themselves, each
    /// after a millisecond: see [`OrderLayer`]. Give it to whatever does several things at a time
    /// and is to do them alike in every run, as a `kube::runtime::Controller` does.
    pub fn ordered_client(&self) -> kube::Client {
        in_order(&self.cluster.client())
    }

    /// A second cluster that begins as this one is now, with everything that is stored and all
    /// simulated containers, and goes its own way from here. The state is shared until one of them
    /// changes it, so that forking costs the same whatever is in it; then the fork's components
    /// start, and read what they need.
    ///
    /// # Panics
    /// If the fork does not start, which cannot be for want of anything outside.
    pub async fn fork(&self) -> TestCluster {
        self.setup.fork(self).await
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed();
            eprintln!("\nwhat happened in the cluster (seed {seed}):");
            match self.history.timeline_now() {
                Some(timeline) => eprintln!("{}", timeline.last(PRINTED_LINES)),
                None => eprintln!("its beginning has been forgotten"),
            }
        }
    }
}
