//! A store whose calls are measured.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use orch_store::{
    Operation, Precondition, RangeRequest, RangeResponse, Revision, Store, StoreError, StoreReader,
    Transaction, TransactionOutcome, WatchRequest, WatchStream, Write, WriteOutcome,
};
use tokio::time::Instant;

use super::Metrics;
use crate::catalog::Catalog;

/// Measures the calls of a store, by what they are about.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    store: Arc<dyn Store>,
    metrics: Metrics,
    /// Group and plural by the place in the store.
    resources: HashMap<Vec<u8>, (String, String)>,
}

impl MeteredStore {
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Metrics, catalog: &Catalog) -> Self {
        let versions = catalog.group_versions().iter();
        let resources = versions.flat_map(|version| &version.resources).map(|resource| {
            let of = &resource.of;
            (resource.prefix.clone().into_bytes(), (of.group.to_string(), of.plural.to_string()))
        });
        Self { store, metrics, resources: resources.collect() }
    }

    /// Group and plural of what lies at a key. Custom objects lie at `/registry/<group>/<plural>/`.
    fn resource<'a>(&'a self, key: &'a [u8]) -> (&'a str, &'a str) {
        let mut ends = key.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at + 1);
        let (first, second, third) = (ends.nth(1), ends.next(), ends.next());
        for end in [second, third].into_iter().flatten() {
            if let Some((group, plural)) = self.resources.get(&key[..end]) {
                return (group, plural);
            }
        }
        let part = |from: Option<usize>, to: Option<usize>| {
            let bytes = key.get(from?..to?.checked_sub(1)?)?;
            std::str::from_utf8(bytes).ok()
        };
        match (part(first, second), part(second, third)) {
            (Some(group), Some(plural)) if group.contains('.') => (group, plural),
            _ => ("", ""),
        }
    }

    fn note<T>(&self, operation: &str, key: &[u8], began: Instant, result: &Result<T, StoreError>) {
        let (group, resource) = self.resource(key);
        self.metrics.stored([operation, group, resource], began.elapsed(), result.is_err());
    }
}

#[async_trait]
impl StoreReader for MeteredStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let (began, start) = (Instant::now(), request.range.start.clone());
        let one = request.range.end.as_ref().is_some_and(|end| {
            end.len() == start.len() + 1 && end.starts_with(&start) && end.ends_with(b"\0")
        });
        let operation = match (request.count_only, one) {
            (true, _) => "count",
            (false, true) => "get",
            (false, false) => "list",
        };
        let result = self.store.range(request).await;
        self.note(operation, &start, began, &result);
        result
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.store.watch(request).await
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.store.request_progress().await
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let (began, key) = (Instant::now(), write.key.clone());
        let operation = match (&write.operation, &write.precondition) {
            (Operation::Put { .. }, Precondition::Absent) => "create",
            (Operation::Put { .. }, _) => "update",
            _ => "delete",
        };
        let result = self.store.write(write).await;
        self.note(operation, &key, began, &result);
        result
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        self.store.transact(transaction).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}
