//! What befalls the nodes of a test's cluster, on demand.

use std::sync::Arc;

use futures::FutureExt;
use orch_core::random::SeededRandom;
use orch_node::runtime::simulated::SimulatedRuntime;

use crate::{
    cluster::NodeSetup,
    sim::{
        link::{Line, Link},
        machine::SimulatedMachine,
        process::{Process, Start},
    },
};

/// A node of a test's cluster: its machine, and the agent that runs on it.
///
/// ```
/// use k8s_openapi::api::core::v1::Node;
/// use kube::Api;
/// use orch::testing;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let cluster = testing::cluster().nodes(2).await;
/// let nodes: Api<Node> = Api::all(cluster.client());
/// let is_ready = |node: Option<&Node>| {
///     let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
///     conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
/// };
/// cluster.node("node-1").power_off();
/// cluster.expect(&nodes, "node-1").to("be lost", |node| !is_ready(node)).await;
/// cluster.node("node-1").power_on();
/// cluster.expect(&nodes, "node-1").to("be back", is_ready).await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TestNode {
    machine: SimulatedMachine,
    agent: Arc<Process>,
}

impl TestNode {
    pub(super) fn new(runtime: SimulatedRuntime, seed: u64) -> Self {
        let random = Arc::new(SeededRandom::new(seed));
        let line = Arc::new(Line::new(random.clone()));
        Self { machine: SimulatedMachine::new(runtime, random), agent: Process::new(line) }
    }

    /// What runs on it.
    pub(super) fn runtime(&self) -> &SimulatedRuntime {
        self.machine.inside()
    }

    /// The node as a cluster runs it.
    pub(super) fn setup(&self, name: impl Into<String>) -> NodeSetup {
        let process = self.agent.clone();
        NodeSetup::new(name, Arc::new(self.machine.runtime())).supervised(move |client, agent| {
            let start: Start = Box::new(move |connection| {
                agent(Arc::new(Link { inner: client.clone(), connection }))
            });
            process.clone().run(start).boxed()
        })
    }

    /// The machine loses its power: its agent is gone, and so is everything that ran on it.
    pub fn power_off(&self) {
        self.agent.keep_down(true);
        self.machine.inside().lose_power();
    }

    /// The machine starts again, and its agent with it. Nothing else runs on it.
    pub fn power_on(&self) {
        self.agent.keep_down(false);
    }

    /// The agent crashes and stays down. The containers go on.
    pub fn stop_agent(&self) {
        self.agent.keep_down(true);
    }

    /// The agent starts again, and takes over what runs.
    pub fn start_agent(&self) {
        self.agent.keep_down(false);
    }

    /// The agent does not reach the API any more. The containers go on.
    pub fn cut(&self) {
        self.agent.line.cut(true);
    }

    /// It reaches the API again.
    pub fn mend(&self) {
        self.agent.line.cut(false);
    }

    /// The container runtime refuses every call. What runs goes on.
    pub fn break_runtime(&self) {
        self.machine.refuse(1000);
    }

    /// The container runtime works again.
    pub fn mend_runtime(&self) {
        self.machine.refuse(0);
    }
}
