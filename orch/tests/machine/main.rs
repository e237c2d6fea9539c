//! The `orch` command on a real machine: the binary, driven by `kubectl`.
//!
//! Clusters on one machine share its service addresses and node ports, so one test runs at a time.
//! A test whose requirements are missing is shown as ignored, by name.

use libtest_mimic::{Arguments, Trial};
use orch_core::testing::require::{Requirement, missing};

mod bad_input;
mod behaviours;
mod clients;
mod cluster;
mod containerd;
mod cri;
mod kubectl;
mod manifests;
mod process;
mod served;
mod store;
mod stores;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let modules = [
        process::trials(),
        served::trials(),
        bad_input::trials(),
        store::trials(),
        stores::trials(),
        cri::trials(),
        manifests::trials(),
        clients::trials(),
        kubectl::trials(),
        behaviours::trials(),
    ];
    let trials = modules.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test that panics when it fails, and is ignored when the machine lacks what it needs.
fn trial(name: &str, requirements: &[Requirement], test: fn()) -> Trial {
    let why = missing(requirements);
    // The reason is part of what is shown, because libtest has no other place for it.
    let kind = why.as_deref().unwrap_or_default();
    Trial::test(name, move || {
        test();
        Ok(())
    })
    .with_kind(kind)
    .with_ignored_flag(why.is_some())
}
