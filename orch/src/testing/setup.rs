//! How a cluster of a test is set up.

use std::{fmt, future::IntoFuture, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use orch_core::{Environment, random::SeededRandom};
use orch_node::runtime::simulated::{AnnotationScript, Script, SimulatedRuntime};
use orch_store::{MemoryOptions, MemoryStore, Revision};

use super::{TestCluster, TestNode, history::History};
use crate::{Cluster, ClusterBuilder};

/// When time begins in a test, in seconds of the epoch.
const BEGINNING: i64 = 1_700_000_000;

type Configure = dyn Fn(ClusterBuilder) -> ClusterBuilder + Send + Sync;

/// What a test's cluster is to be like. Await it to have the cluster.
///
/// Default: the standard controllers and the scheduler, no nodes, seed 0.
#[derive(Clone)]
#[must_use = "there is no cluster until it is awaited"]
pub struct Setup {
    pub(super) seed: u64,
    nodes: usize,
    api_only: bool,
    forgets: bool,
    script: Arc<dyn Script>,
    configure: Option<Arc<Configure>>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setup(seed {}, {} nodes)", self.seed, self.nodes)
    }
}

/// An isolated cluster, once it is awaited: `let cluster = orch::testing::cluster().await;`.
pub fn cluster() -> Setup {
    let script = Arc::new(AnnotationScript);
    Setup { seed: 0, nodes: 0, api_only: false, forgets: false, script, configure: None }
}

impl Setup {
    /// The seed of everything that is drawn: names, uids, jitter, ties.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Simulated nodes, named `node-1` and so on. The cluster is given when they are Ready.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// The API server alone: no controllers, no scheduler.
    pub fn api_only(mut self) -> Self {
        self.api_only = true;
        self
    }

    /// Forgets what is older than five minutes, as clusters do, for tests of many hours: then there
    /// is no timeline of the beginning and no way back to it. Default: everything is remembered.
    pub fn forget_history(mut self) -> Self {
        self.forgets = true;
        self
    }

    /// Changes how the cluster is assembled: other controllers, admission, plugins.
    pub fn configure(
        mut self,
        change: impl Fn(ClusterBuilder) -> ClusterBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Arc::new(change));
        self
    }

    /// What containers do on the simulated nodes. Default: what their pods' annotations say
    /// ([`AnnotationScript`]).
    pub fn script(mut self, script: impl Script) -> Self {
        self.script = Arc::new(script);
        self
    }

    async fn start(self) -> TestCluster {
        let beginning = Timestamp::from_second(BEGINNING).unwrap_or_default();
        let environment = Environment::seeded(beginning, self.seed);
        // The back-offs of `kube::runtime` draw their jitter from it.
        fastrand::seed(self.seed);
        let store = MemoryStore::new(environment.clone(), MemoryOptions::default());
        let runtime = || SimulatedRuntime::scripted(environment.clone(), self.script.clone());
        let runtimes = std::iter::repeat_with(runtime).take(self.nodes).collect();
        self.start_on(store, environment.clone(), runtimes, Vec::new()).await
    }

    /// Starts a cluster on what there is already. `times` are those of its older revisions.
    async fn start_on(
        self,
        store: MemoryStore,
        environment: Environment,
        runtimes: Vec<SimulatedRuntime>,
        times: Vec<(Revision, Timestamp)>,
    ) -> TestCluster {
        let store = Arc::new(store);
        let history = History::follow(store.clone(), environment.clone(), times);
        let mut builder = Cluster::builder().environment(environment).store(store.clone());
        let nodes = runtimes.into_iter().map(|runtime| TestNode::new(runtime, !self.seed));
        let nodes: Vec<TestNode> = nodes.collect();
        for (at, node) in nodes.iter().enumerate() {
            builder = builder.node(node.setup(format!("node-{}", at + 1)));
        }
        if self.api_only {
            builder = builder.controllers(Vec::<String>::new()).without_scheduler();
        }
        if !self.forgets {
            builder = builder.keep_history();
        }
        if let Some(configure) = &self.configure {
            builder = configure(builder);
        }
        let started = builder.start().await;
        let cluster = started.unwrap_or_else(|error| panic!("the cluster does not start: {error}"));
        if self.nodes > 0 {
            cluster.nodes_ready().await;
        }
        TestCluster { cluster, store, history, nodes, setup: self }
    }

    /// A cluster that begins as another one is now.
    pub(super) async fn fork(&self, of: &TestCluster) -> TestCluster {
        let store = of.store.fork();
        let environment = Environment {
            clock: of.cluster.environment().clock.clone(),
            random: Arc::new(SeededRandom::new(self.seed.wrapping_add(store.revision()))),
        };
        let runtimes = of.nodes.iter().map(|node| node.runtime().fork(environment.clone()));
        let runtimes = runtimes.collect();
        self.clone().start_on(store, environment, runtimes, of.history.times()).await
    }
}

impl IntoFuture for Setup {
    type Output = TestCluster;
    type IntoFuture = BoxFuture<'static, TestCluster>;

    fn into_future(self) -> Self::IntoFuture {
        self.start().boxed()
    }
}
