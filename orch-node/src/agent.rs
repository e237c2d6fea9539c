//! [`NodeAgent`]: registers a node, keeps its lease, and runs the pods that are bound to it.
//!
//! Every pod has a worker of its own, which looks at what the pod should be and at what runs, does
//! the next thing, writes the status, and waits until something changes. Nothing is kept on disk:
//! a restarted agent finds its workloads in the runtime by their labels and goes on.
//!
//! Source: `pkg/kubelet`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, NodeAddress, Pod, Service, Taint};
use orch_core::{
    Client, Environment,
    informer::{Informer, Informers, Selection},
    quantity::Amount,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::PodAddresses,
    machine::Machine,
    pods::PodSource,
    runtime::{DnsConfig, Runtime, RuntimeInfo},
    volume::Volumes,
};

mod admission;
mod conditions;
mod config;
mod dispatch;
mod env;
pub(crate) mod events;
mod expand;
mod hooks;
mod images;
mod lease;
mod node;
mod plan;
mod prober;
mod probes;
mod resources;
mod rotate;
pub(crate) mod spec;
mod start;
mod status;
mod stop;
mod termination;
mod worker;

/// Folders of a node's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFolders {
    /// Volumes and small files, one folder per pod.
    pub pods: PathBuf,
    /// Container output, one folder per pod. Upstream's is `/var/log/pods`.
    pub logs: PathBuf,
}

impl NodeFolders {
    /// `pods` and `logs` in one folder.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { pods: root.join("pods"), logs: root.join("logs") }
    }
}

/// What an agent is told besides its cluster and its runtime.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The machine that the node stands for. Default: this one.
    pub machine: Machine,
    /// Further labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node is created with.
    pub taints: Vec<Taint>,
    /// The node's addresses; the first `InternalIP` is the pods' `hostIP`. Default: the host name
    /// only.
    pub addresses: Vec<NodeAddress>,
    /// The port of the agent's HTTP server, published in the node's status. Default: 10250.
    pub server_port: u16,
    /// Where volumes and logs are. `None`, the default, is for runtimes without files.
    pub folders: Option<NodeFolders>,
    /// Gives pods their addresses, for runtimes that do not. Default: none; pods then have the
    /// node's address.
    pub pod_addresses: Option<Arc<dyn PodAddresses>>,
    /// Name servers of pods with the policy `ClusterFirst`. Default: none, which gives them the
    /// host's.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain. Default: `cluster.local`.
    pub cluster_domain: String,
    /// How the host resolves names: for pods with the policy `Default`.
    pub host_dns: DnsConfig,
    /// How often the node's status is looked at, and its lease renewed. Default: 10 s.
    pub heartbeat: Duration,
    /// How often an unchanged status is written. Default: 5 min.
    pub status_report: Duration,
    /// How often every pod is looked at although nothing is known to have happened; contents of
    /// config maps and secrets in volumes are brought up to date then. Sixty times rarer with a
    /// runtime that tells events and has no files. Default: 60 s.
    pub resync: Duration,
    /// How often a runtime that does not tell events is listed. Default: 1 s.
    pub relist: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            machine: Machine::detect(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            addresses: Vec::new(),
            server_port: 10250,
            folders: None,
            pod_addresses: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            host_dns: DnsConfig::default(),
            heartbeat: Duration::from_secs(10),
            status_report: Duration::from_secs(300),
            resync: Duration::from_secs(60),
            relist: Duration::from_secs(1),
        }
    }
}

/// Assembles a [`NodeAgent`].
#[derive(Debug)]
pub struct NodeAgentBuilder {
    client: Arc<dyn Client>,
    environment: Environment,
    node_name: String,
    runtime: Arc<dyn Runtime>,
    options: AgentOptions,
    informers: Option<Informers>,
}

impl NodeAgentBuilder {
    /// Options other than the defaults.
    #[must_use]
    pub fn options(mut self, options: AgentOptions) -> Self {
        self.options = options;
        self
    }

    /// Informers shared with other components of the process: the agent takes Services from them.
    /// Without them it has an informer of its own.
    #[must_use]
    pub fn informers(mut self, informers: Informers) -> Self {
        self.informers = Some(informers);
        self
    }

