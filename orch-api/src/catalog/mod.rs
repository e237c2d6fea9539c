//! Which resources the server knows: every built-in one of Kubernetes 1.36, and how it is stored.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use orch_core::{ResourceType, Scope};

mod discovery;
mod table;

pub(crate) use discovery::Discovery;

use crate::{custom::CustomVersion, openapi::Endpoint, strategy::Strategy};

/// Which of upstream's API versions a server serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ApiVersions {
    /// The stable ones (`v1`, `v2`), as upstream does by default.
    #[default]
    Stable,
    /// Alpha and beta ones too, as with upstream's `--runtime-config=api/all=true`.
    All,
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verbs(u8);

/// Letter in the table, name in discovery; in the order in which discovery lists them.
const VERBS: [(char, &str); 8] = [
    ('c', "create"),
    ('d', "delete"),
    ('D', "deletecollection"),
    ('g', "get"),
    ('l', "list"),
    ('p', "patch"),
    ('u', "update"),
    ('w', "watch"),
];

impl Verbs {
    /// Every verb.
    pub(crate) fn all() -> Self {
        Self(u8::MAX)
    }

    /// The verbs of these letters.
    ///
    /// # Panics
    /// On a letter that stands for none.
    pub(crate) fn of(letters: &str) -> Self {
        let bit = |letter| VERBS.iter().position(|(l, _)| *l == letter).expect("a known verb");
        Self(letters.chars().fold(0, |set, letter| set | 1 << bit(letter)))
    }

    pub(crate) fn has(self, verb: &str) -> bool {
        VERBS.iter().position(|(_, name)| *name == verb).is_some_and(|at| self.0 & (1 << at) != 0)
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        VERBS.iter().enumerate().filter(move |(at, _)| self.0 & (1 << at) != 0).map(|(_, v)| v.1)
    }
}

/// A subresource of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) verbs: Verbs,
    /// Group and version of the kind, where they are not those of the parent.
    pub(crate) group_version: Option<(&'static str, &'static str)>,
}

/// One served resource.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Group, version, plural, kind, scope.
    pub(crate) of: ResourceType,
    /// The same resource in the version that is stored.
    pub(crate) stored: ResourceType,
    pub(crate) api_version: String,
    pub(crate) stored_api_version: String,
    pub(crate) singular: Cow<'static, str>,
    pub(crate) short_names: Vec<Cow<'static, str>>,
    pub(crate) categories: Vec<Cow<'static, str>>,
    pub(crate) verbs: Verbs,
    pub(crate) storage_hash: Option<Cow<'static, str>>,
    pub(crate) subresources: Vec<Subresource>,
    /// Where objects lie in the store, `/registry/pods/`.
    pub(crate) prefix: String,
    /// The behaviour of a custom resource, which its definition gives.
    pub(crate) custom: Option<Arc<CustomVersion>>,
}

/// Where the behaviour of a kind comes from.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// From this crate.
    BuiltIn(&'static dyn Strategy),
    /// From a CustomResourceDefinition.
    Custom(Arc<CustomVersion>),
}

impl Deref for Behaviour {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::BuiltIn(strategy) => *strategy,
            Self::Custom(version) => &**version,
        }
    }
}

