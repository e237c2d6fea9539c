//! A whole cluster in this process.
//!
//! [`ClusterBuilder`] takes the parts that are to differ from the defaults; [`Cluster`] runs until
//! it is shut down or dropped. Without [`ClusterBuilder::serve`] there are no sockets and no files.

use std::{fmt, net::SocketAddr, sync::Arc};

use orch_api::{ApiServer, auth::UserInfo, serve::Listener};
use orch_controllers::Manager;
use orch_core::{Client, Environment, informer::Informers};
use orch_net::{DnsServer, IngressController, ProxyController};
use orch_node::resource_metrics::ResourceMetrics;
use orch_sched::Scheduler;
use orch_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod authority;
mod builder;
mod compaction;
mod dialer;
mod dns_service;
mod error;
mod network;
mod node;
mod readiness;
mod repair;
mod resource_metrics;
mod security;

pub use builder::ClusterBuilder;
pub use dialer::LocalDialer;
pub use error::StartError;
pub use network::{NetworkSetup, Proxy};
pub use node::NodeSetup;
pub use security::ServeSetup;

/// A running cluster. Dropping it stops everything; what its node agents run on a runtime outside
/// of this process goes on, and is taken over by the next agent on that runtime.
pub struct Cluster {
    api: ApiServer,
    client: Arc<dyn Client>,
    informers: OwnInformers,
    dialer: Arc<LocalDialer>,
    environment: Environment,
    nodes: Vec<String>,
    address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("nodes", &self.nodes)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts to assemble a cluster: a memory store, the standard controllers and the scheduler,
    /// and no nodes, unless told otherwise.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A client in this process, with all rights and without a socket.
    pub fn client(&self) -> kube::Client {
        self.api.kube_client(UserInfo::master("system:admin"), "default")
    }

    /// The contract that the components of the cluster use themselves: shares decoded objects
    /// with them.
    pub fn core_client(&self) -> Arc<dyn Client> {
        self.client.clone()
    }

    /// The local copies of collections that the cluster's components share.
    pub fn informers(&self) -> &Informers {
        &self.informers.0
    }

    /// Clock and randomness of the cluster.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The API server: a tower `Service`.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Where the API is served, with [`ClusterBuilder::serve`].
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until every node that was set up is Ready.
    pub async fn nodes_ready(&self) {
        readiness::nodes_ready(&self.informers.0, &self.nodes).await;
    }

    /// Stops every component and waits for all of them to end.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        self.dialer.clear();
    }
}

/// The cluster's informers end with it, also if it never comes to run.
struct OwnInformers(Informers);

impl Drop for OwnInformers {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What is assembled and not running yet.
struct Parts {
    /// The store, if old revisions are to be forgotten.
    compacted: Option<Arc<dyn Store>>,
    api: ApiServer,
    client: Arc<dyn Client>,
    informers: OwnInformers,
    environment: Environment,
    listeners: Vec<Listener>,
    controllers: Manager,
    scheduler: Option<Scheduler>,
    agents: Vec<node::Agent>,
    metrics: Option<ResourceMetrics>,
    dialer: Arc<LocalDialer>,
    nodes: Vec<String>,
    proxy: Option<ProxyController>,
    dns: Option<DnsServer>,
    ingress: Option<IngressController>,
}

impl Parts {
    /// Starts every part as a task of its own.
    fn run(self) -> Cluster {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = self.listeners.first().map(Listener::local_addr);
        for listener in self.listeners {
            tasks.spawn(listener.serve(self.api.clone(), stop.clone()));
        }
        let environment = self.environment.clone();
        if let Some(store) = self.compacted {
            tasks.spawn(compaction::run(store, environment.clone(), stop.clone()));
        }
        tasks.spawn(repair::run(self.api.clone(), environment, stop.clone()));
        tasks.spawn(self.controllers.run(stop.clone()));
        if let Some(scheduler) = self.scheduler {
            tasks.spawn(scheduler.run(stop.clone()));
        }
        for agent in self.agents {
            let agent = agent.run(self.client.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(agent));
        }
        if let Some(metrics) = self.metrics {
            tasks.spawn(metrics.run(stop.clone()));
        }
        if let Some(proxy) = self.proxy {
            tasks.spawn(proxy.run(stop.clone()));
        }
        if let Some(dns) = self.dns {
            tasks.spawn(dns.run(stop.clone()));
        }
        if let Some(ingress) = self.ingress {
            tasks.spawn(ingress.run(stop.clone()));
        }
        tasks.close();
        Cluster {
            api: self.api,
            client: self.client,
            informers: self.informers,
            dialer: self.dialer,
            environment: self.environment,
            nodes: self.nodes,
            address,
            stop,
            tasks,
        }
    }
}
