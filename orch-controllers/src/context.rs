//! What the standard controllers are built from.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::{
    Resource, api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{
    Environment, Key, Resources,
    informer::{Informer, Informers, Watchable},
};

use crate::controller::{Controller, ControllerBuilder};

/// Whether an event tells of the normal course or of something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

/// The shared informers, and in whose name a controller works. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    informers: Informers,
    name: &'static str,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name)
    }
}

impl Context {
    /// A context for the controller of this name, which its events carry.
    pub fn new(informers: &Informers, name: &'static str) -> Self {
        Self { informers: informers.clone(), name }
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
        message: impl fmt::Display,
    ) {
        let meta = about.metadata();
        let reference = ObjectReference {
            api_version: Some(<K as Resource>::API_VERSION.to_owned()),
            kind: Some(K::KIND.to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        };
        self.event_about(&reference, kind, reason, message);
    }

    pub(crate) fn event_about(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl fmt::Display,
    ) {
        let key = Key::new(
            about.namespace.clone().unwrap_or_default(),
            about.name.clone().unwrap_or_default(),
        );
        tracing::debug!(controller = self.name, ?kind, %key, reason, %message, "event");
    }
}
