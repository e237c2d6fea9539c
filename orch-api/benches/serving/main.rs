//! What the API server does under load, beside its clients on the same machine.
//!
//! ```text
//! cargo bench -p orch-api --bench serving            # everything, some minutes
//! cargo bench -p orch-api --bench serving -- creates # one part
//! ```
//!
//! Parts: `creates`, `gets`, `lists`, `memory`, `watchers`, `nodes`, `start`. What goes over TLS
//! is served by a process of its own, so that its memory can be told from that of its clients.

use std::time::Duration;

mod memory;
mod over_tls;
mod server;
mod start;
mod watchers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long one round of a load takes, and how many rounds a median is of.
const PERIOD: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// A ConfigMap whose JSON is about 1 KiB.
fn config_map(name: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"text": "x".repeat(930)},
    })
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The resident memory of a process, in bytes.
fn resident(process: u32) -> f64 {
    memory_of(process, "VmRSS:")
}

/// A line of a process's status, in bytes.
fn memory_of(process: u32, line: &str) -> f64 {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(path).expect("the process lives");
    let told = status.lines().find_map(|told| told.strip_prefix(line)).expect("its memory");
    let kib: f64 = told.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024.0
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    if let [serve, store, folder] = arguments.as_slice()
        && serve == "--serve"
    {
        return server::serve(store, folder.as_ref());
    }
    if arguments == ["--idle"] {
        return start::idle();
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|one| one == part);
    if wanted("start") {
        start::run();
    }
    if wanted("creates") {
        over_tls::creates();
    }
    if wanted("gets") {
        over_tls::gets();
    }
    if wanted("lists") {
        over_tls::lists();
        memory::list_in_process();
    }
    if wanted("memory") {
        memory::run();
    }
    if wanted("watchers") {
        watchers::many();
    }
    if wanted("nodes") {
        watchers::nodes();
    }
}
