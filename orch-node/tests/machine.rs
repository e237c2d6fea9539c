//! The process runtime with real processes.
//!
//! This executable is its own shim, so it has no standard test harness. Trials that need something
//! that the machine lacks are ignored, and shown as such.

#[path = "machine/process.rs"]
mod process;

use libtest_mimic::{Arguments, Trial};
use orch_core::testing::require::{Requirement, missing};

type Test = fn();

fn main() {
    orch_node::shim::main_if_requested();
    let arguments = Arguments::from_args();
    let everywhere: [(&str, Test); 6] = [
        ("keeps_the_runtime_contract", process::keeps_the_runtime_contract),
        ("writes_logs_and_tells_why_it_ended", process::writes_logs_and_tells_why_it_ended),
        ("runs_commands_with_their_streams", process::runs_commands_with_their_streams),
        ("attaches_to_a_container", process::attaches_to_a_container),
        ("adopts_what_runs", process::adopts_what_runs),
        ("runs_a_pod_from_the_cluster", process::runs_a_pod_from_the_cluster),
    ];
    let as_root: [(&str, Test); 2] = [
        ("mounts_volumes_at_their_paths", process::mounts_volumes_at_their_paths),
        ("kills_what_uses_too_much_memory", process::kills_what_uses_too_much_memory),
    ];
    let trial = |name: &str, test: Test| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let why = missing(&[Requirement::Root]);
    let mut trials: Vec<Trial> = everywhere.iter().map(|(name, test)| trial(name, *test)).collect();
    for (name, test) in as_root {
        let name = match &why {
            Some(why) => format!("{name} ({why})"),
            None => name.to_owned(),
        };
        trials.push(trial(&name, test).with_ignored_flag(why.is_some()));
    }
    libtest_mimic::run(&arguments, trials).exit();
}
