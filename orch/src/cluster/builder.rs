//! Assembles a cluster.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc};

use futures::FutureExt;
use k8s_openapi::api::core::v1::NodeAddress;
use orch_api::{
    ApiServer, Bootstrap, ServerOptions,
    admission::{LateClient, StorageObjectInUseProtection},
    allocator::ServiceRanges,
    audit::Audit,
    auth::UserInfo,
    flow::{FlowControl, FlowOptions},
    metrics::Metrics,
    outbound::InProcess,
    proxy::NodeConnector,
    serve::{Listener, Pki},
};
use orch_controllers::{
    Manager, Metrics as ControllerMetrics,
    certificates::{CertificateAuthority, Signers},
    load_balancer::{AddressPool, LoadBalancer, PoolRange},
    node_ipam::NodeRanges,
    pod_autoscaler::metrics::{Metrics as Measurements, ResourceMetricsApi},
    standard::{StandardOptions, standard},
    volumes::{LocalPath, LocalPathOptions, ensure_storage_class},
};
use orch_core::{Environment, informer::Informers};
use orch_node::{
    AgentOptions, NodeAgent,
    addresses::{AddressRange, PodAddresses},
    machine::Machine,
    resource_metrics::MetricsOptions,
    runtime::simulated::SimulatedRuntime,
    server::NodeServer,
    usage::{RuntimeUsage, UsageSource},
};
use orch_sched::{Plugin, Scheduler};
use orch_store::{MemoryOptions, MemoryStore, Store};
use tokio_util::sync::CancellationToken;

use super::{
    Cluster, LocalDialer, NetworkSetup, NodeSetup, OwnInformers, Parts, ServeSetup, StartError,
    authority::ClusterAuthority,
    node::{Agent, AgentLife},
    resource_metrics, security,
};

/// Addresses of pods on simulated nodes.
const SIMULATED_PODS: &str = "10.128.0.0/9";
/// What each simulated node has, whatever machine this is: one seed gives one history everywhere.
const SIMULATED_CPUS: u32 = 16;
const SIMULATED_MEMORY_GIB: u32 = 64;
/// Addresses of simulated nodes.
const SIMULATED_NODES: &str = "172.16.0.0/12";

/// The nodes' names, who measures them, and their agents.
type Agents = (Vec<String>, Vec<Arc<dyn UsageSource>>, Vec<Agent>);

/// Takes what is to differ from the defaults, and starts the cluster.
#[derive(Debug, Default)]
pub struct ClusterBuilder {
    environment: Option<Environment>,
    store: Option<Arc<dyn Store>>,
    nodes: Vec<NodeSetup>,
    simulated: usize,
    controllers: Option<Vec<String>>,
    plugins: Vec<Arc<dyn Plugin>>,
    without_scheduler: bool,
    serve: Option<ServeSetup>,
    network: NetworkSetup,
    volumes: Option<PathBuf>,
    node_ranges: Option<NodeRanges>,
    load_balancer: Option<Arc<dyn LoadBalancer>>,
    load_balancer_pool: Vec<PoolRange>,
    metrics: Option<Metrics>,
    measurements: Option<Arc<dyn Measurements>>,
    resource_metrics: Option<MetricsOptions>,
    in_process: Arc<InProcess>,
    flow: Option<FlowOptions>,
    audit: Option<Audit>,
    keeps_history: bool,
}

impl ClusterBuilder {
    /// Clock and randomness of every component. Default: the machine's.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Where the cluster's state is. Default: memory, gone with the cluster.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds a node on a runtime of your choice. Default: no nodes.
    #[must_use]
    pub fn node(mut self, node: NodeSetup) -> Self {
        self.nodes.push(node);
        self
    }

    /// Adds `count` nodes whose containers are simulated: they start at once and run until they
    /// are stopped, unless their pods' annotations say otherwise. Named `node-1` and so on. Nodes
    /// have 16 CPUs and 64 GiB of memory, and addresses out of 172.16.0.0/12; pods have addresses
    /// out of 10.128.0.0/9. They lead nowhere.
    #[must_use]
    pub fn simulated_nodes(mut self, count: usize) -> Self {
        self.simulated += count;
        self
    }

    /// Which standard controllers run, in the notation of `kube-controller-manager
    /// --controllers`: `*` is all, a name is that one, `-name` is all but that one. Default: `*`.
    /// An empty list runs none.
    #[must_use]
    pub fn controllers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.controllers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a rule to the default scheduler's profile.
    #[must_use]
    pub fn scheduler_plugin(mut self, plugin: impl Plugin) -> Self {
        self.plugins.push(Arc::new(plugin));
        self
    }

