//! An operator that owns a kind, and its tests: three mistakes that many operators make, each found
//! and mended. `docs/testing-operators.md` goes through it.
//!
//! - [`site`]: the kind `Site`.
//! - [`operator`]: its operator, written with `kube::runtime` and nothing of orch.
//! - [`scenarios`]: what must hold of it, in whole clusters in virtual time.
//! - [`exploring`]: the same while everything fails, from many seeds.
//!
//! `cargo run --package tested_operator` shows what each mistake leads to.

pub mod exploring;
pub mod operator;
pub mod scenarios;
pub mod site;

pub use operator::Mistakes;
pub use site::{Site, SiteSpec, SiteStatus};

/// The code of the guide compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing-operators.md")]
struct Guide;
