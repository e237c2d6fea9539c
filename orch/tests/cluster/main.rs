//! Whole clusters in this process: what they run, how they end, and that they repeat themselves.

mod custom;
mod determinism;
mod failures;
mod lifecycle;
mod measured;
mod quotas;
mod storage;
mod workloads;
mod world;
