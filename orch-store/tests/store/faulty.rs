//! Faults, by chance and on demand.

mod chance;
mod demand;

use std::sync::Arc;

use orch_core::Environment;
use orch_store::{Faults, FaultyStore, MemoryOptions, MemoryStore};

/// A faulty store over one in memory, in virtual time, and what is beneath it.
fn store(faults: Faults, seed: u64) -> (FaultyStore<MemoryStore>, Arc<MemoryStore>) {
    let environment = Environment::seeded(Default::default(), seed);
    let memory = Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()));
    (FaultyStore::new(memory.clone(), environment, faults), memory)
}
