//! Feeds a proxy from the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{ObjectReference, Service},
    discovery::v1::EndpointSlice,
};
use orch_core::{
    Environment, Key,
    event::{EventRecorder, Reporter, reference_to},
    informer::{Informer, Informers},
};
use tokio_util::sync::CancellationToken;

use super::{Changes, PortFailure, PortName, PortRules, ServiceProxy, compile};
use crate::{backends, changed_keys::ChangedKeys};

/// How a [`ProxyController`] behaves.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// The node that the proxy works on, for the `Local` traffic policies and for events.
    /// Default: empty, which is no node.
    pub node_name: String,
    /// The shortest time between two changes of the rules; what happens meanwhile becomes one
    /// change. Default: none, each is applied at once.
    pub sync_period_min: Option<Duration>,
    /// When what failed is tried again. Default: 5 s.
    pub retry_period: Duration,
    /// Whether the rules stay in force when the controller is cancelled, so that a restart does
    /// not interrupt the services. Default: no, the proxy is stopped with it.
    pub keep_rules: bool,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        let retry_period = Duration::from_secs(5);
        Self { node_name: String::new(), sync_period_min: None, retry_period, keep_rules: false }
    }
}

/// What the proxy knows.
#[derive(Debug, Default)]
struct Told {
    rules: BTreeMap<Key, BTreeMap<PortName, PortRules>>,
    /// Told, but not served, or who knows: they are told again.
    uncertain: BTreeSet<PortName>,
    /// Not served, and why: said once.
    failed: BTreeMap<PortName, String>,
}

fn service_key(port: &PortName) -> Key {
    Key::new(port.namespace.clone(), port.service.clone())
}

/// Watches services and their endpoints, and tells a proxy what has changed: work in proportion to
/// the change.
///
/// A port that cannot be served becomes a warning event on its service, and is tried again.
///
/// Source: `pkg/proxy/servicechangetracker.go`, `endpointschangetracker.go`.
#[derive(Debug)]
pub struct ProxyController {
    proxy: Arc<dyn ServiceProxy>,
    options: ProxyOptions,
    environment: Environment,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    events: EventRecorder,
    changed: Arc<ChangedKeys>,
}

impl ProxyController {
    /// A controller that reads through `informers`. Call it inside a tokio runtime.
    pub fn new(informers: &Informers, proxy: Arc<dyn ServiceProxy>, options: ProxyOptions) -> Self {
        let environment = informers.environment().clone();
        let mut reporter = Reporter::new("kube-proxy");
        reporter.host.clone_from(&options.node_name);
        let events =
            EventRecorder::start(informers.client().clone(), environment.clone(), reporter);
        let (services, slices) = (informers.of::<Service>(), backends::slices(informers));
        Self { proxy, options, environment, services, slices, events, changed: Arc::default() }
    }

    /// Works until it is cancelled, and then stops the proxy, unless the rules are to be kept.
    pub async fn run(self, cancel: CancellationToken) {
        let work = async {
            // Nothing is told before everything is known: a proxy that is restarted must not
            // pass through an empty state.
            tokio::join!(self.services.synced(), self.slices.synced());
            self.follow();
            self.work().await;
        };
        cancel.run_until_cancelled(work).await;
        if !self.options.keep_rules
            && let Err(error) = self.proxy.stop().await
        {
            tracing::warn!(%error, "the service rules could not be removed");
        }
    }

    fn follow(&self) {
        // Weak, because the informers outlive this controller.
        let changed = Arc::downgrade(&self.changed);
        self.services.on_change(move |change| {
            if let Some(changed) = changed.upgrade() {
                changed.mark(Key::of(&change.object().metadata));
            }
        });
        let changed = Arc::downgrade(&self.changed);
        self.slices.on_change(move |change| {
            let service = backends::service_of(change.object());
            if let Some((changed, service)) = changed.upgrade().zip(service) {
                changed.mark(service);
            }
        });
    }

    async fn work(&self) {
        let mut told = Told::default();
        loop {
            if told.uncertain.is_empty() {
                self.changed.changed().await;
            } else {
                tokio::select! {
                    () = self.changed.changed() => {}
                    () = self.environment.clock.sleep(self.options.retry_period) => {}
                }
            }
            let mut keys = self.changed.take();
            keys.extend(told.uncertain.iter().map(service_key));
            self.sync(keys, &mut told).await;
            if let Some(period) = self.options.sync_period_min {
                self.environment.clock.sleep(period).await;
            }
        }
    }

    /// Applies what has changed about these services.
    async fn sync(&self, keys: BTreeSet<Key>, told: &mut Told) {
        let mut changes = Changes::default();
        let mut desired = BTreeMap::new();
        for key in &keys {
            let rules = self.rules(key);
            let before = told.rules.get(key);
            let uncertain = told.uncertain.iter().filter(|name| service_key(name) == *key);
            let known = before.into_iter().flatten().map(|(name, _)| name).chain(uncertain);
            let gone = known.filter(|name| !rules.contains_key(*name));
            changes.ports.extend(gone.map(|name| (name.clone(), None)));
            let changed = rules.iter().filter(|(name, rules)| {
                let same = before.and_then(|before| before.get(*name)) == Some(*rules);
                !same || told.uncertain.contains(*name)
            });
            let changed = changed.map(|(name, rules)| (name.clone(), Some(rules.clone())));
            changes.ports.extend(changed);
            desired.insert(key.clone(), rules);
        }
        if changes.ports.is_empty() {
            return;
        }
        let names: BTreeSet<PortName> = changes.ports.keys().cloned().collect();
        // Whatever comes of it, even if this is dropped half-way, it is told again until it is
        // known to be in force.
        told.uncertain.extend(names.iter().cloned());
        match self.proxy.apply(changes).await {
            Ok(failures) => {
                told.rules.extend(desired);
                told.rules.retain(|_, rules| !rules.is_empty());
                told.uncertain.retain(|name| !names.contains(name));
                let fails = |name: &PortName| failures.iter().any(|failure| failure.port == *name);
                told.failed.retain(|name, _| !names.contains(name) || fails(name));
                for PortFailure { port, reason } in failures {
                    // A failure that goes on is tried again in silence.
                    if told.failed.insert(port.clone(), reason.clone()).as_ref() != Some(&reason) {
                        self.report(&port, reason);
                    }
                    told.uncertain.insert(port);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "service rules could not be applied, trying again later");
            }
        }
    }

    fn report(&self, port: &PortName, reason: String) {
        tracing::warn!(%port, reason, "a port is not served");
        let about = self.reference(&service_key(port));
        self.events.warning(&about, "FailedToServePort", reason);
    }

    fn rules(&self, key: &Key) -> BTreeMap<PortName, PortRules> {
        let Some(service) = self.services.get(key) else { return BTreeMap::new() };
        let slices = backends::slices_of(&self.slices, key);
        compile::rules(&service, &slices, &self.options.node_name)
    }

    fn reference(&self, key: &Key) -> ObjectReference {
        match self.services.get(key) {
            Some(service) => reference_to(&*service),
            None => ObjectReference {
                kind: Some("Service".into()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..ObjectReference::default()
            },
        }
    }
}
