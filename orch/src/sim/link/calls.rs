//! Which calls are meant.

use kube::Resource;
use orch_core::testing::{Call, Verb};

/// A description of calls: what they ask for, of which resource, which object. What is not said
/// does not matter.
///
/// ```
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use orch::testing::Calls;
///
/// let _any_write = Calls::writes();
/// let _this_update = Calls::updates().of::<ConfigMap>().in_namespace("default").named("settings");
/// let _status = Calls::patches().of_resource("example.com", "widgets").subresource("status");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    verbs: Option<Vec<Verb>>,
    resource: Option<(String, String)>,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Calls {
    /// Every call.
    pub fn all() -> Self {
        Self::default()
    }

    /// Calls with one of these verbs.
    pub fn with_verbs(verbs: impl IntoIterator<Item = Verb>) -> Self {
        Self { verbs: Some(verbs.into_iter().collect()), ..Self::default() }
    }

    /// What changes nothing, watches included.
    pub fn reads() -> Self {
        Self::with_verbs([Verb::Get, Verb::List, Verb::Watch])
    }

    /// What changes something.
    pub fn writes() -> Self {
        Self::with_verbs([
            Verb::Create,
            Verb::Update,
            Verb::Patch,
            Verb::Delete,
            Verb::DeleteCollection,
        ])
    }

    /// Reads of single objects.
    pub fn gets() -> Self {
        Self::with_verbs([Verb::Get])
    }

    /// Reads of collections.
    pub fn lists() -> Self {
        Self::with_verbs([Verb::List])
    }

    /// Watches.
    pub fn watches() -> Self {
        Self::with_verbs([Verb::Watch])
    }

    /// Creations.
    pub fn creates() -> Self {
        Self::with_verbs([Verb::Create])
    }

    /// Replacements of whole objects.
    pub fn updates() -> Self {
        Self::with_verbs([Verb::Update])
    }

    /// Patches of whatever kind, server-side apply among them.
    pub fn patches() -> Self {
        Self::with_verbs([Verb::Patch])
    }

    /// Deletions of single objects.
    pub fn deletes() -> Self {
        Self::with_verbs([Verb::Delete])
    }

    /// Only those of this kind.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(self) -> Self {
        self.of_resource(K::group(&()), K::plural(&()))
    }

    /// Only those of the resource with this group and plural name. The core group is empty.
    #[must_use]
    pub fn of_resource(mut self, group: impl Into<String>, plural: impl Into<String>) -> Self {
        self.resource = Some((group.into(), plural.into()));
        self
    }

    /// Only those of this subresource; the empty one is the object itself.
    #[must_use]
    pub fn subresource(mut self, name: impl Into<String>) -> Self {
        self.subresource = Some(name.into());
        self
    }

    /// Only those in this namespace. What is about all namespaces is in none.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only those of the object with this name. What is created under a generated name has none.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether this call is meant.
    pub fn includes(&self, call: &Call<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.verbs.as_ref().is_none_or(|verbs| verbs.contains(&call.verb))
            && self
                .resource
                .as_ref()
                .is_none_or(|(group, plural)| *group == call.group && *plural == call.resource)
            && is(&self.subresource, &call.subresource)
            && is(&self.namespace, &call.namespace)
            && is(&self.name, &call.name)
    }

    /// Whether this watch is meant, whatever the verbs.
    pub(super) fn includes_watch(&self, call: &Call<'_>) -> bool {
        let here = |wanted: &Option<String>, found: &str| {
            // A watch of everything tells of what is asked for, too.
            wanted.as_deref().is_none_or(|wanted| found.is_empty() || wanted == found)
        };
        self.resource
            .as_ref()
            .is_none_or(|(group, plural)| *group == call.group && *plural == call.resource)
            && here(&self.namespace, &call.namespace)
            && here(&self.name, &call.name)
    }
}
