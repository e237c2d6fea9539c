//! The conformance suite, against the stores that need nothing of the machine.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use orch_core::Environment;
use orch_store::{
    DurableOptions, DurableStore, Faults, FaultyStore, MemoryOptions, MemoryStore,
    testing::{self, parts},
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
}

#[tokio::test]
async fn memory_with_the_smallest_buffer_conforms() {
    let store = Arc::new(narrow());
    testing::conformance(store.clone()).await;
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
    testing::lease_conformance(&store).await;
}

/// A suite that nothing can fail proves nothing.
#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_the_contract_fails() {
    let store = |faults| {
        let environment = Environment::seeded(Default::default(), 1);
        FaultyStore::new(Arc::new(MemoryStore::default()), environment, faults)
    };
    let conflict = store(Faults { conflict: 1.0, ..Faults::default() });
    let repeats = store(Faults { watch_repeat: 1.0, ..Faults::default() });
    let drops = store(Faults { watch_drop: 0.01, ..Faults::default() });
    let loses = store(Faults { unknown: 0.5, ..Faults::default() });
    let forgets = store(Faults { compaction: 1.0, ..Faults::default() });
    fails("writes", parts::writes(&conflict)).await;
    fails("comparisons", parts::comparisons(&conflict)).await;
    fails("watches", parts::watches(&repeats)).await;
    fails("slow watches", parts::slow_watches(&drops)).await;
    fails("transactions", parts::transactions(&loses)).await;
    fails("ranges", parts::ranges(&forgets)).await;
    fails("leases", parts::leases(&loses)).await;
}

async fn fails(part: &str, course: impl Future<Output = ()>) {
    let outcome = AssertUnwindSafe(course).catch_unwind().await;
    assert!(outcome.is_err(), "{part}: nothing was found");
}
