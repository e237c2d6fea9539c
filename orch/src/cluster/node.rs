//! Nodes of a cluster in this process.

use std::sync::Arc;

use orch_node::{AgentOptions, Runtime};

/// One node: its name, its runtime, and its agent's options.
#[derive(Debug)]
pub struct NodeSetup {
    pub(crate) name: String,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: AgentOptions,
}

impl NodeSetup {
    /// A node of this name, whose pods run on `runtime`.
    pub fn new(name: impl Into<String>, runtime: Arc<dyn Runtime>) -> Self {
        Self { name: name.into(), runtime, options: AgentOptions::default() }
    }

    /// Options of the agent other than the defaults.
    #[must_use]
    pub fn options(mut self, options: AgentOptions) -> Self {
        self.options = options;
        self
    }
}
