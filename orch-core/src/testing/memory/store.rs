//! The objects, and the history that watches read.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use super::filter::Filter;
use crate::{
    client::{ClientError, ListOptions, ObjectList},
    object::Object,
    resource::{Key, ResourceType, Target},
    status::ApiError,
};

/// Changes of a resource that are kept for watches; older ones are answered with 410 Expired.
const HISTORY_MAX: usize = 100_000;

/// One change of one object.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) key: Key,
    pub(super) old: Option<Arc<Object>>,
    /// `None` when the object was deleted.
    pub(super) new: Option<Arc<Object>>,
}

struct Collection {
    resource: ResourceType,
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Event>,
    /// Changes up to this revision are forgotten.
    forgotten: u64,
}

#[derive(Default)]
pub(super) struct Store {
    revision: u64,
    /// By group and plural: versions of a resource are the same objects.
    collections: HashMap<(String, String), Collection>,
    /// A collection that is first used after a compaction has no history either.
    compacted: u64,
}

fn id(resource: &ResourceType) -> (String, String) {
    (resource.group.to_string(), resource.plural.to_string())
}

impl Store {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn resource_types(&self) -> Vec<ResourceType> {
        let mut types: Vec<ResourceType> =
            self.collections.values().map(|collection| collection.resource.clone()).collect();
        types.sort();
        types
    }

    pub(super) fn count(&self, resource: &ResourceType) -> usize {
        self.collections.get(&id(resource)).map_or(0, |c| c.objects.len())
    }

    pub(super) fn find(&self, resource: &ResourceType, key: &Key) -> Option<&Arc<Object>> {
        self.collections.get(&id(resource))?.objects.get(key)
    }

    pub(super) fn get(&self, resource: &ResourceType, key: &Key) -> Result<&Arc<Object>, ApiError> {
        self.find(resource, key)
            .ok_or_else(|| ApiError::not_found(&resource.group, &resource.plural, &key.name))
    }

    pub(super) fn all(&self, resource: &ResourceType, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(collection) = self.collections.get(&id(resource)) else { return Vec::new() };
        let here = |key: &Key| namespace.is_none_or(|namespace| key.namespace == namespace);
        let from = Key::new(namespace.unwrap_or_default(), "");
        let range = collection.objects.range((Bound::Included(from), Bound::Unbounded));
        range.take_while(|(key, _)| here(key)).map(|(_, object)| object.clone()).collect()
    }

    /// Stores bytes that carry no resource version, at the next revision.
    pub(super) fn put(
        &mut self,
        resource: &ResourceType,
        json: Bytes,
    ) -> Result<Arc<Object>, ClientError> {
        let object = Arc::new(Object::from_stored(json, self.revision + 1)?);
        self.revision += 1;
        let key = object.key();
        let collection = self.collection(resource);
        let old = collection.objects.insert(key.clone(), object.clone());
        self.record(resource, key, old, Some(object.clone()));
        Ok(object)
    }

    /// Takes an object away; gives its last state, at the revision of its deletion.
    pub(super) fn remove(
        &mut self,
        resource: &ResourceType,
        key: &Key,
    ) -> Result<Arc<Object>, ClientError> {
        let old = self.get(resource, key)?.clone();
        let last = Arc::new(old.at_revision(self.revision + 1)?);
        self.revision += 1;
        self.collection(resource).objects.remove(key);
        self.record(resource, key.clone(), Some(old), None);
        Ok(last)
    }

    fn collection(&mut self, resource: &ResourceType) -> &mut Collection {
        let forgotten = self.compacted;
        let collection = self.collections.entry(id(resource));
        collection.or_insert_with(|| Collection {
            resource: resource.clone(),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten,
        })
    }

    fn record(
        &mut self,
        resource: &ResourceType,
        key: Key,
        old: Option<Arc<Object>>,
        new: Option<Arc<Object>>,
    ) {
        let revision = self.revision;
        let collection = self.collection(resource);
        collection.history.push_back(Event { revision, key, old, new });
        if collection.history.len() > HISTORY_MAX
            && let Some(event) = collection.history.pop_front()
        {
            collection.forgotten = event.revision;
        }
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        for collection in self.collections.values_mut() {
            collection.history.clear();
            collection.forgotten = self.revision;
        }
    }

