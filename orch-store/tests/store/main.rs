//! The stores' public behaviour.

mod conformance;
mod watches;
