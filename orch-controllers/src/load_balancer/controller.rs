//! The controller that keeps the load balancers of Services.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Node, Service};
use orch_core::{
    ClientError, Key,
    client::PatchKind,
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    BalancerError, FINALIZER, LoadBalancer,
    changes::{
        has_finalizer, identity, is_target, needs_cleanup, needs_update, node_concerns, wants,
    },
};
use crate::{
    Action, Controller, Reconciler, Runnable, WorkQueue,
    context::{Context, EventType},
    queue::RateLimits,
    reconciler::{ReconcileError, Reconciled},
};

const NAME: &str = "service-lb-controller";
/// How many nodes the message of an event names.
const NODES_NAMED_MAX: usize = 20;

/// Which Services a controller sees to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Those of this `spec.loadBalancerClass`. Default none: those that name no class.
    pub class: Option<String>,
    /// How long a Service that failed waits at first; twice that each further time. Default 5 s.
    pub retry_delay: Duration,
    /// How long it waits at most. Default 300 s.
    pub retry_delay_max: Duration,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            class: None,
            retry_delay: Duration::from_secs(5),
            retry_delay_max: Duration::from_secs(300),
        }
    }
}

/// The controller that gives Services of type `LoadBalancer` what balances their load, tells it of
/// the nodes there are, and lets no such Service go before it is removed.
pub fn service_load_balancer(
    informers: &Informers,
    options: ServiceOptions,
    balancer: Arc<dyn LoadBalancer>,
) -> Runnable {
    let limits = RateLimits {
        base_delay: options.retry_delay,
        max_delay: options.retry_delay_max,
        per_second: None,
        ..RateLimits::default()
    };
    let context = Context::reporting(informers, NAME, "service-controller");
    let class = options.class;
    let balancers = Arc::new(Balancers {
        services: context.informer(),
        nodes: context.informer(),
        context,
        class: class.clone(),
        balancer,
        known: Mutex::default(),
    });
    let services = Controller::limited(NAME, informers, limits, None)
        .watches::<Service>(move |change| {
            let service = change.object();
            let concerns = match change {
                Change::Updated { old, new } => needs_update(old, new, class.as_deref()),
                _ => wants(service, class.as_deref()),
            };
            if concerns || needs_cleanup(service) {
                vec![Key::of(&service.metadata)]
            } else {
                Vec::new()
            }
        })
        .reads::<Node>();
    let queue = services.queue().clone();
    let services = services.build(OfServices(balancers.clone()));
    let nodes = Controller::limited(NAME, informers, limits, None)
        .watches_own_if::<Node>(|change| match change {
            Change::Updated { old, new } => node_concerns(old, new),
            _ => true,
        })
        .reads::<Service>()
        .workers(1)
        .build(OfNodes { balancers, queue });
    Runnable::new(NAME, move |stop| async move {
        tokio::join!(services.run(stop.clone()), nodes.run(stop));
    })
}

/// A Service whose load balancer this process has seen to.
#[derive(Clone)]
struct Known {
    service: Arc<Service>,
    /// The nodes that its load balancer was told of.
    nodes: Vec<(String, String)>,
}

struct Balancers {
    context: Context,
    class: Option<String>,
    balancer: Arc<dyn LoadBalancer>,
    services: Informer<Service>,
    nodes: Informer<Node>,
    known: Mutex<BTreeMap<Key, Known>>,
}

/// What was done for a Service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Ensured,
    Removed,
}

/// Why a Service is not as it should be: what its event says, and when it is looked at again if not
/// with back-off.
struct Failed {
    message: String,
    after: Option<Duration>,
}

impl Failed {
    fn of(what: &str, error: &dyn std::error::Error) -> Self {
        Self { message: format!("{what}: {error}"), after: None }
    }
}

struct OfServices(Arc<Balancers>);

