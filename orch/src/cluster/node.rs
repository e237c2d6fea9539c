//! Nodes of a cluster in this process.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use orch_core::Client;
use orch_node::{AgentOptions, Runtime};

/// One life of an agent, with the client that it is given.
pub(crate) type AgentLife = Arc<dyn Fn(Arc<dyn Client>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs an agent as it sees fit: through another client, again and again.
pub(crate) type Supervise =
    dyn Fn(Arc<dyn Client>, AgentLife) -> BoxFuture<'static, ()> + Send + Sync;

/// One node: its name, its runtime, and its agent's options.
pub struct NodeSetup {
    pub(crate) name: String,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: AgentOptions,
    pub(crate) supervise: Option<Arc<Supervise>>,
}

impl fmt::Debug for NodeSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSetup")
            .field("name", &self.name)
            .field("runtime", &self.runtime)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl NodeSetup {
    /// A node of this name, whose pods run on `runtime`.
    pub fn new(name: impl Into<String>, runtime: Arc<dyn Runtime>) -> Self {
        let options = AgentOptions::default();
        Self { name: name.into(), runtime, options, supervise: None }
    }

    /// Options of the agent other than the defaults.
    #[must_use]
    pub fn options(mut self, options: AgentOptions) -> Self {
        self.options = options;
        self
    }

    /// Somebody who starts and stops the agent, and stands between it and the API.
    #[cfg(feature = "testing")]
    pub(crate) fn supervised(
        mut self,
        supervise: impl Fn(Arc<dyn Client>, AgentLife) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.supervise = Some(Arc::new(supervise));
        self
    }
}

/// An agent that is to run.
pub(super) struct Agent {
    pub(super) life: AgentLife,
    pub(super) supervise: Option<Arc<Supervise>>,
}

impl Agent {
    /// Runs it, until it is dropped.
    pub(super) fn run(self, client: Arc<dyn Client>) -> BoxFuture<'static, ()> {
        match self.supervise {
            Some(supervise) => supervise(client, self.life),
            None => (self.life)(client),
        }
    }
}