    /// The agent. Call it inside a tokio runtime: it starts to follow its pods.
    pub fn build(self) -> NodeAgent {
        let selection = Selection {
            field_selector: Some(format!("spec.nodeName={}", self.node_name)),
            ..Selection::default()
        };
        let pods = Informer::start(self.client.clone(), self.environment.clone(), selection);
        NodeAgent { pods, parts: self }
    }
}

/// The agent of one node. [`NodeAgent::run`] does everything.
#[derive(Debug)]
pub struct NodeAgent {
    pods: Informer<Pod>,
    parts: NodeAgentBuilder,
}

/// What all of an agent's workers share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Arc<dyn Client>,
    pub(crate) environment: Environment,
    pub(crate) node_name: String,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) info: RuntimeInfo,
    pub(crate) options: AgentOptions,
    pub(crate) events: events::NodeEvents,
    pub(crate) services: Informer<Service>,
    pub(crate) volumes: Volumes,
    pub(crate) admitted: Mutex<admission::Admitted>,
    /// The node as last written.
    pub(crate) node: Mutex<Arc<Node>>,
}

impl Context {
    /// The node's own addresses.
    pub(crate) fn host_ips(&self) -> Vec<IpAddr> {
        let internal = self.options.addresses.iter().filter(|a| a.type_ == "InternalIP");
        internal.filter_map(|a| a.address.parse().ok()).collect()
    }

    pub(crate) fn allocatable(&self) -> BTreeMap<String, Amount> {
        let node = self.node.lock().clone();
        resources::amounts(node.status.as_ref().and_then(|s| s.allocatable.as_ref()))
    }
}

impl NodeAgent {
    /// Starts to assemble an agent for the node of this name.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use orch_core::{Client, Environment};
    /// # use orch_node::{NodeAgent, runtime::simulated::SimulatedRuntime};
    /// # async fn demo(client: Arc<dyn Client>, cancel: tokio_util::sync::CancellationToken) {
    /// let environment = Environment::system();
    /// let runtime = Arc::new(SimulatedRuntime::new(environment.clone()));
    /// let agent = NodeAgent::builder(client, environment, "node-1", runtime).build();
    /// agent.run(cancel).await;
    /// # }
    /// ```
    pub fn builder(
        client: Arc<dyn Client>,
        environment: Environment,
        node_name: impl Into<String>,
        runtime: Arc<dyn Runtime>,
    ) -> NodeAgentBuilder {
        NodeAgentBuilder {
            client,
            environment,
            node_name: node_name.into(),
            runtime,
            options: AgentOptions::default(),
            informers: None,
        }
    }

    /// The node's pods, for the HTTP server.
    pub fn pods(&self) -> Arc<dyn PodSource> {
        Arc::new(self.pods.clone())
    }

    /// Runs the node until it is cancelled. Workloads go on running then; a new agent on the same
    /// runtime takes them over.
    pub async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.run_forever() => {}
        }
    }

    async fn run_forever(self) {
        let Self { pods, parts } = self;
        let clock = parts.environment.clock.clone();
        let info = loop {
            match parts.runtime.info().await {
                Ok(info) => break info,
                Err(error) => {
                    tracing::warn!(%error, node = parts.node_name, "waiting for the runtime");
                    clock.sleep(parts.options.heartbeat).await;
                }
            }
        };
        let services = match &parts.informers {
            Some(shared) => shared.of::<Service>(),
            None => {
                let all = Selection::default();
                Informer::start(parts.client.clone(), parts.environment.clone(), all)
            }
        };
        let events = events::NodeEvents::start(
            parts.client.clone(),
            parts.environment.clone(),
            &parts.node_name,
        );
        let pods_dir = parts.options.folders.as_ref().map(|f| f.pods.clone());
        let volumes = Volumes::new(
            parts.client.clone(),
            parts.environment.clone(),
            pods_dir.filter(|_| info.has_files),
            events.clone(),
        );
        let context = Arc::new(Context {
            client: parts.client,
            environment: parts.environment,
            node_name: parts.node_name,
            runtime: parts.runtime,
            info,
            options: parts.options,
            events,
            services,
            volumes,
            admitted: Mutex::default(),
            node: Mutex::default(),
        });
        node::register(&context).await;
        tokio::join!(
            node::keep_status(&context),
            lease::keep(&context),
            dispatch::run(&context, &pods),
        );
    }
}
