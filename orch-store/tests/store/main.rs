//! The stores' public behaviour.

mod conformance;
mod crosscheck;
mod history;
mod linearizability;
mod model;
mod watches;
