//! Names of things in the API: resource types, object keys, targets of a call.

use std::{borrow::Cow, fmt};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};

/// Whether a resource's objects live in namespaces or beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Objects carry no namespace, like `Node`.
    Cluster,
    /// Every object lives in exactly one namespace, like `Pod`.
    Namespaced,
}

/// The scope of a `k8s-openapi` resource, as a value.
pub trait StaticScope {
    /// The scope.
    const SCOPE: Scope;
}

impl StaticScope for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}

impl StaticScope for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

/// One served resource: its group, version, plural, kind and scope.
///
/// The group of the core API is the empty string, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// API version, for example `v1`.
    pub version: Cow<'static, str>,
    /// Plural name used in paths, for example `pods`.
    pub plural: Cow<'static, str>,
    /// Kind, for example `Pod`.
    pub kind: Cow<'static, str>,
    /// Where objects live.
    pub scope: Scope,
}

impl ResourceType {
    /// The resource that a typed object belongs to.
    pub fn of<K>() -> Self
    where
        K: k8s_openapi::Resource,
        K::Scope: StaticScope,
    {
        Self::new(
            K::GROUP,
            K::VERSION,
            K::URL_PATH_SEGMENT,
            K::KIND,
            <K::Scope as StaticScope>::SCOPE,
        )
    }

    /// A resource named by static strings.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        scope: Scope,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            scope,
        }
    }

    /// `apiVersion` as objects of this resource carry it: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource and its group as upstream's messages name them: `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The path of the collection, in one namespace or (with `None`) across all of them.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let base = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(ns) => format!("{base}/namespaces/{ns}/{}", self.plural),
            None => format!("{base}/{}", self.plural),
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.group_resource())
    }
}

/// The name of one object among its kind: namespace (empty for cluster-scoped kinds) and name.
///
/// Written `namespace/name`, or `name` alone without a namespace, as client-go's
/// `cache.MetaNamespaceKeyFunc` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key of a namespaced object; an empty namespace means a cluster-scoped one.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// A key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// The key of an object by its metadata.
    pub fn of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// The namespace as calls take it: `None` for a cluster-scoped object.
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What a call to the API addresses: a collection, an object, or a subresource of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The resource.
    pub resource: ResourceType,
    /// The namespace; `None` for cluster-scoped resources and for calls across all namespaces.
    pub namespace: Option<String>,
    /// The object; `None` addresses the collection.
    pub name: Option<String>,
    /// The subresource, for example `status`.
    pub subresource: Option<Cow<'static, str>>,
}

impl Target {
    /// The collection of a resource, in one namespace or across all.
    pub fn collection(resource: ResourceType, namespace: Option<&str>) -> Self {
        Self { resource, namespace: namespace.map(Into::into), name: None, subresource: None }
    }

    /// One object.
    pub fn object(resource: ResourceType, namespace: Option<&str>, name: &str) -> Self {
        Self {
            resource,
            namespace: namespace.map(Into::into),
            name: Some(name.into()),
            subresource: None,
        }
    }

    /// The same object's subresource.
    #[must_use]
    pub fn subresource(mut self, subresource: impl Into<Cow<'static, str>>) -> Self {
        self.subresource = Some(subresource.into());
        self
    }

    /// The request path.
    pub fn path(&self) -> String {
        let mut path = self.resource.path(self.namespace.as_deref());
        for part in [self.name.as_deref(), self.subresource.as_deref()].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let deployments = ResourceType::of::<Deployment>();
        assert_eq!(deployments.group_resource(), "deployments.apps");
        let target = Target::object(deployments, Some("default"), "web").subresource("status");
        assert_eq!(target.path(), "/apis/apps/v1/namespaces/default/deployments/web/status");
        let nodes = Target::collection(ResourceType::of::<Node>(), None);
        assert_eq!(nodes.path(), "/api/v1/nodes");
    }

    #[test]
    fn keys_print_as_client_go_prints_them() {
        assert_eq!(Key::new("a", "b").to_string(), "a/b");
        assert_eq!(Key::cluster("b").to_string(), "b");
    }
}
