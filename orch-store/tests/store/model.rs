//! Every answer, every state of the past, every lease and every watch is the naive model's.

mod harness;
mod operations;

use orch_core::{Environment, testing::rounds};
use orch_store::{Durability, DurableOptions, DurableStore, MemoryOptions, MemoryStore};
use proptest::prelude::*;

use self::{harness::Harness, operations::Operation};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases: rounds(cases), failure_persistence: None, ..<_>::default() }
}

fn environment() -> Environment {
    Environment::seeded(Default::default(), 1)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn memory_does_what_the_model_does(
        operations in proptest::collection::vec(operations::any(), 1..60),
        watch_buffer in 1usize..4,
    ) {
        runtime().block_on(async {
            let options = MemoryOptions { watch_buffer, ..MemoryOptions::default() };
            let mut harness = Harness::new(MemoryStore::new(environment(), options));
            for operation in operations {
                if !matches!(operation, Operation::Reopen) {
                    harness.run(operation).await;
                }
            }
            harness.end().await;
        });
    }
}

proptest! {
    #![proptest_config(config(48))]

    /// In small segments, with snapshots as often as can be, and opened anew now and then.
    #[test]
    fn durable_does_what_the_model_does(
        operations in proptest::collection::vec(operations::any(), 1..60),
        watch_buffer in 1usize..4,
        segment_bytes in 64u64..1024,
    ) {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let options = DurableOptions {
                durability: Durability::LostOnPowerFailure,
                segment_bytes,
                snapshot_bytes_min: 1,
                watch_buffer,
                environment: environment(),
                ..DurableOptions::default()
            };
            let open = || DurableStore::open(folder.path(), options.clone());
            let mut harness = Harness::new(open().unwrap());
            for operation in operations {
                match operation {
                    Operation::Reopen => harness = harness.reopen(open).await,
                    operation => harness.run(operation).await,
                }
            }
            harness.reopen(open).await.end().await;
        });
    }
}