impl Resource {
    /// What a list of the kind calls itself.
    pub(crate) fn list_kind(&self) -> Cow<'_, str> {
        match self.custom.as_ref().and_then(|version| version.list_kind()) {
            Some(kind) => Cow::Borrowed(kind),
            None => Cow::Owned(format!("{}List", self.of.kind)),
        }
    }

    /// The behaviour of the kind.
    pub(crate) fn behaviour(&self) -> Behaviour {
        match &self.custom {
            Some(version) => Behaviour::Custom(version.clone()),
            None => {
                let of = &self.stored;
                Behaviour::BuiltIn(crate::kinds::strategy(&of.group, &of.plural))
            }
        }
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The schema of a custom resource's own kind.
    fn schema(&self, subresource: Option<&str>) -> Option<serde_json::Value> {
        let version = self.custom.as_ref()?;
        (subresource != Some("scale")).then(|| version.schema().clone())
    }

    fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let of = &self.of;
        let endpoint =
            |subresource: Option<&str>, verbs: Verbs, kind: (&str, &str, &str)| Endpoint {
                group: of.group.to_string(),
                version: of.version.to_string(),
                plural: of.plural.to_string(),
                subresource: subresource.map(str::to_owned),
                namespaced: self.is_namespaced(),
                kind: (kind.0.to_owned(), kind.1.to_owned(), kind.2.to_owned()),
                verbs: verbs.names().map(str::to_owned).collect(),
                schema: self.schema(subresource),
            };
        let own = endpoint(None, self.verbs, (&of.group, &of.version, &of.kind));
        let subs = self.subresources.iter().map(move |sub| {
            let (group, version) = sub.group_version.unwrap_or((&of.group, &of.version));
            endpoint(Some(sub.name), sub.verbs, (group, version, &sub.kind))
        });
        std::iter::once(own).chain(subs)
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.of.scope == Scope::Namespaced
    }

    /// Whether this version is the one that is stored.
    pub(crate) fn is_stored(&self) -> bool {
        self.api_version == self.stored_api_version
    }

    /// Whether objects may be stored otherwise than they are read: in another version, or without
    /// defaults that came later.
    pub(crate) fn converts(&self) -> bool {
        !self.is_stored() || self.custom.as_ref().is_some_and(|version| version.reads_differ())
    }

    pub(crate) fn key(&self, namespace: Option<&str>, name: &str) -> Vec<u8> {
        let namespace = namespace.filter(|_| self.is_namespaced());
        let mut key =
            Vec::with_capacity(self.prefix.len() + name.len() + namespace.map_or(0, str::len) + 1);
        key.extend_from_slice(self.prefix.as_bytes());
        if let Some(namespace) = namespace {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// The prefix of every object of a namespace, or of all of them.
    pub(crate) fn collection_prefix(&self, namespace: Option<&str>) -> Vec<u8> {
        match namespace.filter(|_| self.is_namespaced()) {
            Some(namespace) => {
                let mut key = self.key(Some(namespace), "");
                key.shrink_to_fit();
                key
            }
            None => self.prefix.clone().into_bytes(),
        }
    }
}

/// A served version of a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupVersion {
    pub(crate) group: Cow<'static, str>,
    pub(crate) version: Cow<'static, str>,
    pub(crate) resources: Vec<Arc<Resource>>,
}

impl GroupVersion {
    pub(crate) fn name(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The resources that a server serves.
#[derive(Debug)]
pub(crate) struct Catalog {
    group_versions: Vec<GroupVersion>,
    /// The few resources of each plural name, for look-ups that own nothing.
    by_plural: HashMap<String, Vec<Arc<Resource>>>,
}

static STABLE: LazyLock<Arc<Catalog>> = LazyLock::new(|| Arc::new(Catalog::read(false)));
static ALL: LazyLock<Arc<Catalog>> = LazyLock::new(|| Arc::new(Catalog::read(true)));

fn is_stable(version: &str) -> bool {
    !version.contains("alpha") && !version.contains("beta")
}

impl Catalog {
    /// The built-in resources. Read once a process, because the table never changes.
    pub(crate) fn built_in(versions: ApiVersions) -> Arc<Self> {
        match versions {
            ApiVersions::Stable => STABLE.clone(),
            ApiVersions::All => ALL.clone(),
        }
    }

    fn read(everything: bool) -> Self {
        let mut group_versions = table::read();
        group_versions.retain(|gv| everything || is_stable(&gv.version));
        Self::of(group_versions)
    }

    fn of(group_versions: Vec<GroupVersion>) -> Self {
        let mut by_plural: HashMap<String, Vec<Arc<Resource>>> = HashMap::new();
        for resource in group_versions.iter().flat_map(|gv| &gv.resources) {
            by_plural.entry(resource.of.plural.to_string()).or_default().push(resource.clone());
        }
        Self { group_versions, by_plural }
    }

    /// The same resources, and others besides.
    pub(crate) fn with(&self, added: Vec<GroupVersion>) -> Self {
        Self::of(self.group_versions.iter().cloned().chain(added).collect())
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let same = |one: &&Arc<Resource>| one.of.group == group && one.of.version == version;
        self.by_plural.get(plural)?.iter().find(same)
    }

    /// Every version of a resource, itself included: what lies at the same place in the store.
    pub(crate) fn same_as(&self, resource: &Resource) -> impl Iterator<Item = &Arc<Resource>> {
        let of_the_name = self.by_plural.get(&*resource.of.plural).into_iter().flatten();
        of_the_name.filter(move |other| other.prefix == resource.prefix)
    }

    /// Whether a group version is served.
    pub(crate) fn has_version(&self, group: &str, version: &str) -> bool {
        self.group_versions.iter().any(|gv| gv.group == group && gv.version == version)
    }

    pub(crate) fn resource(&self, of: &ResourceType) -> Option<&Arc<Resource>> {
        self.find(&of.group, &of.version, &of.plural)
    }

    /// Every path that a resource answers at, for the OpenAPI documents.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let all = self.group_versions.iter().flat_map(|gv| &gv.resources);
        all.flat_map(|resource| resource.endpoints()).collect()
    }

    pub(crate) fn group_versions(&self) -> &[GroupVersion] {
        &self.group_versions
    }
}
