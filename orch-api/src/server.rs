//! The API server: its parts put together.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use orch_core::{Client, Environment, ResourceType};
use orch_store::Store;

use crate::{
    admission::{Admission, LateClient},
    auth::{Authenticator, Authorizer, UserInfo, access_control::AccessControl},
    cache::Cache,
    catalog::{ApiVersions, Catalog},
    connect::Connector,
    local::LocalClient,
    strategy::{Hook, Strategy, VirtualResource},
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
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) connector: Option<Arc<dyn Connector>>,
    pub(crate) options: ServerOptions,
    /// What is served at paths that are no resources, besides the server's own.
    pub(crate) documents: Vec<(&'static str, serde_json::Value)>,
    virtuals: Vec<Virtual>,
    own: Weak<Inner>,
}

struct Virtual {
    group: &'static str,
    plural: &'static str,
    subresource: Option<&'static str>,
    answers: Arc<dyn VirtualResource>,
}

/// What can be chosen about a server besides its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Which API versions are served. Default: the stable ones.
    pub api_versions: ApiVersions,
    /// The address and port under which clients reach the server, as discovery tells it. Default:
    /// `127.0.0.1:6443`.
    pub advertise: String,
    /// The largest request body that is taken, in bytes. Default: 3 MiB.
    pub body_bytes_max: usize,
    /// The answer to `/version`'s `gitVersion`. Default: `v1.36.2+orch`.
    pub git_version: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            api_versions: ApiVersions::Stable,
            advertise: "127.0.0.1:6443".into(),
            body_bytes_max: 3 << 20,
            git_version: "v1.36.2+orch".into(),
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
    connector: Option<Arc<dyn Connector>>,
    options: ServerOptions,
    documents: Vec<(&'static str, serde_json::Value)>,
    virtuals: Vec<Virtual>,
    late_clients: Vec<Arc<LateClient>>,
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
            connector: None,
            options: ServerOptions::default(),
            documents: Vec::new(),
            virtuals: Vec::new(),
            late_clients: Vec::new(),
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

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// The server. Reads and starts nothing.
    pub fn build(self) -> ApiServer {
        let environment = self.environment.unwrap_or_else(Environment::system);
        let inner = Arc::new_cyclic(|own| Inner {
            cache: Cache::new(self.store.clone(), environment.clone()),
            catalog: Catalog::built_in(self.options.api_versions),
            store: self.store,
            environment,
            authenticators: self.authenticators,
            authorizers: self.authorizers,
            admission: self.admission,
            connector: self.connector,
            options: self.options,
            documents: self.documents,
            virtuals: self.virtuals,
            own: own.clone(),
        });
        for late in self.late_clients {
            let own = Arc::downgrade(&inner);
            late.lead(move || own.upgrade().map(|inner| inner.own_client()));
        }
        ApiServer { inner }
    }
}

impl Inner {
    /// A client with all rights, for what the server itself does.
    pub(crate) fn own_client(&self) -> Arc<dyn Client> {
        let own = self.own.upgrade().expect("a server that is called is alive");
        Arc::new(LocalClient::new(own, UserInfo::master("system:apiserver")))
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

/// The behaviour of a kind.
pub(crate) fn strategy(of: &ResourceType) -> &'static dyn Strategy {
    crate::kinds::strategy(&of.group, &of.plural)
}

/// The work around a kind's storing.
pub(crate) fn hook(_of: &ResourceType) -> Option<&'static dyn Hook> {
    None
}
