//! What tests of components need: a cluster in memory, faults on demand, the conformance suite of
//! the [`Client`](crate::Client) contract, and a way to say what a test needs of the machine.
//!
//! Enable the feature `testing` in `[dev-dependencies]`.

mod call;
mod conformance;
mod faulty;
mod memory;
mod mock;
pub mod require;
mod rounds;

pub use call::{Call, Verb};
pub use conformance::client_conformance;
pub use faulty::{Fault, FaultRates, FaultyClient};
pub use memory::MemoryClient;
pub use mock::MockClient;
pub use rounds::{ROUNDS_VARIABLE, rounds};
