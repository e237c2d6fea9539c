//! What the standard controllers are built from.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
pub(crate) use orch_core::event::EventType;
use orch_core::{
    Client, Environment, Resources,
    event::{EventRecorder, Reporter, reference_to},
    informer::{Informer, Informers, Watchable},
};

use crate::controller::{Controller, ControllerBuilder};

/// The shared informers, and in whose name a controller works. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    informers: Informers,
    name: &'static str,
    events: EventRecorder,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name)
    }
}

impl Context {
    /// A context for the controller of this name, which its events carry. Call it inside a tokio
    /// runtime.
    pub(crate) fn new(informers: &Informers, name: &'static str) -> Self {
        Self::reporting(informers, name, name)
    }

    /// The same for a controller whose events carry another name than its own.
    pub(crate) fn reporting(
        informers: &Informers,
        name: &'static str,
        component: &'static str,
    ) -> Self {
        let events = EventRecorder::start(
            informers.client().clone(),
            informers.environment().clone(),
            Reporter::new(component),
        );
        Self { informers: informers.clone(), name, events }
    }

    pub(crate) fn client(&self) -> &Arc<dyn Client> {
        self.informers.client()
    }

    pub(crate) fn builder(&self) -> ControllerBuilder {
        Controller::builder(self.name, &self.informers)
    }

    pub(crate) fn informer<K: Watchable>(&self) -> Informer<K> {
        self.informers.of()
    }

    pub(crate) fn resources<K: Watchable>(&self, namespace: &str) -> Resources<K> {
        Resources::namespaced(self.informers.client().clone(), namespace)
    }

    pub(crate) fn environment(&self) -> &Environment {
        self.informers.environment()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.environment().clock.now()
    }

    /// The time as objects carry it, in whole seconds.
    pub(crate) fn time(&self) -> Time {
        Time(orch_core::clock::to_seconds(self.now()))
    }

    pub(crate) fn event<K: Watchable>(
        &self,
        about: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event_about(&reference_to(about), kind, reason, message);
    }

    pub(crate) fn event_about(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.events.record(about, kind, reason, reason, message);
    }
}
