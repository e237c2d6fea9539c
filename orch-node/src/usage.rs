//! What a node and its containers use: the contract between node agents and whoever measures them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use orch_core::{Environment, Key};

use crate::runtime::{ContainerStatus, ContainerUsage, Runtime, RuntimeError, labels};

/// What a container used up to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSample {
    /// Its pod.
    pub pod: Key,
    /// Its pod's uid.
    pub pod_uid: String,
    /// Its name in the pod's spec.
    pub name: String,
    /// Since when it runs: CPU time begins at nothing then.
    pub started_at: Timestamp,
    /// What it used.
    pub usage: ContainerUsage,
}

/// What a node and its containers used up to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSample {
    /// The moment.
    pub at: Timestamp,
    /// The node, with all that runs on it.
    pub node: ContainerUsage,
    /// The containers that run.
    pub containers: Vec<ContainerSample>,
}

/// Measures one node. Object-safe; a call takes milliseconds, and dropping it leaves nothing.
#[async_trait]
pub trait UsageSource: Send + Sync + fmt::Debug + 'static {
    /// The node's name.
    fn node_name(&self) -> &str;

    /// What is used now.
    ///
    /// # Errors
    /// [`RuntimeError`] if it cannot be measured; it is tried again after a while.
    async fn sample(&self) -> Result<NodeSample, RuntimeError>;
}

/// Measures a node by its runtime's statistics.
#[derive(Clone, Debug)]
pub struct RuntimeUsage {
    node_name: String,
    runtime: Arc<dyn Runtime>,
    environment: Environment,
}

impl RuntimeUsage {
    /// Measures what `runtime` runs, in the name of a node.
    pub fn new(
        node_name: impl Into<String>,
        runtime: Arc<dyn Runtime>,
        environment: Environment,
    ) -> Self {
        Self { node_name: node_name.into(), runtime, environment }
    }
}

fn sampled(container: ContainerStatus, usage: ContainerUsage) -> Option<ContainerSample> {
    let pod = Key::new(container.label(labels::POD_NAMESPACE), container.label(labels::POD_NAME));
    Some(ContainerSample {
        pod_uid: container.label(labels::POD_UID).to_owned(),
        pod,
        started_at: container.started_at?,
        name: container.name,
        usage,
    })
}

#[async_trait]
impl UsageSource for RuntimeUsage {
    fn node_name(&self) -> &str {
        &self.node_name
    }

    async fn sample(&self) -> Result<NodeSample, RuntimeError> {
        let mut containers = self.runtime.containers(None).await?;
        containers.retain(ContainerStatus::is_running);
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        let mut measured = Vec::with_capacity(containers.len());
        let mut sum = ContainerUsage::default();
        for (id, usage) in self.runtime.usages().await? {
            sum.cpu_ns += usage.cpu_ns;
            sum.working_set_bytes += usage.working_set_bytes;
            // One that has just been started is measured next time.
            if let Ok(at) = containers.binary_search_by(|one| one.id.cmp(&id)) {
                measured.extend(sampled(containers[at].clone(), usage));
            }
        }
        let node = self.runtime.machine_usage().await?.unwrap_or(sum);
        let at = self.environment.clock.now();
        Ok(NodeSample { at, node, containers: measured })
    }
}
