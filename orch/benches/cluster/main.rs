//! Whole clusters, measured: start, memory, requests over TLS, scheduling, large workloads.
//!
//! `cargo bench -p orch --features cli,testing --bench cluster [-- PART[=SIZE] ...]`, where the parts
//! are `start`, `up`, `http`, `scheduling`, `workloads`, `large`, `roll`, `day` and `explore`, runs
//! all or the named parts, and prints medians over several rounds. `large` consists of `idle`,
//! `sets`, `daemons`, `jobs` and `endpoints`, `start` has `fleet` in it, and `workloads` has
//! `available`; each of these can be named alone. A size is that of the largest thing in the part: deployments, replicas, nodes, completions,
//! endpoints, clusters, or a day's hours. Numbers are for comparing runs on one machine.

use std::time::Duration;

mod day;
mod endpoints;
mod explore;
mod fleet;
mod http;
mod idle;
mod large;
mod roll;
mod scheduling;
mod start;
mod up;
mod workloads;
mod world;

/// As the `orch` command has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Those that look at memory come first within a part: what others free would hide it.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("cores: {cores}");
    if runs("start") || runs("fleet") {
        in_runtime(fleet::run());
    }
    if runs("start") {
        start::run();
    }
    if runs("up") {
        in_runtime(up::run());
    }
    if runs("http") {
        in_runtime(http::run());
    }
    if runs("scheduling") {
        in_runtime(scheduling::run());
    }
    if runs("workloads") || runs("available") {
        workloads::small();
    }
    if runs("workloads") {
        in_runtime(workloads::run());
    }
    if runs("large") || runs("idle") {
        in_runtime(idle::run());
    }
    if runs("large") || runs("sets") {
        in_runtime(large::run());
    }
    if runs("large") || runs("daemons") {
        in_runtime(large::daemons());
    }
    if runs("large") || runs("jobs") {
        in_runtime(large::jobs());
    }
    if runs("large") || runs("endpoints") {
        in_runtime(endpoints::run());
    }
    if runs("roll") {
        in_runtime(roll::run());
    }
    if runs("day") {
        day::run();
    }
    if runs("explore") {
        explore::run();
    }
}

/// The parts that were asked for, each with its size if that was told.
fn wanted() -> Vec<(String, Option<usize>)> {
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let part = |argument: String| match argument.split_once('=') {
        Some((name, size)) => (name.to_owned(), Some(size.parse().expect("a number"))),
        None => (argument, None),
    };
    arguments.map(part).collect()
}

fn runs(part: &str) -> bool {
    let wanted = wanted();
    wanted.is_empty() || wanted.iter().any(|(name, _)| name == part)
}

/// How large a part is to be.
fn size(part: &str, default: usize) -> usize {
    let size = wanted().into_iter().find(|(name, _)| name == part).and_then(|(_, size)| size);
    size.unwrap_or(default)
}

/// Runs a part on a runtime of its own, so that no part inherits another's tasks.
fn in_runtime(part: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(part);
    runtime.shutdown_background();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn median_duration(values: &[Duration]) -> Duration {
    Duration::from_secs_f64(median(values.iter().map(Duration::as_secs_f64).collect()))
}

/// A process' resident memory in MiB, where the system tells it.
fn resident_mib(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}
