//! `orch::testing`, as the author of an operator uses it.

mod expectations;
mod faults;
mod looking_back;
mod nodes;
mod objects;
