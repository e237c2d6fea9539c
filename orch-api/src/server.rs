//! The API server: its parts put together.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use orch_core::{Client, Environment, ResourceType};
use orch_store::Store;
use parking_lot::Mutex;

use crate::{
    admission::{
        Admission, LateClient,
        policy::{Policies, TypeCheck},
        webhook::Webhooks,
    },
    aggregation::Aggregated,
    allocator::{ServiceAllocator, ServiceCidrs, ServiceRanges},
    audit::Audit,
    auth::{
        AlwaysAllow, Authenticator, Authenticators, Authorizer, Authorizers, UserInfo,
        access_control::AccessControl,
        reviews::{self, TokenReviews},
        service_account::{ServiceAccountTokens, TokenRequests},
    },
    cache::Cache,
    catalog::{ApiVersions, Catalog},
    connect::Connector,
    custom::{Customs, SettleNames},
    flow::FlowControl,
    health::{Checks, HealthCheck},
    http::Frames,
    kinds::{Requester, TaintTimes},
    local::{LocalClient, OwnClient},
    metrics::{MeteredStore, Metrics},
    openapi::OpenApi,
    outbound::{Https, InProcess, InProcessFirst, Outbound},
    strategy::{Action, Hook, VirtualResource},
    subresources::{Binding, Eviction},
};

/// The Kubernetes API over a store. Cheap to clone; clones are the same server.
///
/// It is a tower `Service` from HTTP requests to HTTP responses, and gives clients that skip HTTP
/// ([`ApiServer::client`]). Nothing runs until something is asked for.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// What every call uses.
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) environment: Environment,
    pub(crate) built_in: Arc<Catalog>,
    pub(crate) customs: Customs,
    pub(crate) cache: Arc<Cache>,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    /// The webhooks of admission, as they are configured now.
    pub(crate) webhooks: Webhooks,
    /// The policies of admission, as they are written now.
    pub(crate) policies: Policies,
    pub(crate) outbound: Arc<dyn Outbound>,
    /// The servers behind this one.
    pub(crate) aggregated: Aggregated,
    pub(crate) connector: Option<Arc<dyn Connector>>,
    pub(crate) options: ServerOptions,
    pub(crate) health: Checks,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) audit: Option<Audit>,
    pub(crate) flow: Option<FlowControl>,
    /// What is served at paths that are no resources, besides the server's own.
    pub(crate) documents: Vec<(&'static str, serde_json::Value)>,
    /// The OpenAPI documents, of the resources that were served when they were made.
    pub(crate) openapi: Mutex<Option<(Arc<Catalog>, Arc<OpenApi>)>>,
    /// The events that were told over HTTP last, as bytes.
    pub(crate) frames: Frames,
    pub(crate) services: Arc<ServiceAllocator>,
    pub(crate) service_cidrs: Arc<ServiceCidrs>,
    virtuals: Vec<Virtual>,
    hooks: Vec<Installed>,
    own: Weak<Inner>,
}

struct Installed {
    group: &'static str,
    plural: &'static str,
    hook: Arc<dyn Hook>,
}

struct Virtual {
    group: &'static str,
    plural: &'static str,
    subresource: Option<&'static str>,
    answers: Arc<dyn VirtualResource>,
}

/// What can be chosen about a server besides its parts.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Which API versions are served. Default: the stable ones.
    pub api_versions: ApiVersions,
    /// The address and port under which clients reach the server, as discovery tells it. Default:
    /// `127.0.0.1:6443`.
    pub advertise: String,
    /// The largest request body that is taken, in bytes. Default: 3 MiB.
    pub body_bytes_max: usize,
    /// Whether bodies, answers and watches may be CBOR, as with upstream's feature gate
    /// `CBORServingAndStorage`, which is off by default in 1.36. Default: no.
    pub cbor: bool,
    /// How long a request may take that is neither a watch nor a connection to a pod; a client
    /// may ask for less with the parameter `timeout`. Default: 60 s.
    pub request_timeout: Duration,
    /// The answer to `/version`'s `gitVersion`. Default: `v1.36.2+orch`.
    pub git_version: String,
    /// Whether writes keep `metadata.managedFields`. Default: yes. Without them writes are cheaper,
    /// and server-side apply sees no conflicts.
    pub managed_fields: bool,
    /// Where Services get their cluster IPs and node ports from. Default: upstream's ranges.
    pub service_ranges: ServiceRanges,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            api_versions: ApiVersions::Stable,
            advertise: "127.0.0.1:6443".into(),
            body_bytes_max: 3 << 20,
            cbor: false,
            request_timeout: Duration::from_secs(60),
            git_version: "v1.36.2+orch".into(),
            managed_fields: true,
            service_ranges: ServiceRanges::default(),
        }
    }
}

