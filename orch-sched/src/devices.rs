//! Devices that pods claim: what drivers offer, what is taken, and which devices satisfy a claim on
//! a node.
//!
//! Source: `k8s.io/dynamic-resource-allocation/structured`.

mod allocator;
mod capacity;
mod constraint;
mod counters;
mod frozen;
mod inventory;
mod ledger;
mod pools;
mod removal;
mod request;
mod results;
mod search;
mod selectors;
mod slice;
mod standalone;
mod totals;
mod usage;

pub(crate) use allocator::{Allocator, Patience, Stop};
pub(crate) use frozen::{Following, Frozen};
pub(crate) use ledger::{Devices, UNWRITTEN};
pub(crate) use removal::{BETWEEN_TRIES, TRIES, remove};
pub(crate) use request::shown;
pub(crate) use results::Solution;
pub(crate) use slice::selects;
pub use standalone::DeviceAllocator;