    /// The changes after a revision, at most `limit`.
    pub(super) fn after(
        &self,
        resource: &ResourceType,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<Event>, ApiError> {
        let Some(collection) = self.collections.get(&id(resource)) else {
            return if revision < self.compacted {
                Err(expired(revision, self))
            } else {
                Ok(vec![])
            };
        };
        if revision < collection.forgotten {
            return Err(expired(revision, self));
        }
        let start = collection.history.partition_point(|event| event.revision <= revision);
        Ok(collection.history.range(start..).take(limit).cloned().collect())
    }

    /// The collection as it was at a revision: today's objects with later changes undone.
    fn at(&self, target: &Target, revision: u64) -> Result<BTreeMap<Key, Arc<Object>>, ApiError> {
        let objects = self.all(&target.resource, target.namespace.as_deref());
        let mut objects: BTreeMap<Key, _> = objects.into_iter().map(|o| (o.key(), o)).collect();
        if revision < self.revision {
            for event in self.after(&target.resource, revision, usize::MAX)?.into_iter().rev() {
                match event.old {
                    Some(old) => objects.insert(event.key, old),
                    None => objects.remove(&event.key),
                };
            }
        }
        Ok(objects)
    }

    pub(super) fn list(
        &self,
        target: &Target,
        filter: &Filter,
        options: &ListOptions,
    ) -> Result<ObjectList, ClientError> {
        let (revision, after) = match options.continue_token.as_deref() {
            Some(token) => parse_token(token)?,
            None => (self.asked_revision(options)?, None),
        };
        let matching = self.at(target, revision)?;
        let mut matching = matching.into_iter().filter(|(key, object)| {
            after.as_ref().is_none_or(|after| key > after) && filter.matches(object)
        });
        let limit = options.limit.filter(|limit| *limit > 0).map_or(usize::MAX, |l| l as usize);
        let page: Vec<(Key, Arc<Object>)> = matching.by_ref().take(limit).collect();
        let rest = matching.count() as i64;
        let last = page.last().map(|(key, _)| key).filter(|_| rest > 0);
        Ok(ObjectList {
            continue_token: last.map(|key| format!("{revision}:{}/{}", key.namespace, key.name)),
            remaining_item_count: (rest > 0).then_some(rest),
            items: page.into_iter().map(|(_, object)| object).collect(),
            resource_version: revision.to_string(),
        })
    }

    fn asked_revision(&self, options: &ListOptions) -> Result<u64, ApiError> {
        let asked = match options.resource_version.as_deref() {
            None | Some("" | "0") => return Ok(self.revision),
            Some(version) => self.parse_version(version)?,
        };
        let exact = options.resource_version_match.as_deref() == Some("Exact");
        Ok(if exact { asked } else { self.revision })
    }

    /// A resource version that a caller passed, which must not lie in the future.
    pub(super) fn parse_version(&self, version: &str) -> Result<u64, ApiError> {
        let revision: u64 = version
            .parse()
            .map_err(|_| ApiError::bad_request(format!("Invalid resource version: {version:?}")))?;
        if revision > self.revision {
            return Err(ApiError::new(
                crate::status::Reason::Timeout,
                format!("Too large resource version: {revision}, current: {}", self.revision),
            ));
        }
        Ok(revision)
    }
}

fn expired(revision: u64, store: &Store) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision} ({})", store.revision))
}

fn parse_token(token: &str) -> Result<(u64, Option<Key>), ApiError> {
    let parts = token.split_once(':').and_then(|(revision, key)| {
        let (namespace, name) = key.split_once('/')?;
        Some((revision.parse().ok()?, Some(Key::new(namespace, name))))
    });
    parts.ok_or_else(|| ApiError::bad_request("continue key is not valid"))
}