    /// Runs no scheduler: pods wait until somebody else binds them.
    #[must_use]
    pub fn without_scheduler(mut self) -> Self {
        self.without_scheduler = true;
        self
    }

    /// Serves the API to the outside. Default: it is reached in this process only.
    #[must_use]
    pub fn serve(mut self, serve: ServeSetup) -> Self {
        self.serve = Some(serve);
        self
    }

    /// The cluster's network: address ranges, service proxy, DNS, ingress. Default: ranges only.
    #[must_use]
    pub fn network(mut self, network: NetworkSetup) -> Self {
        self.network = network;
        self
    }

    /// Provisions the claims of the class `standard`, which becomes the default class, as folders
    /// below this one. Default: nobody provisions.
    #[must_use]
    pub fn local_volumes(mut self, folder: impl Into<PathBuf>) -> Self {
        self.volumes = Some(folder.into());
        self
    }

    /// Gives nodes addresses for their pods out of these ranges, in `spec.podCIDRs`: for runtimes
    /// and networks that go by them. Default: nodes get none.
    #[must_use]
    pub fn node_ranges(mut self, ranges: NodeRanges) -> Self {
        self.node_ranges = Some(ranges);
        self
    }

    /// Gives Services of type `LoadBalancer` addresses out of these ranges. The nodes' service
    /// proxies take what is sent there; see [`AddressPool`] for what else that needs. Default: no
    /// addresses, such Services wait.
    #[must_use]
    pub fn load_balancer_pool(mut self, ranges: impl IntoIterator<Item = PoolRange>) -> Self {
        self.load_balancer_pool.extend(ranges);
        self
    }

    /// What balances the load of Services of type `LoadBalancer`, in place of a pool of addresses.
    #[must_use]
    pub fn load_balancer(mut self, balancer: impl LoadBalancer) -> Self {
        self.load_balancer = Some(Arc::new(balancer));
        self
    }

    /// Where the API server counts what it does, which is then told at `/metrics`. Default:
    /// nowhere.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Measures the nodes and serves what they and their pods use as `metrics.k8s.io`: for
    /// `kubectl top` and for HorizontalPodAutoscalers. Default: nobody does.
    #[must_use]
    pub fn resource_metrics(mut self, options: MetricsOptions) -> Self {
        self.resource_metrics = Some(options);
        self
    }

    /// Where HorizontalPodAutoscalers get their measurements. Default: `metrics.k8s.io`, whoever
    /// serves it: [`ClusterBuilder::resource_metrics`], or an API server of yours.
    #[must_use]
    pub fn measurements(mut self, measurements: impl Measurements) -> Self {
        self.measurements = Some(Arc::new(measurements));
        self
    }

    /// Lets requests wait their turn when there are more than the API server takes at once, by
    /// upstream's priority and fairness. Default: all are taken at once.
    #[must_use]
    pub fn flow_control(mut self, options: FlowOptions) -> Self {
        self.flow = Some(options);
        self
    }

    /// What the API server notes of requests that come from outside, and where. Default: nothing.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// Never forgets a revision, for tests that look back. Default: what is older than five minutes
    /// is forgotten, as upstream has it.
    #[must_use]
    pub fn keep_history(mut self) -> Self {
        self.keeps_history = true;
        self
    }

