//! `orch::testing`, as the author of an operator uses it.

mod expectations;
mod faults;
mod histories;
mod looking_back;
mod nodes;
mod notes;
#[path = "../objects/mod.rs"]
mod objects;
mod traffic;
mod world;
