//! Custom resources: what CustomResourceDefinitions make the server serve.
//!
//! Definitions are ordinary stored objects ([`kind`]). What they define is compiled from the watch
//! cache when it is asked for and the definitions have changed since ([`Customs`]): a server that
//! nobody asks for custom resources never reads them, and several servers over one store agree. A
//! custom resource then goes through the same machinery as a built-in one, with a strategy that
//! its definition gives ([`CustomVersion`]).
//!
//! Source: `k8s.io/apiextensions-apiserver`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use orch_core::ApiError;
use parking_lot::Mutex;

mod cleanup;
mod columns;
mod conversion;
mod definition;
mod formats;
mod hook;
pub(crate) mod kind;
mod path;
mod patterns;
mod rules;
mod status;
mod structure;
mod version;

pub(crate) use cleanup::FINALIZER;
pub(crate) use conversion::ConversionWebhook;
pub(crate) use hook::{DEFINITIONS, SettleNames};
pub(crate) use status::mark_terminating;
pub(crate) use version::CustomVersion;

use crate::{
    cache::Collection,
    catalog::{Catalog, GroupVersion, Resource},
    server::Inner,
};
pub(crate) use definition::rank as version_rank;
use definition::{Definition, by_preference};

/// What is served, as of a revision of the definitions.
pub(crate) struct Customs {
    built_in: Arc<Catalog>,
    current: Mutex<Current>,
}

struct Current {
    revision: Option<u64>,
    catalog: Arc<Catalog>,
    definitions: BTreeMap<String, Arc<Definition>>,
    /// The definitions whose objects are being deleted.
    emptied: HashSet<String>,
}

/// What a change of the definitions asks for besides.
struct Consequences {
    /// Where the resources lie that are served no more, or in other versions.
    ended: Vec<String>,
    /// The definitions whose objects have to go.
    emptied: Vec<Arc<Definition>>,
}

impl Current {
    /// The definitions whose objects have to go and that nobody sees to.
    fn claim_emptying(&mut self) -> Vec<Arc<Definition>> {
        let going = self.definitions.values().filter(|definition| definition.waits);
        going.filter(|definition| self.emptied.insert(definition.name.clone())).cloned().collect()
    }
}

impl Customs {
    pub(crate) fn new(built_in: Arc<Catalog>) -> Self {
        let current = Current {
            revision: None,
            catalog: built_in.clone(),
            definitions: BTreeMap::new(),
            emptied: HashSet::new(),
        };
        Self { built_in, current: Mutex::new(current) }
    }

    /// What was served when somebody last asked.
    pub(crate) fn last_known(&self) -> Arc<Catalog> {
        self.current.lock().catalog.clone()
    }

    /// Takes in the definitions as the cache has them.
    fn refresh(&self, collection: &Collection) -> Option<(Arc<Catalog>, Consequences)> {
        let mut current = self.current.lock();
        let (revision, objects) = collection.newer_than(current.revision)?;
        let Some(objects) = objects else {
            let emptied = current.claim_emptying();
            return Some((current.catalog.clone(), Consequences { ended: Vec::new(), emptied }));
        };
        let mut definitions = BTreeMap::new();
        for object in objects {
            let name = object.key().name;
            let known = current.definitions.get(&name);
            let known = known.filter(|known| Some(known.revision) == object.revision()).cloned();
            if let Some(definition) = known.or_else(|| Definition::of(&object).map(Arc::new)) {
                definitions.insert(name, definition);
            }
        }
        let mut ended = Vec::new();
        for (name, old) in &current.definitions {
            let goes_on = |new: &&Arc<Definition>| new.versions().eq(old.versions());
            if definitions.get(name).filter(goes_on).is_none() {
                ended.push(old.prefix.clone());
            }
        }
        current.revision = Some(revision);
        current.catalog = Arc::new(self.built_in.with(group_versions(&definitions)));
        current.definitions = definitions;
        let emptied = current.claim_emptying();
        Some((current.catalog.clone(), Consequences { ended, emptied }))
    }

    /// The objects of a definition are gone, or could not be deleted for now.
    fn emptied(&self, name: &str) {
        self.current.lock().emptied.remove(name);
    }
}

fn group_versions(definitions: &BTreeMap<String, Arc<Definition>>) -> Vec<GroupVersion> {
    let mut found: Vec<GroupVersion> = Vec::new();
    for resource in definitions.values().flat_map(|definition| &definition.resources) {
        let of = &resource.of;
        let same = |gv: &&mut GroupVersion| gv.group == of.group && gv.version == of.version;
        match found.iter_mut().find(same) {
            Some(gv) => gv.resources.push(resource.clone()),
            None => found.push(GroupVersion {
                group: of.group.clone(),
                version: of.version.clone(),
                resources: vec![resource.clone()],
            }),
        }
    }
    let by_version = |a: &GroupVersion, b: &GroupVersion| by_preference(&a.version, &b.version);
    found.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| by_version(a, b)));
    found
}

impl Inner {
    /// Everything that is served, custom resources included.
    pub(crate) async fn catalog(&self) -> Result<Arc<Catalog>, ApiError> {
        let definitions = self.built_in.resource(&DEFINITIONS);
        let definitions = definitions.ok_or_else(ApiError::no_such_path)?;
        let collection = self.cache.collection(definitions).await?;
        let refreshed = self.customs.refresh(&collection);
        let (catalog, consequences) = refreshed.ok_or_else(crate::cache::reloading)?;
        for prefix in &consequences.ended {
            self.cache.forget(prefix);
        }
        for definition in consequences.emptied {
            self.empty(definition);
        }
        Ok(catalog)
    }

    /// Everything that is served, no older than what the store has now.
    pub(crate) async fn newest_catalog(&self) -> Result<Arc<Catalog>, ApiError> {
        self.catalog().await?;
        let current = self.cache.current_revision().await?;
        self.cache.fresh(current).await?;
        self.catalog().await
    }

    /// The resource of that name.
    pub(crate) async fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Result<Arc<Resource>, ApiError> {
        if let Some(resource) = self.built_in.find(group, version, plural) {
            return Ok(resource.clone());
        }
        // Groups of custom resources are domains.
        if !group.contains('.') {
            return Err(ApiError::no_such_path());
        }
        if let Some(resource) = self.catalog().await?.find(group, version, plural) {
            return Ok(resource.clone());
        }
        // It may have been defined a moment ago, by another server.
        let catalog = self.newest_catalog().await?;
        catalog.find(group, version, plural).cloned().ok_or_else(ApiError::no_such_path)
    }
}
