//! The machine under a node: what runs on it is gone without power, and its runtime may fail.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use orch_core::random::Random;
use orch_node::{
    runtime::{RuntimeError, simulated::SimulatedRuntime},
    testing::FaultyRuntime,
};

/// A simulated machine. Its clones are the same machine.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedMachine {
    runtime: SimulatedRuntime,
    /// Of a thousand calls, so many are refused.
    refused_permille: Arc<AtomicU64>,
    random: Arc<dyn Random>,
}

impl SimulatedMachine {
    /// A machine with what runs on this runtime.
    pub(crate) fn new(runtime: SimulatedRuntime, random: Arc<dyn Random>) -> Self {
        Self { runtime, refused_permille: Arc::default(), random }
    }

    /// What runs on it, as it is.
    pub(crate) fn inside(&self) -> &SimulatedRuntime {
        &self.runtime
    }

    /// Its runtime, for an agent.
    pub(crate) fn runtime(&self) -> FaultyRuntime {
        let (refused, random) = (self.refused_permille.clone(), self.random.clone());
        FaultyRuntime::new(Arc::new(self.runtime.clone()), move |_| {
            let permille = refused.load(Ordering::Relaxed);
            let refuses = permille > 0 && random.below(1000) < permille;
            refuses.then(|| RuntimeError::Refused("injected".to_owned()))
        })
    }

    /// Of a thousand calls, its runtime refuses so many from now on.
    pub(crate) fn refuse(&self, permille: u64) {
        self.refused_permille.store(permille, Ordering::Relaxed);
    }
}
