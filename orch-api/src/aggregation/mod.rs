//! API servers that this one stands before: what APIServices say, and the way there.
//!
//! Like definitions, APIServices are compiled from the watch cache when somebody asks and they have
//! changed. A group version that is built in is never somebody else's; one that a definition makes
//! may be, if an APIService with a Service says so.
//!
//! Source: `k8s.io/kube-aggregator/pkg/apiserver`.

mod availability;
mod discovery;
mod proxy;
mod register;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use orch_core::{ApiError, Object, ResourceType, Scope};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use proxy::serve;
pub(crate) use register::register_built_in;

use crate::{
    outbound::{Endpoint, Trust},
    server::Inner,
};

/// The resource of APIServices.
pub(crate) const API_SERVICES: ResourceType =
    ResourceType::new("apiregistration.k8s.io", "v1", "apiservices", "APIService", Scope::Cluster);

/// A group version that another server serves.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The name of the APIService.
    name: String,
    group: String,
    version: String,
    endpoint: Endpoint,
    /// Namespace, name and port of the Service.
    service: (String, String, u16),
    group_priority: i64,
    version_priority: i64,
    available: bool,
}

impl Remote {
    /// What an APIService says; `None` if the group version is served here.
    fn of(object: &Object) -> Option<Self> {
        let value = object.to_value();
        let spec = &value["spec"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let service = &spec["service"];
        let port = u16::try_from(service["port"].as_u64().unwrap_or(443)).ok()?;
        let (namespace, name) = (text(&service["namespace"])?, text(&service["name"])?);
        let trust = if spec["insecureSkipTLSVerify"] == true {
            Trust::Anybody
        } else {
            crate::outbound::trust_of(&spec["caBundle"])?
        };
        let conditions = value["status"]["conditions"].as_array().into_iter().flatten();
        let mut available = conditions.filter(|condition| condition["type"] == "Available");
        Some(Self {
            name: object.key().name,
            group: text(&spec["group"])?,
            version: text(&spec["version"])?,
            endpoint: Endpoint {
                front_proxy: true,
                ..Endpoint::service(&namespace, &name, port, trust)
            },
            service: (namespace, name, port),
            group_priority: spec["groupPriorityMinimum"].as_i64()?,
            version_priority: spec["versionPriority"].as_i64()?,
            available: available.next().is_some_and(|condition| condition["status"] == "True"),
        })
    }

    /// Where the group version is served.
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// What a server knows of those behind it.
#[derive(Debug, Default)]
pub(crate) struct Aggregated {
    compiled: Mutex<Compiled>,
    /// The APIServices that somebody sees to.
    watched: Mutex<HashSet<String>>,
    /// Something changed that may make a server available.
    changed: Notify,
    /// What the servers said they serve, for a while.
    discovered: Mutex<HashMap<String, discovery::Discovered>>,
}

#[derive(Debug, Default)]
struct Compiled {
    revision: Option<u64>,
    remotes: Arc<[Arc<Remote>]>,
}

impl Aggregated {
    /// Tells that a Service, its endpoints or an APIService were written.
    pub(crate) fn notice(&self, of: &ResourceType) {
        let concerns = matches!(&*of.plural, "services" | "endpointslices" | "apiservices");
        if concerns && !self.watched.lock().is_empty() {
            self.changed.notify_waiters();
        }
    }
}

impl Inner {
    /// The group versions that others serve, the most important first.
    pub(crate) async fn remotes(&self) -> Result<Arc<[Arc<Remote>]>, ApiError> {
        let resource = self.built_in.resource(&API_SERVICES).ok_or_else(ApiError::no_such_path)?;
        let collection = self.cache.collection(resource).await?;
        let remotes = {
            let mut compiled = self.aggregated.compiled.lock();
            let newer = collection.newer_than(compiled.revision);
            let (revision, objects) = newer.ok_or_else(crate::cache::reloading)?;
            if let Some(objects) = objects {
                let mut remotes: Vec<Arc<Remote>> =
                    objects.iter().filter_map(|one| Remote::of(one)).map(Arc::new).collect();
                remotes.retain(|one| !self.built_in.has_version(&one.group, &one.version));
                remotes.sort_by_key(|one| (-one.group_priority, -one.version_priority));
                *compiled = Compiled { revision: Some(revision), remotes: remotes.into() };
            }
            compiled.remotes.clone()
        };
        for remote in remotes.iter() {
            self.watch_over(&remote.name);
        }
        Ok(remotes)
    }

    /// Who else answers a path, if somebody does. Costs nothing for built-in resources.
    pub(crate) async fn remote_of(&self, path: &str) -> Result<Option<Arc<Remote>>, ApiError> {
        let below = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let mut parts = below.split('/').filter(|part| !part.is_empty());
        let (Some("apis"), Some(group), Some(version)) = (parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        if !group.contains('.') || self.built_in.has_version(group, version) {
            return Ok(None);
        }
        let remotes = self.remotes().await?;
        let same = |one: &&Arc<Remote>| one.group == group && one.version == version;
        Ok(remotes.iter().find(same).cloned())
    }
}
