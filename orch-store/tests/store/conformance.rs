//! The conformance suite, against the stores that need nothing of the machine.

use std::sync::Arc;

use orch_core::Environment;
use orch_store::{
    DurableOptions, DurableStore, Faults, FaultyStore, MemoryOptions, MemoryStore, testing,
};

/// Memory whose watchers fall behind at once.
fn narrow() -> MemoryStore {
    let options = MemoryOptions { watch_buffer: 1, ..MemoryOptions::default() };
    MemoryStore::new(Environment::system(), options)
}

#[tokio::test]
async fn memory_conforms() {
    let store = Arc::new(MemoryStore::default());
    testing::conformance(store.clone()).await;
    testing::parts::progress_order(&*store).await;
}

#[tokio::test]
async fn memory_with_the_smallest_buffer_conforms() {
    let store = Arc::new(narrow());
    testing::conformance(store.clone()).await;
    testing::parts::progress_order(&*store).await;
}

#[tokio::test(start_paused = true)]
async fn memory_leases_conform() {
    testing::lease_conformance(&MemoryStore::default()).await;
    testing::lease_conformance(&narrow()).await;
}

#[tokio::test]
async fn durable_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let options = DurableOptions { segment_bytes: 2048, snapshot_bytes_min: 1, ..<_>::default() };
    let store = DurableStore::open(folder.path(), options.clone()).unwrap();
    testing::conformance(Arc::new(store.clone())).await;
    testing::parts::progress_order(&store).await;
    testing::lease_conformance(&store).await;
    let revision = store.revision();
    drop(store);
    assert_eq!(DurableStore::open(folder.path(), options).unwrap().revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn faulty_without_faults_conforms() {
    let environment = Environment::system();
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), environment, Faults::default());
    testing::conformance(Arc::new(store.clone())).await;
    testing::parts::progress_order(&store).await;
    testing::lease_conformance(&store).await;
}
