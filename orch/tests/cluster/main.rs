//! Whole clusters in this process: what they run, and how they end.

mod failures;
mod lifecycle;
mod storage;
mod workloads;
mod world;
