//! Whole clusters, measured: start, memory, requests over TLS, scheduling, large workloads.
//!
//! `cargo bench -p orch --features cli --bench cluster [-- PART ...]`, where the parts are `start`,
//! `up`, `http`, `scheduling`, `workloads`, `large`, `day` and `explore`, runs all or the named
//! parts, and prints medians over several rounds. Numbers are for comparing runs on one machine.

use std::time::Duration;

mod day;
mod explore;
mod http;
mod large;
mod scheduling;
mod start;
mod up;
mod workloads;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("cores: {cores}");
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
    if runs("workloads") {
        in_runtime(workloads::run());
    }
    if runs("large") {
        in_runtime(large::run());
    }
    if runs("day") {
        day::run();
    }
    if runs("explore") {
        explore::run();
    }
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