/// Puts a server together. Everything but the store has a default.
pub struct ApiServerBuilder {
    store: Arc<dyn Store>,
    environment: Option<Environment>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    authorizers: Vec<Arc<dyn Authorizer>>,
    admission: Vec<Arc<dyn Admission>>,
    outbound: Option<Arc<dyn Outbound>>,
    in_process: Option<Arc<InProcess>>,
    connector: Option<Arc<dyn Connector>>,
    options: ServerOptions,
    documents: Vec<(&'static str, serde_json::Value)>,
    virtuals: Vec<Virtual>,
    late_clients: Vec<Arc<LateClient>>,
    hooks: Vec<Installed>,
    default_admission: bool,
    tokens: Option<ServiceAccountTokens>,
    health: Checks,
    metrics: Option<Metrics>,
    audit: Option<Audit>,
    flow: Option<FlowControl>,
}

impl fmt::Debug for ApiServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServerBuilder").field("store", &self.store).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Starts to put a server together over a store.
    pub fn builder(store: Arc<dyn Store>) -> ApiServerBuilder {
        ApiServerBuilder {
            store,
            environment: None,
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            admission: Vec::new(),
            outbound: None,
            in_process: None,
            connector: None,
            options: ServerOptions::default(),
            documents: Vec::new(),
            virtuals: Vec::new(),
            late_clients: Vec::new(),
            hooks: Vec::new(),
            default_admission: false,
            tokens: None,
            health: Checks::default(),
            metrics: None,
            audit: None,
            flow: None,
        }
    }

    /// A server over a store, with every default: whoever can call it may do everything.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::builder(store).build()
    }

    /// A client in this process, which shares decoded objects and skips HTTP. What it does is
    /// authorized and admitted as that user's doing.
    pub fn client(&self, user: UserInfo) -> Arc<dyn Client> {
        Arc::new(LocalClient::new(self.inner.clone(), user))
    }
}

