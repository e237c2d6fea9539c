//! Reading and writing single objects in the store.

use std::sync::Arc;

use bytes::Bytes;
use orch_core::{ApiError, Object};
use orch_store::{
    Entry, KeyRange, Operation, Precondition, RangeRequest, Revision, Write, WriteOutcome,
};
use serde_json::Value;

use super::Addressed;
use crate::{
    cache::{Cache, store_error},
    server::Inner,
};

/// How a guarded write ended.
pub(super) enum Put {
    Done(Arc<Object>),
    /// Somebody else was faster.
    Lost,
}

impl Inner {
    /// The object that a call addresses, in the version it is stored in, as of now.
    pub(super) async fn get_stored(&self, at: &Addressed) -> Result<Option<Arc<Object>>, ApiError> {
        if at.name().is_empty() {
            return Ok(None);
        }
        let range = RangeRequest::new(KeyRange::key(at.key()));
        let found = self.store.range(range).await.map_err(store_error)?;
        Ok(found.entries.into_iter().next().and_then(|entry| self.share(at, &entry)))
    }

    /// An entry's object, shared with whoever else holds that revision.
    pub(super) fn share(&self, at: &Addressed, entry: &Entry) -> Option<Arc<Object>> {
        self.cache.object(&at.resource, entry)
    }

    /// Stores an object under a precondition.
    pub(super) async fn put(
        &self,
        key: Vec<u8>,
        bytes: Bytes,
        precondition: Precondition,
    ) -> Result<Put, ApiError> {
        let operation = Operation::Put { value: bytes.clone(), lease: None };
        let write = Write { key: Bytes::from(key), precondition, operation };
        match self.store.write(write).await.map_err(store_error)? {
            WriteOutcome::Committed { revision, .. } => {
                Ok(Put::Done(written(&self.cache, bytes, revision)?))
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

/// What the store keeps of an object, and the object as it would be read.
pub(super) fn encode(value: &mut Value) -> Result<Bytes, ApiError> {
    Object::encode_for_store(value).map_err(ApiError::internal)
}

/// The answer of a dry run: the object as it would have been, at no revision.
pub(super) fn unstored(bytes: Bytes) -> Result<Put, ApiError> {
    Ok(Put::Done(Arc::new(Object::from_json(bytes).map_err(ApiError::internal)?)))
}

impl Inner {
    pub(super) async fn exists(&self, key: &[u8]) -> Result<bool, ApiError> {
        let mut request = RangeRequest::new(KeyRange::key(key.to_vec()));
        request.count_only = true;
        Ok(self.store.range(request).await.map_err(store_error)?.count > 0)
    }
}
