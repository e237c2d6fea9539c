//! Whole clusters in this process: what they run, how they end, and that they repeat themselves.

mod custom;
mod devices;
mod exploring;
mod failures;
mod lifecycle;
mod measured;
#[path = "../objects/mod.rs"]
mod objects;
mod properties;
mod quotas;
mod storage;
mod workloads;
mod world;