#[async_trait]
impl Reconciler for OfServices {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(service) = self.0.services.get(&key) else { return self.0.gone(&key).await };
        let before = self.0.known.lock().get(&key).cloned();
        let nodes = match before {
            Some(before) if before.service.metadata.uid != service.metadata.uid => {
                self.0.remove_gone(&before.service).await?;
                Vec::new()
            }
            before => before.map(|known| known.nodes).unwrap_or_default(),
        };
        // Kept whatever comes of it: a Service that goes without its finalizer is cleaned up after.
        let known = Known { service: service.clone(), nodes };
        self.0.known.lock().insert(key.clone(), known);
        match self.0.sync(&key, &service).await {
            Ok(Done::Ensured) => Ok(Action::Done),
            Ok(Done::Removed) => {
                self.0.known.lock().remove(&key);
                Ok(Action::Done)
            }
            Err(Failed { message, after }) => {
                let told = format!("Error syncing load balancer: {message}");
                self.0.event(&service, EventType::Warning, "SyncLoadBalancerFailed", told);
                match after {
                    Some(after) => Ok(Action::RequeueAfter(after)),
                    None => Err(ReconcileError::message(message)),
                }
            }
        }
    }
}

impl Balancers {
    fn event(&self, service: &Service, kind: EventType, reason: &str, text: impl Into<String>) {
        self.context.event(service, kind, reason, text);
    }

    fn targets(&self) -> Vec<Arc<Node>> {
        let mut nodes = self.nodes.list();
        nodes.retain(|node| is_target(node));
        nodes
    }

    fn note_nodes(&self, key: &Key, nodes: &[Arc<Node>]) -> Vec<(String, String)> {
        let told: Vec<_> = nodes.iter().map(|node| identity(node)).collect();
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(key) else { return told };
        std::mem::replace(&mut known.nodes, told)
    }

    async fn sync(&self, key: &Key, service: &Service) -> Result<Done, Failed> {
        let (done, status) = if !wants(service, self.class.as_deref()) || needs_cleanup(service) {
            self.remove(service).await?;
            (Done::Removed, LoadBalancerStatus::default())
        } else {
            match self.ensure(key, service).await? {
                Some(status) => (Done::Ensured, status),
                None => return Ok(Done::Ensured),
            }
        };
        match self.write_status(service, &status).await {
            Err(error) if !error.is_not_found() => {
                Err(Failed::of("failed to update load balancer status", &error))
            }
            _ => Ok(done),
        }
    }

    async fn remove(&self, service: &Service) -> Result<(), Failed> {
        let found = self.balancer.find(service).await;
        let what = "failed to check if load balancer exists before cleanup";
        if found.map_err(|error| Failed::of(what, &error))?.is_some() {
            let text = "Deleting load balancer";
            self.event(service, EventType::Normal, "DeletingLoadBalancer", text);
            match self.balancer.remove(service).await {
                Ok(()) | Err(BalancerError::ImplementedElsewhere) => {}
                Err(error) => return Err(Failed::of("failed to delete load balancer", &error)),
            }
        }
        if has_finalizer(service) {
            let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            let what = "failed to remove load balancer cleanup finalizer";
            let patched = self.patch_metadata(service, patch).await;
            patched.map_err(|error| Failed::of(what, &error))?;
        }
        let text = "Deleted load balancer";
        self.event(service, EventType::Normal, "DeletedLoadBalancer", text);
        Ok(())
    }

    /// Gives the status that the Service is to have; `None` if somebody else writes it.
    async fn ensure(
        &self,
        key: &Key,
        service: &Service,
    ) -> Result<Option<LoadBalancerStatus>, Failed> {
        let text = "Ensuring load balancer";
        self.event(service, EventType::Normal, "EnsuringLoadBalancer", text);
        if !has_finalizer(service) {
            let patch = json!({"metadata": {"finalizers": [FINALIZER]}});
            let what = "failed to add load balancer cleanup finalizer";
            let patched = self.patch_metadata(service, patch).await;
            patched.map_err(|error| Failed::of(what, &error))?;
        }
        let nodes = self.targets();
        if nodes.is_empty() {
            self.event_without_nodes(service);
        }
        self.note_nodes(key, &nodes);
        match self.balancer.ensure(service, &nodes).await {
            Ok(status) => {
                let text = "Ensured load balancer";
                self.event(service, EventType::Normal, "EnsuredLoadBalancer", text);
                Ok(Some(status))
            }
            Err(BalancerError::ImplementedElsewhere) => Ok(None),
            Err(error) => {
                let after = match &error {
                    BalancerError::NotYet { after, .. } => Some(*after),
                    _ => None,
                };
                Err(Failed { after, ..Failed::of("failed to ensure load balancer", &error) })
            }
        }
    }

    fn event_without_nodes(&self, service: &Service) {
        let text = "There are no available nodes for LoadBalancer";
        self.event(service, EventType::Warning, "UnAvailableLoadBalancer", text);
    }

