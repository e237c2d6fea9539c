//! What tests of runtimes, and of what uses them, need: the conformance suite of the
//! [`Runtime`](crate::Runtime) contract, and a runtime that fails on demand.

mod conformance;
mod faulty;

pub use conformance::{RuntimeFixture, runtime_conformance};
pub use faulty::{FaultyRuntime, RuntimeCall};
