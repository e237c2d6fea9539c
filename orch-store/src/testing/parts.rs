//! The parts of the conformance suite, each to be called alone.
//!
//! Every part empties the key space first, so that a part may fail without the next one's
//! noticing; all panic on a store that does not keep the contract, saying which rule it broke.
//! What is not in the contract is not asked for: the time that something takes, the size of a
//! watch's items, the texts of errors.

mod compaction;
mod comparisons;
mod concurrency;
mod leases;
mod progress;
mod ranges;
mod refusals;
mod slow_watches;
mod transactions;
mod watches;
mod writes;

pub use self::{
    compaction::compaction,
    comparisons::comparisons,
    concurrency::concurrency,
    leases::{lease_expiry, lease_transactions, leases},
    progress::progress,
    ranges::ranges,
    refusals::refusals,
    slow_watches::slow_watches,
    transactions::transactions,
    watches::watches,
    writes::writes,
};
