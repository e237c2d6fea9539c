//! The webhooks as they are configured now.
//!
//! Like custom resources they are compiled from the watch cache when somebody asks and they have
//! changed. Without any, a write pays two looks at a revision.

use std::{sync::Arc, time::Duration};

use orch_core::{ApiError, Object, ResourceType, Scope};
use parking_lot::Mutex;
use serde_json::Value;

use super::super::{
    matching::{Rule, Selectors},
    policy::{conditions::Conditions, expression::Uses},
};
use crate::{cache::Collection, outbound::Endpoint, server::Inner};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: ResourceType = ResourceType::new(
    GROUP,
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    Scope::Cluster,
);
const VALIDATING: ResourceType = ResourceType::new(
    GROUP,
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    Scope::Cluster,
);

/// A webhook, ready to be asked.
#[derive(Debug)]
pub(super) struct Hook {
    /// Who it is, among all: the configuration's name, its own, and which of that name it is.
    pub(super) uid: String,
    pub(super) configuration: String,
    pub(super) name: String,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) rules: Vec<Rule>,
    pub(super) selectors: Selectors,
    /// Other versions of a resource count as the one that a rule names.
    pub(super) equivalent: bool,
    /// A webhook that cannot be asked is passed over.
    pub(super) ignores_failures: bool,
    pub(super) timeout: Duration,
    /// It does nothing besides answering, or does not in a dry run.
    pub(super) dry_runs: bool,
    /// The first version of reviews that both sides know.
    pub(super) review: Option<&'static str>,
    /// It may be asked again after others changed the object.
    pub(super) reinvoked: bool,
    pub(super) conditions: Conditions,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn conditions(list: &Value) -> Conditions {
    if list.is_null() {
        return Conditions::default();
    }
    let uses = Uses { authorizer: true, ..Uses::default() };
    Conditions::of(&uses.environment(), list)
}

impl Hook {
    fn of(configuration: &str, index: usize, hook: &Value) -> Self {
        let name = text(hook, "name").to_owned();
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        let reviews = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10);
        Self {
            uid: format!("{configuration}/{name}/{index}"),
            configuration: configuration.to_owned(),
            name,
            endpoint: Endpoint::of_client_config(&hook["clientConfig"]),
            rules: Rule::list(&hook["rules"]),
            selectors: Selectors::of(hook),
            equivalent: text(hook, "matchPolicy") == "Equivalent",
            ignores_failures: text(hook, "failurePolicy") == "Ignore",
            timeout: Duration::from_secs(seconds),
            dry_runs: matches!(text(hook, "sideEffects"), "None" | "NoneOnDryRun"),
            review: reviews.into_iter().find_map(known),
            reinvoked: text(hook, "reinvocationPolicy") == "IfNeeded",
            conditions: conditions(&hook["matchConditions"]),
        }
    }
}

/// The webhooks of both kinds, as of a revision of their configurations.
#[derive(Default)]
pub(crate) struct Webhooks {
    mutating: Mutex<Compiled>,
    validating: Mutex<Compiled>,
}

#[derive(Default)]
struct Compiled {
    /// Where the configurations are, so that nobody looks for them once they are known.
    collection: Option<Arc<Collection>>,
    revision: Option<u64>,
    hooks: Arc<[Hook]>,
}

/// Every webhook of all configurations, which come ordered by name.
fn compile(objects: &[Arc<Object>]) -> Arc<[Hook]> {
    let mut hooks = Vec::new();
    for object in objects {
        let (name, value) = (object.key().name, object.to_value());
        let list = value["webhooks"].as_array().into_iter().flatten();
        hooks.extend(list.enumerate().map(|(index, hook)| Hook::of(&name, index, hook)));
    }
    hooks.into()
}

impl Inner {
    async fn compiled(
        &self,
        of: &ResourceType,
        kept: &Mutex<Compiled>,
    ) -> Result<Arc<[Hook]>, ApiError> {
        {
            let kept = kept.lock();
            if kept.collection.as_ref().is_some_and(|of| of.is_at(kept.revision)) {
                return Ok(kept.hooks.clone());
            }
        }
        let Some(resource) = self.built_in.resource(of) else { return Ok(Arc::default()) };
        let collection = self.cache.collection(resource).await?;
        let mut kept = kept.lock();
        let newer = collection.newer_than(kept.revision).ok_or_else(crate::cache::reloading)?;
        if let (revision, Some(objects)) = newer {
            kept.hooks = compile(&objects);
            kept.revision = Some(revision);
        }
        kept.collection = Some(collection);
        Ok(kept.hooks.clone())
    }

    /// The mutating webhooks, in the order in which they are asked.
    pub(super) async fn mutating_webhooks(&self) -> Result<Arc<[Hook]>, ApiError> {
        self.compiled(&MUTATING, &self.webhooks.mutating).await
    }

    /// The validating webhooks.
    pub(super) async fn validating_webhooks(&self) -> Result<Arc<[Hook]>, ApiError> {
        self.compiled(&VALIDATING, &self.webhooks.validating).await
    }
}