impl ApiServerBuilder {
    /// Clock and randomness. Default: the machine's.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Adds a way to find out who asks; they are asked in turn. Default: none, and everybody is a
    /// member of `system:masters`.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(authenticator);
        self
    }

    /// Adds somebody who decides what may be done; they are asked in turn. Default: none, and
    /// everybody may do everything.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizers.push(authorizer);
        self
    }

    /// Appends a step to the admission chain. Default: none.
    #[must_use]
    pub fn admission(mut self, plugin: Arc<dyn Admission>) -> Self {
        self.admission.push(plugin);
        self
    }

    /// Puts the plugins that upstream switches on by default before those that were added
    /// ([`crate::admission::defaults`]). Default: not.
    #[must_use]
    pub fn default_admission(mut self) -> Self {
        self.default_admission = true;
        self
    }

    /// Sets who issues and reviews tokens of service accounts. Default: nobody.
    #[must_use]
    pub fn service_account_tokens(mut self, tokens: ServiceAccountTokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Sets the work around the storing of a resource, instead of the built-in one (`services`
    /// get addresses, `certificatesigningrequests` their requester).
    #[must_use]
    pub fn hook(mut self, group: &'static str, plural: &'static str, hook: Arc<dyn Hook>) -> Self {
        self.hooks.push(Installed { group, plural, hook });
        self
    }

    /// Sets how webhooks and aggregated API servers are reached. Default: [`Https`], over TCP.
    #[must_use]
    pub fn outbound(mut self, outbound: Arc<dyn Outbound>) -> Self {
        self.outbound = Some(outbound);
        self
    }

    /// Sets services of this process that are called directly, before anybody is looked for
    /// outside. Default: none.
    #[must_use]
    pub fn in_process(mut self, services: Arc<InProcess>) -> Self {
        self.in_process = Some(services);
        self
    }

    /// Sets who answers `exec`, `attach`, `portforward`, `log` and `proxy`. Default: nobody, and
    /// they are answered with an error.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Sets who answers a POST to a resource or subresource that stores nothing of its own.
    #[must_use]
    pub fn virtual_resource(
        mut self,
        group: &'static str,
        plural: &'static str,
        subresource: Option<&'static str>,
        answers: Arc<dyn VirtualResource>,
    ) -> Self {
        self.virtuals.push(Virtual { group, plural, subresource, answers });
        self
    }

    /// Adds all parts of an access control.
    #[must_use]
    pub fn access_control(mut self, access: &AccessControl) -> Self {
        self.authenticators.extend(access.authenticators.iter().cloned());
        self.authorizers.extend(access.authorizers.iter().cloned());
        self.admission.extend(access.admission.iter().cloned());
        self.documents.extend(access.documents());
        for (group, plural, subresource, answers) in &access.virtual_resources {
            self = self.virtual_resource(group, plural, *subresource, answers.clone());
        }
        self
    }

    /// Lets a client that some of the parts were built over lead to this server, with all rights,
    /// as long as the server lives.
    #[must_use]
    pub fn late_client(mut self, client: Arc<LateClient>) -> Self {
        self.late_clients.push(client);
        self
    }

    /// Adds a question about the server's health to `/healthz`, `/livez` and `/readyz`.
    #[must_use]
    pub fn health_check(mut self, check: Arc<dyn HealthCheck>) -> Self {
        self.health.all.push(check);
        self
    }

    /// Adds a question to `/readyz` alone: whether the server should get requests.
    #[must_use]
    pub fn readiness_check(mut self, check: Arc<dyn HealthCheck>) -> Self {
        self.health.readiness.push(check);
        self
    }

    /// Sets where the server counts what it does, which is then told at `/metrics`. Default:
    /// nowhere.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sets what is noted of requests, and where. Default: nothing.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// Sets who decides when a request is worked on. Default: nobody, and all are at once.
    #[must_use]
    pub fn flow_control(mut self, flow: FlowControl) -> Self {
        self.flow = Some(flow);
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// The server. Reads and starts nothing.
    pub fn build(mut self) -> ApiServer {
        let environment = self.environment.take().unwrap_or_else(Environment::system);
        let ranges = &self.options.service_ranges;
        let services = Arc::new(ServiceAllocator::new(ranges, self.store.clone()));
        let service_cidrs = Arc::new(ServiceCidrs::new(&ranges.cluster_ips));
        self.install_built_in(services.clone(), &service_cidrs);
        let inner = Arc::new_cyclic(|own| {
            let mut admission = Vec::new();
            if self.default_admission {
                let client: Arc<dyn Client> = Arc::new(OwnClient(own.clone()));
                admission = crate::admission::defaults(&client, &environment);
            }
            admission.append(&mut self.admission);
            let outbound = outbound(self.outbound, self.in_process, own, &environment);
            let built_in = Catalog::built_in(self.options.api_versions);
            if let Some(metrics) = &self.metrics {
                let metered = MeteredStore::new(self.store, metrics.clone(), &built_in);
                self.store = Arc::new(metered);
            }
            Inner {
                customs: Customs::new(built_in.clone()),
                built_in,
                cache: Cache::new(self.store.clone(), environment.clone()),
                store: self.store,
                environment,
                authenticators: self.authenticators,
                authorizers: self.authorizers,
                admission,
                webhooks: Webhooks::default(),
                policies: Policies::default(),
                outbound,
                aggregated: Aggregated::default(),
                connector: self.connector,
                options: self.options,
                health: self.health,
                metrics: self.metrics,
                audit: self.audit,
                flow: self.flow,
                documents: self.documents,
                openapi: Mutex::new(None),
                frames: Frames::default(),
                services,
                service_cidrs,
                virtuals: self.virtuals,
                hooks: self.hooks,
                own: own.clone(),
            }
        });
        for late in self.late_clients {
            let own = Arc::downgrade(&inner);
            late.lead(move || own.upgrade().map(|inner| inner.own_client()));
        }
        ApiServer { inner }
    }

    /// What every server has. It stands behind what was added, which therefore wins.
    fn install_built_in(
        &mut self,
        services: Arc<ServiceAllocator>,
        service_cidrs: &Arc<ServiceCidrs>,
    ) {
        self.hooks.push(Installed { group: "", plural: "services", hook: services });
        for plural in ["servicecidrs", "ipaddresses"] {
            let (group, hook) = ("networking.k8s.io", service_cidrs.clone());
            self.hooks.push(Installed { group, plural, hook });
        }
        let requester = Arc::new(Requester);
        let (group, plural) = ("certificates.k8s.io", "certificatesigningrequests");
        self.hooks.push(Installed { group, plural, hook: requester });
        let (group, plural) = ("resource.k8s.io", "resourceslices");
        self.hooks.push(Installed { group, plural, hook: Arc::new(TaintTimes) });
        let (group, plural) = ("apiextensions.k8s.io", "customresourcedefinitions");
        self.hooks.push(Installed { group, plural, hook: Arc::new(SettleNames) });
        let (group, plural) = ("admissionregistration.k8s.io", "validatingadmissionpolicies");
        self.hooks.push(Installed { group, plural, hook: Arc::new(TypeCheck) });
        let mut add = |group, plural, subresource, answers: Arc<dyn VirtualResource>| {
            self.virtuals.push(Virtual { group, plural, subresource, answers });
        };
        add("", "pods", Some("eviction"), Arc::new(Eviction));
        if let Some(tokens) = &self.tokens {
            let issuer = Arc::new(TokenRequests::new(tokens.clone()));
            add("", "serviceaccounts", Some("token"), issuer);
        }
        let authorizer: Arc<dyn Authorizer> = match self.authorizers.as_slice() {
            [] => Arc::new(AlwaysAllow),
            all => Arc::new(Authorizers(all.to_vec())),
        };
        let reviews = TokenReviews {
            service_accounts: self.tokens.clone(),
            others: Arc::new(Authenticators(self.authenticators.clone())),
            api_audiences: self.tokens.as_ref().map_or_else(Vec::new, |t| t.audiences().to_vec()),
        };
        for ((group, plural), answers) in reviews::resources(&authorizer, reviews) {
            add(group, plural, None, answers);
        }
    }
}

/// How others are reached: in this process first, then as was chosen.
fn outbound(
    chosen: Option<Arc<dyn Outbound>>,
    in_process: Option<Arc<InProcess>>,
    own: &Weak<Inner>,
    environment: &Environment,
) -> Arc<dyn Outbound> {
    let otherwise = chosen.unwrap_or_else(|| {
        let client: Arc<dyn Client> = Arc::new(OwnClient(own.clone()));
        Arc::new(Https::new(client, environment.clone()))
    });
    match in_process {
        Some(own) => Arc::new(InProcessFirst { own, otherwise }),
        None => otherwise,
    }
}

impl Inner {
    /// A client with all rights, for what the server itself does.
    pub(crate) fn own_client(&self) -> Arc<dyn Client> {
        Arc::new(OwnClient(self.own.clone()))
    }

    /// This server, without keeping it alive.
    pub(crate) fn weak(&self) -> Weak<Self> {
        self.own.clone()
    }

    /// The work around a kind's storing.
    pub(crate) fn hook(&self, of: &ResourceType) -> Option<&Arc<dyn Hook>> {
        let same = |one: &&Installed| one.group == of.group && one.plural == of.plural;
        self.hooks.iter().find(same).map(|one| &one.hook)
    }

    pub(crate) fn virtual_resource(
        &self,
        group: &str,
        plural: &str,
        subresource: Option<&str>,
    ) -> Option<&Arc<dyn VirtualResource>> {
        let same = |one: &&Virtual| {
            one.group == group && one.plural == plural && one.subresource == subresource
        };
        self.virtuals.iter().find(same).map(|one| &one.answers)
    }
}

/// The subresources through which a POST changes the object itself.
pub(crate) fn action(
    group: &str,
    plural: &str,
    subresource: Option<&str>,
) -> Option<&'static dyn Action> {
    match (group, plural, subresource) {
        ("", "bindings", None) | ("", "pods", Some("binding")) => Some(&Binding),
        _ => None,
    }
}