    /// Starts the cluster. When this returns, the API answers and holds what every cluster holds;
    /// nodes register themselves from then on (see [`Cluster::nodes_ready`]). Call it inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(mut self) -> Result<Cluster, StartError> {
        let environment = self.environment.take().unwrap_or_else(Environment::system);
        self.add_simulated(&environment);
        let listeners = self.listen().await?;
        let pki = self.serve.as_ref().map(|serve| serve.pki.clone());
        let dialer = Arc::new(LocalDialer::default());
        let advertised = listeners.last().map(Listener::local_addr);
        let store = self.store.take().unwrap_or_else(|| {
            Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()))
        });
        let api =
            self.api(store.clone(), pki.as_deref(), &environment, &dialer, advertised).await?;
        let client = api.client(UserInfo::master("system:orch"));
        if self.volumes.is_some() {
            let class = LocalPath::storage_class();
            ensure_storage_class(client.clone(), &class).await.map_err(StartError::Bootstrap)?;
        }
        let informers = OwnInformers(Informers::new(client.clone(), environment.clone()));
        let controllers = self.manager(pki.as_ref(), &api, &informers.0)?;
        let scheduler = self.scheduler(&informers.0)?;
        let (nodes, sources, agents) = self.agents(&informers.0, &environment, &dialer)?;
        let metrics = match self.resource_metrics {
            Some(options) => {
                let metrics =
                    resource_metrics::serve(&informers.0, sources, options, &self.in_process);
                Some(metrics.await.map_err(StartError::Bootstrap)?)
            }
            None => None,
        };
        let first = nodes.first().map_or("", String::as_str);
        let network = self.network.start(first, &informers.0).await?;
        let parts = Parts {
            compacted: (!self.keeps_history).then_some(store),
            api,
            client,
            informers,
            environment,
            listeners,
            controllers,
            scheduler,
            agents,
            metrics,
            dialer,
            nodes,
            proxy: network.proxy,
            dns: network.dns,
            ingress: network.ingress,
        };
        Ok(parts.run())
    }

    fn add_simulated(&mut self, environment: &Environment) {
        let pods = AddressRange::new(SIMULATED_PODS).expect("a constant that is a range");
        let nodes = AddressRange::new(SIMULATED_NODES).expect("a constant that is a range");
        let pods: Arc<dyn PodAddresses> = Arc::new(pods);
        for number in 1..=self.simulated {
            let name = format!("node-{number}");
            // What has no address any more has none: nothing but numbers is shared.
            let address = nodes.allocate(&name).ok();
            let internal = |address: IpAddr| NodeAddress {
                address: address.to_string(),
                type_: "InternalIP".to_owned(),
            };
            let options = AgentOptions {
                machine: Machine::simulated(SIMULATED_CPUS, SIMULATED_MEMORY_GIB),
                addresses: address.map(internal).into_iter().collect(),
                pod_addresses: Some(pods.clone()),
                ..AgentOptions::default()
            };
            let runtime = Arc::new(SimulatedRuntime::new(environment.clone()));
            self.nodes.push(NodeSetup::new(name, runtime).options(options));
        }
    }

    async fn listen(&self) -> Result<Vec<Listener>, StartError> {
        let Some(serve) = &self.serve else { return Ok(Vec::new()) };
        let tls = serve.pki.server_config()?;
        let mut listeners: Vec<Listener> = Vec::with_capacity(serve.addresses.len());
        for address in &serve.addresses {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), listeners.first()) {
                address.set_port(first.local_addr().port());
            }
            let bound = Listener::bind(address, Some(tls.clone()), serve.listener.clone());
            listeners.push(bound.await?);
        }
        Ok(listeners)
    }

    async fn api(
        &self,
        store: Arc<dyn Store>,
        pki: Option<&Pki>,
        environment: &Environment,
        dialer: &Arc<LocalDialer>,
        advertised: Option<std::net::SocketAddr>,
    ) -> Result<ApiServer, StartError> {
        let options = ServerOptions {
            advertise: advertised.map_or_else(String::new, |address| address.to_string()),
            service_ranges: ServiceRanges {
                cluster_ips: vec![self.network.services().into()],
                ..ServiceRanges::default()
            },
            ..ServerOptions::default()
        };
        let builder = ApiServer::builder(store)
            .environment(environment.clone())
            .connector(Arc::new(NodeConnector::new(dialer.clone())))
            .in_process(self.in_process.clone())
            .options(options);
        let mut builder = security::secure(builder, pki, environment)?;
        if let Some(metrics) = &self.metrics {
            builder = builder.metrics(metrics.clone());
        }
        if let Some(audit) = &self.audit {
            builder = builder.audit(audit.clone());
        }
        if let Some(options) = self.flow {
            let late = LateClient::new();
            let informers = Informers::new(late.clone(), environment.clone());
            let flow = FlowControl::new(&informers, options);
            builder = builder.late_client(late).flow_control(flow);
        }
        if self.protects_storage() {
            builder = builder.admission(Arc::new(StorageObjectInUseProtection));
        }
        let api = builder.build();
        let bootstrap = Bootstrap {
            roles: pki.is_some(),
            api_services: pki.is_some(),
            client_authority: pki.map(|pki| pki.ca_pem().to_owned()),
            address: advertised,
        };
        api.bootstrap(&bootstrap).await.map_err(StartError::Bootstrap)?;
        Ok(api)
    }

    /// Whether the controllers run that take the finalizers of claims and volumes away again.
    fn protects_storage(&self) -> bool {
        let mut options = StandardOptions::new(Vec::new());
        if let Some(names) = &self.controllers {
            options.controllers.clone_from(names);
        }
        ["persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller"]
            .iter()
            .all(|name| options.enables(name))
    }

    fn manager(
        &self,
        pki: Option<&Arc<Pki>>,
        api: &ApiServer,
        informers: &Informers,
    ) -> Result<Manager, StartError> {
        let mut options = StandardOptions::new(informers.client().clone());
        // Over HTTP, without a socket: what others serve has no other way in.
        let aggregated = || {
            let client = api.kube_client(UserInfo::master("system:orch"), "default");
            Arc::new(ResourceMetricsApi::new(Arc::new(client))) as Arc<dyn Measurements>
        };
        options.metrics = Some(self.measurements.clone().unwrap_or_else(aggregated));
        options.root_ca_pem = pki.map(|pki| pki.ca_pem().to_owned());
        options.signers = pki.map(|pki| {
            let authority: Arc<dyn CertificateAuthority> = Arc::new(ClusterAuthority(pki.clone()));
            Signers::all(&authority)
        });
        options.tokens = pki.map(|pki| security::token_generator(pki)).transpose()?;
        options.node_ipam.clone_from(&self.node_ranges);
        if let Some(names) = &self.controllers {
            options.controllers.clone_from(names);
        }
        options.load_balancer.clone_from(&self.load_balancer);
        if options.load_balancer.is_none() && !self.load_balancer_pool.is_empty() {
            let pool = AddressPool::new(informers, self.load_balancer_pool.iter().copied());
            options.load_balancer = Some(Arc::new(pool));
        }
        if let Some(folder) = &self.volumes {
            let local = Arc::new(LocalPath::new(LocalPathOptions::new(folder)));
            options.provisioners.push(local.clone());
            options.expanders.push(local);
        }
        let mut manager = Manager::new();
        if let Some(metrics) = &self.metrics {
            let queues = ControllerMetrics::new();
            metrics.register(|registry| {
                queues.register(registry);
                options.storage_metrics.register(registry);
                options.resource_claim_metrics.register(registry);
            });
            manager = manager.measured(&queues);
        }
        manager.extend(standard(informers, &options)?);
        Ok(manager)
    }

    fn scheduler(&mut self, informers: &Informers) -> Result<Option<Scheduler>, StartError> {
        if self.without_scheduler {
            return Ok(None);
        }
        let mut builder = Scheduler::builder(informers);
        for plugin in self.plugins.drain(..) {
            builder = builder.plugin(plugin);
        }
        let scheduler = builder.build();
        scheduler.map(Some).map_err(|error| StartError::Scheduler(error.to_string()))
    }

    fn agents(
        &mut self,
        informers: &Informers,
        environment: &Environment,
        dialer: &Arc<LocalDialer>,
    ) -> Result<Agents, StartError> {
        let mut names = BTreeSet::new();
        let mut sources: Vec<Arc<dyn UsageSource>> = Vec::with_capacity(self.nodes.len());
        let mut agents = Vec::with_capacity(self.nodes.len());
        let mut order = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..) {
            if !names.insert(node.name.clone()) {
                return Err(StartError::DuplicateNode(node.name));
            }
            order.push(node.name.clone());
            let options: AgentOptions = self.network.for_agent(node.options);
            let runtime = node.runtime.clone();
            sources.push(Arc::new(RuntimeUsage::new(
                node.name.clone(),
                runtime.clone(),
                environment.clone(),
            )));
            let (informers, environment) = (informers.clone(), environment.clone());
            let (dialer, name) = (dialer.clone(), node.name);
            let life: AgentLife = Arc::new(move |client| {
                let (environment, runtime) = (environment.clone(), runtime.clone());
                let agent = NodeAgent::builder(client, environment.clone(), &name, runtime.clone());
                let agent = agent.options(options.clone()).informers(informers.clone()).build();
                let server = NodeServer::new(runtime, agent.pods(), environment);
                let placed = dialer.place(&name, server);
                async move {
                    agent.run(CancellationToken::new()).await;
                    drop(placed);
                }
                .boxed()
            });
            agents.push(Agent { life, supervise: node.supervise });
        }
        Ok((order, sources, agents))
    }
}