    /// A Service that is gone already: its finalizer was taken off by somebody else.
    async fn gone(&self, key: &Key) -> Reconciled {
        let known = self.known.lock().get(key).cloned();
        if let Some(known) = known {
            self.remove_gone(&known.service).await?;
            self.known.lock().remove(key);
        }
        Ok(Action::Done)
    }

    async fn remove_gone(&self, service: &Service) -> Result<(), ReconcileError> {
        if !wants(service, self.class.as_deref()) {
            return Ok(());
        }
        let text = "Deleting load balancer";
        self.event(service, EventType::Normal, "DeletingLoadBalancer", text);
        if let Err(error) = self.balancer.remove(service).await {
            let text = format!("Error deleting load balancer: {error}");
            self.event(service, EventType::Warning, "DeleteLoadBalancerFailed", text);
            return Err(ReconcileError::message(error));
        }
        let text = "Deleted load balancer";
        self.event(service, EventType::Normal, "DeletedLoadBalancer", text);
        Ok(())
    }

    async fn patch_metadata(&self, service: &Service, mut patch: Value) -> Result<(), ClientError> {
        patch["metadata"]["uid"] = json!(service.metadata.uid);
        let key = Key::of(&service.metadata);
        let services = self.context.resources::<Service>(&key.namespace);
        services.patch(&key.name, PatchKind::Strategic, patch).await.map(drop)
    }

    async fn write_status(
        &self,
        service: &Service,
        wanted: &LoadBalancerStatus,
    ) -> Result<(), ClientError> {
        let before = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let before = before.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        if before == wanted.ingress.as_deref().unwrap_or_default() {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": service.metadata.uid},
            "status": {"loadBalancer": {"ingress": wanted.ingress}},
        });
        let key = Key::of(&service.metadata);
        let services = self.context.resources::<Service>(&key.namespace);
        services.patch_status(&key.name, PatchKind::Merge, patch).await.map(drop)
    }

    /// Tells a load balancer of the nodes there are, if they are others than before. Whether that
    /// succeeded.
    async fn update_nodes(&self, key: &Key, service: &Service) -> bool {
        if !wants(service, self.class.as_deref()) {
            return true;
        }
        let nodes = self.targets();
        let before = self.note_nodes(key, &nodes);
        if before.iter().eq(nodes.iter().map(|node| identity(node)).collect::<Vec<_>>().iter()) {
            return true;
        }
        match self.balancer.update(service, &nodes).await {
            Ok(()) if nodes.is_empty() => self.event_without_nodes(service),
            Ok(()) => {
                let text = "Updated load balancer with new hosts";
                self.event(service, EventType::Normal, "UpdatedLoadBalancer", text);
            }
            Err(BalancerError::ImplementedElsewhere) => {}
            Err(error) => return self.update_failed(service, &nodes, &error).await,
        }
        true
    }

    /// It is a failure only if there is a load balancer.
    async fn update_failed(
        &self,
        service: &Service,
        nodes: &[Arc<Node>],
        error: &BalancerError,
    ) -> bool {
        if let Ok(None) = self.balancer.find(service).await {
            return true;
        }
        let mut names: Vec<String> =
            nodes.iter().take(NODES_NAMED_MAX).map(|node| identity(node).0).collect();
        names.sort();
        if nodes.len() > NODES_NAMED_MAX {
            names.push(format!("<{} more>", nodes.len() - NODES_NAMED_MAX));
        }
        let text = format!(
            "Error updating load balancer with new hosts [{}] [node names limited, total number \
             of nodes: {}], error: {error}",
            names.join(" "),
            nodes.len()
        );
        self.event(service, EventType::Warning, "UpdateLoadBalancerFailed", text);
        false
    }
}

/// Nodes come and go: every load balancer is told, one change at a time.
struct OfNodes {
    balancers: Arc<Balancers>,
    queue: WorkQueue,
}

#[async_trait]
impl Reconciler for OfNodes {
    async fn reconcile(&self, _node: Key) -> Reconciled {
        let known: Vec<(Key, Arc<Service>)> = {
            let known = self.balancers.known.lock();
            known.iter().map(|(key, known)| (key.clone(), known.service.clone())).collect()
        };
        for (key, service) in known {
            if !self.balancers.update_nodes(&key, &service).await {
                self.queue.add(key);
            }
        }
        Ok(Action::Done)
    }
}
