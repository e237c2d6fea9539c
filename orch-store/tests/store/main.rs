//! The stores' public behaviour.

mod conformance;
mod history;
mod linearizability;
mod watches;
