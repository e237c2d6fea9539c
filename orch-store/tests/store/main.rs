//! The stores' public behaviour.

mod conformance;
mod crosscheck;
mod faulty;
mod history;
mod linearizability;
mod model;
mod watches;
