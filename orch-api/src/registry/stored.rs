//! Reading and writing single objects in the store.

use std::sync::Arc;

use bytes::Bytes;
use orch_core::{ApiError, Object, status::Reason};
use orch_store::{
    Entry, KeyRange, Operation, Precondition, RangeRequest, Revision, Write, WriteOutcome,
};
use serde_json::Value;

use super::Addressed;
use crate::{
    cache::{Cache, store_error},
    catalog::Resource,
    server::Inner,
};

/// How a guarded write ended.
pub(super) enum Put {
    Done(Arc<Object>),
    /// Somebody else was faster.
    Lost,
}

impl Inner {
    /// The object that a call addresses, in the version that the verbs work on, as of now.
    pub(super) async fn get_stored(&self, at: &Addressed) -> Result<Option<Arc<Object>>, ApiError> {
        if at.name().is_empty() {
            return Ok(None);
        }
        let range = RangeRequest::new(KeyRange::key(at.key()));
        let found = self.store.range(range).await.map_err(store_error)?;
        let object = found.entries.into_iter().next().and_then(|entry| self.share(at, &entry));
        match object {
            Some(object) => Ok(Some(self.to_worked_object(&at.resource, object).await?)),
            None => Ok(None),
        }
    }

    /// An entry's object, shared with whoever else holds that revision.
    pub(super) fn share(&self, at: &Addressed, entry: &Entry) -> Option<Arc<Object>> {
        self.cache.object(&at.resource, entry)
    }

    /// Stores an object under a precondition.
    pub(super) async fn put(
        &self,
        resource: &Resource,
        key: Vec<u8>,
        bytes: Bytes,
        precondition: Precondition,
    ) -> Result<Put, ApiError> {
        let stored = self.to_store(resource, bytes.clone()).await?;
        let as_it_is = stored.as_ptr() == bytes.as_ptr();
        let operation = Operation::Put { value: stored, lease: None };
        let write = Write { key: Bytes::from(key), precondition, operation };
        match self.store.write(write).await.map_err(store_error)? {
            WriteOutcome::Committed { revision, .. } if as_it_is => {
                Ok(Put::Done(written(&self.cache, bytes, revision)?))
            }
            // The cache reads what was stored; this is what the client wrote.
            WriteOutcome::Committed { revision, .. } => {
                let object = Object::from_encoded(bytes, revision).map_err(ApiError::internal)?;
                Ok(Put::Done(Arc::new(object)))
            }
            WriteOutcome::PreconditionFailed { .. } => Ok(Put::Lost),
        }
    }

    /// Removes an object that is still at a revision; gives the revision of the removal.
    pub(super) async fn remove(
        &self,
        key: Vec<u8>,
        revision: Revision,
    ) -> Result<Option<Revision>, ApiError> {
        let precondition = Precondition::ModRevision(revision);
        let write = Write { key: Bytes::from(key), precondition, operation: Operation::Delete };
        match self.store.write(write).await.map_err(store_error)? {
            WriteOutcome::Committed { revision, .. } => Ok(Some(revision)),
            WriteOutcome::PreconditionFailed { .. } => Ok(None),
        }
    }
}

fn written(cache: &Cache, bytes: Bytes, revision: Revision) -> Result<Arc<Object>, ApiError> {
    let object = Object::from_encoded(bytes, revision).map_err(ApiError::internal)?;
    let object = Arc::new(object);
    cache.wrote(revision, &object);
    Ok(object)
}

/// An object is read by parsers that go 128 levels deep, inside lists and watch events too.
const DEPTH_MAX: usize = 120;
/// What is stored may be larger than the body that asked for it, by defaults and managed fields,
/// but not by much.
const BYTES_MAX: usize = 6 << 20;

/// What the store keeps of an object, and the object as it would be read.
///
/// # Errors
/// For what could be stored but not be served: `BadRequest` if it is nested too deeply,
/// `RequestEntityTooLarge`.
pub(super) fn encode(value: &mut Value) -> Result<Bytes, ApiError> {
    if is_deeper(value, DEPTH_MAX) {
        let why = format!("the object is nested more than {DEPTH_MAX} levels deep");
        return Err(ApiError::bad_request(why));
    }
    let bytes = Object::encode_for_store(value).map_err(ApiError::internal)?;
    if bytes.len() > BYTES_MAX {
        let why = format!("Request entity too large: limit is {BYTES_MAX}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, why));
    }
    Ok(bytes)
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => {
            levels == 0 || items.iter().any(|value| is_deeper(value, levels - 1))
        }
        Value::Object(fields) => {
            levels == 0 || fields.values().any(|value| is_deeper(value, levels - 1))
        }
        _ => false,
    }
}

/// The answer of a dry run: the object as it would have been, at no revision.
pub(super) fn unstored(bytes: Bytes) -> Result<Put, ApiError> {
    Ok(Put::Done(Arc::new(Object::from_json(bytes).map_err(ApiError::internal)?)))
}

impl Inner {
    /// How many objects are stored of each resource: group, plural, count.
    pub(crate) async fn count_objects(&self) -> Result<Vec<([String; 2], u64)>, ApiError> {
        let catalog = self.newest_catalog().await?;
        let versions = catalog.group_versions().iter();
        let mut counted = Vec::new();
        for resource in versions.flat_map(|version| &version.resources) {
            if !resource.is_stored() || !resource.verbs.has("get") {
                continue;
            }
            let range = KeyRange::prefix(resource.prefix.clone().into_bytes());
            let mut request = RangeRequest::new(range);
            request.count_only = true;
            let count = self.store.range(request).await.map_err(store_error)?.count;
            let of = &resource.of;
            counted.push(([of.group.to_string(), of.plural.to_string()], count as u64));
        }
        Ok(counted)
    }

    pub(super) async fn exists(&self, key: &[u8]) -> Result<bool, ApiError> {
        let mut request = RangeRequest::new(KeyRange::key(key.to_vec()));
        request.count_only = true;
        Ok(self.store.range(request).await.map_err(store_error)?.count > 0)
    }
}
