//! What a component takes from outside besides the cluster: time and randomness.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    clock::{Clock, SystemClock, TokioClock},
    random::{Random, SeededRandom},
};

/// Clock and generator, handed to every component when it is built. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Environment {
    /// The machine's clock, and a generator seeded by the operating system.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SeededRandom::from_os()) }
    }

    /// Virtual time that follows tokio's clock from `epoch`, and a seeded generator: with a paused
    /// single-threaded runtime, what happens is a function of the seed. Call it inside a runtime.
    pub fn seeded(epoch: Timestamp, seed: u64) -> Self {
        Self {
            clock: Arc::new(TokioClock::starting_at(epoch)),
            random: Arc::new(SeededRandom::new(seed)),
        }
    }
}
