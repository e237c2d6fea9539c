//! Forgetting old revisions, so that a store does not grow for ever.
//!
//! Source: `k8s.io/apiserver/pkg/storage/etcd3/compact.go`: every five minutes, what is older than
//! five minutes.

use std::{sync::Arc, time::Duration};

use orch_core::Environment;
use orch_store::{KeyRange, RangeRequest, Revision, Store, StoreError};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(300);

/// Compacts until it is cancelled.
pub(super) async fn run(store: Arc<dyn Store>, environment: Environment, stop: CancellationToken) {
    let mut old = None;
    loop {
        tokio::select! {
            () = environment.clock.sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        if let Some(revision) = old.take()
            && let Err(error) = store.compact(revision).await
            // Another server on the same store was first.
            && !matches!(error, StoreError::Compacted { .. })
        {
            tracing::warn!(%error, "the store was not compacted");
        }
        old = newest(&*store).await;
    }
}

async fn newest(store: &dyn Store) -> Option<Revision> {
    let mut nothing = RangeRequest::new(KeyRange::key("/"));
    nothing.count_only = true;
    match store.range(nothing).await {
        Ok(answer) => Some(answer.revision),
        Err(error) => {
            tracing::warn!(%error, "the store does not tell its revision");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use orch_store::{MemoryOptions, MemoryStore, Operation, Precondition, StoreReader, Write};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_a_period_is_forgotten() {
        let environment = Environment::seeded(jiff::Timestamp::UNIX_EPOCH, 1);
        let store = MemoryStore::new(environment.clone(), MemoryOptions::default());
        let write = |value: &'static str| Write {
            key: "/a".into(),
            precondition: Precondition::None,
            operation: Operation::Put { value: value.into(), lease: None },
        };
        for value in ["1", "2"] {
            store.write(write(value)).await.unwrap();
        }
        let at = |revision| RangeRequest {
            revision: Some(revision),
            ..RangeRequest::new(KeyRange::key("/a"))
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(Arc::new(store.clone()), environment, stop.clone()));
        tokio::time::sleep(PERIOD + PERIOD / 2).await;
        assert!(store.range(at(2)).await.is_ok());
        tokio::time::sleep(PERIOD).await;
        assert!(matches!(store.range(at(2)).await, Err(StoreError::Compacted { .. })));
        assert_eq!(store.range(at(3)).await.unwrap().entries[0].value, "2");
        stop.cancel();
        running.await.unwrap();
    }
}
